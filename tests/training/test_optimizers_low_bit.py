"""Moments in 8 bits: no number is lost beside a large one, none is too small or too large, and none stands still."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.optimizers import low_bit
from tandem_wan.training.optimizers.adamw import CompactAdamW

SHAPE = (16, 256)


def pair() -> tuple[list[torch.nn.Parameter], list[CompactAdamW]]:
    """A weight of zeros with its moments in float32, and one with them in 8 bits."""
    weights = [torch.nn.Parameter(torch.zeros(SHAPE)) for _ in range(2)]
    optimizers = [
        CompactAdamW(
            [w], lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, eight_bit=eight_bit, kahan=False
        )
        for w, eight_bit in zip(weights, (False, True), strict=True)
    ]
    return weights, optimizers


def noisy(size: torch.Tensor, steps: int):
    """Gradients of a given size: a direction that stays, and twice as much noise."""
    random = torch.Generator().manual_seed(0)
    trend = torch.randn(SHAPE, generator=random).sign()
    for _ in range(steps):
        yield size * (0.5 * trend + torch.randn(SHAPE, generator=random))


def walk(gradients) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the exact and the coded weights are in the end."""
    weights, optimizers = pair()
    for gradient in gradients:
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    return weights[0].detach(), weights[1].detach()


def apart(exact: torch.Tensor, coded: torch.Tensor) -> float:
    return ((coded - exact).norm() / exact.norm()).item()


def test_a_small_gradient_beside_a_large_one_goes_as_far_as_in_float32():
    sizes = torch.tensor([1.0, 0.1, 1e-2, 1e-3, 1e-4])
    of = torch.arange(256) % len(sizes)
    exact, coded = walk(noisy(sizes[of], 300))
    # Squares in levels of their own send the last two 45 and 66 times as far off as the way is long.
    found = [apart(exact[:, of == i], coded[:, of == i]) for i in range(len(sizes))]
    assert max(found[:3]) < 0.08
    assert max(found) < 0.25


@pytest.mark.parametrize("ratio", [0.03, 1.3e-4])
def test_a_small_gradient_that_turns_beside_a_large_one_is_followed(ratio):
    size = torch.ones(256)
    size[1::2] = ratio
    exact, coded = walk(size.expand(SHAPE) * each for each in [1.0] * 240 + [-1.0] * 240)
    # Rounded to the nearest level the first moment of the small ones turns late or never: 15 and 96 steps off.
    off = (exact - coded)[:, 1::2].mean().abs() / 1e-4
    assert off < 10


@pytest.mark.parametrize("size", [1e15, 1.0, 1e-5, 1e-7, 1e-10])
def test_gradients_of_every_size_are_followed(size):
    exact, coded = walk(noisy(torch.full(SHAPE, size), 100))
    assert coded.isfinite().all()
    assert apart(exact, coded) < 0.03


def test_what_a_weight_remembers_fades_beside_others_that_go_on():
    """A step at beta2 0.999 takes a thousandth, and levels are at least a hundredth apart."""
    (_, weight), (_, optimizer) = pair()
    going = torch.ones(SHAPE)
    for step in range(700):
        weight.grad = going.clone()
        if step >= 100:
            weight.grad[:, ::2] = 0
        optimizer.step()
    state = optimizer.state[weight]
    kept = low_bit.decode(state["exp_avg_sq_root_codes"], state["exp_avg_sq_scale"], signed=False)
    before = 1 - 0.999**100
    assert kept[:, ::2].mean().item() == pytest.approx(before * 0.999**600, rel=0.05)
    assert kept[:, 1::2].mean().item() == pytest.approx(1 - 0.999**700, rel=0.01)


@pytest.mark.parametrize("signed", [True, False])
def test_over_many_turns_the_codes_stand_for_the_value(signed):
    random = torch.Generator().manual_seed(3)
    value = torch.randn(4, 256, generator=random) * 10 ** torch.linspace(0, -4, 256)
    value = value if signed else value.square()
    turns = 512
    total = torch.zeros_like(value, dtype=torch.float64)
    for turn in range(turns):
        total += low_bit.decode(*low_bit.encode(value, signed=signed, turn=turn), signed=signed)
    inner = value.abs() < value.abs().amax(-1, keepdim=True)
    error = (total / turns - value).abs()
    # Two levels are at most as far apart as the larger of them.
    assert (error <= 0.02 * value.abs().clamp(min=1e-6))[inner].all()


@given(seed=st.integers(0, 99), turn=st.integers(0, 10**6), signed=st.booleans())
@settings(max_examples=25)
def test_a_code_is_one_of_the_two_next_to_the_value(seed, turn, signed):
    value = torch.randn(2, 256, generator=torch.Generator().manual_seed(seed))
    value = value if signed else value.square()
    codes, scale = low_bit.encode(value, signed=signed, turn=turn)
    levels = [(i / 255) ** 8 for i in range(256)]
    if signed:
        levels = [abs(i / 127) ** 3 * i / 127 for i in range(-127, 128)]
    parts = (value.double() / scale.double().unsqueeze(1)).flatten().tolist()
    hair = 1e-6
    for part, code in zip(parts, codes.flatten().tolist(), strict=True):
        below, above = levels[max(code - 1, 0)], levels[min(code + 1, len(levels) - 1)]
        assert below - hair <= part <= above + hair


def test_a_block_of_zeros_stays_zero_and_a_square_never_becomes_zero():
    value = torch.zeros(3, 256)
    value[1, 0], value[1, 1] = 1.0, 1e-30
    for turn in range(20):
        back = low_bit.decode(*low_bit.encode(value, signed=False, turn=turn), signed=False)
        assert not back[0].any() and not back[1, 2:].any() and not back[2].any()
        assert back[1, 0] == 1 and back[1, 1] > 0
        assert not low_bit.decode(*low_bit.encode(value, signed=True, turn=turn), signed=True)[
            0
        ].any()


def test_a_weight_without_any_gradient_does_not_move_and_a_later_one_moves_it():
    (_, weight), (_, optimizer) = pair()
    for gradient in (torch.zeros(SHAPE), torch.zeros(SHAPE), torch.ones(SHAPE)):
        assert not weight.any()
        weight.grad = gradient
        optimizer.step()
    assert weight.isfinite().all()
    assert (weight < 0).all()


def test_it_is_nearer_to_float32_than_the_librarys_own_optimizer():
    library = pytest.importorskip("torchao.optim")
    gradients = list(noisy(torch.tensor([1.0, 2e-3]).repeat(128), 100))
    exact, coded = walk(gradients)
    theirs = torch.nn.Parameter(torch.zeros(SHAPE))
    optimizer = library.AdamW8bit([theirs], lr=1e-4, weight_decay=0.0)
    with torch.compiler.set_stance("force_eager"):
        for gradient in gradients:
            theirs.grad = gradient.clone()
            optimizer.step()
    assert apart(exact, coded) < 0.1 < apart(exact, theirs.detach())
