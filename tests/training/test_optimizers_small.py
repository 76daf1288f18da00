"""AdamW with moments in 8 bits and weights in 16: how near it stays to float32, and what it takes."""

import pytest
import torch
from tandem_wan.training.optimizers import low_bit
from tandem_wan.training.optimizers.adamw import CompactAdamW
from tandem_wan.training.optimizers.automagic import Automagic
from tandem_wan.training.optimizers.build import build_optimizer, optimizer_notes
from tandem_wan.training.optimizers.kahan import REMAINDER, exact_value, store_value
from tandem_wan.training.plans.estimate_memory import remembered_bytes
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import ExpertSettings, LoraSettings, OptimizerSettings

SHAPE = (64, 128)
BF16 = torch.bfloat16


def weight(dtype=torch.float32, shape=SHAPE, seed=0) -> torch.nn.Parameter:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1
    return torch.nn.Parameter(drawn.to(BF16).to(dtype))


def gradients(count, shape=SHAPE):
    generator = torch.Generator().manual_seed(7)
    trend = torch.randn(shape, generator=generator)
    for _ in range(count):
        # Values that bfloat16 holds: every dtype gets the same ones.
        yield (trend + torch.randn(shape, generator=generator)).to(BF16).float()


def built(name, w, rate=1e-3, decay=0.01):
    return build_optimizer(
        [w], OptimizerSettings(name=name, weight_decay=decay), ExpertSettings(rate=rate)
    )


def walk(optimizer, w, count, each=None):
    for gradient in gradients(count, tuple(w.shape)):
        w.grad = gradient.to(w.dtype)
        optimizer.step()
        if each:
            each()
    return w.detach().float()


def test_8_bit_follows_adamw_within_a_twentieth_of_the_way_gone():
    start, exact, coded = weight().detach().clone(), weight(), weight()
    walk(built("adamw", exact), exact, 200)
    walk(built("adamw 8-bit", coded), coded, 200)
    gone, apart = (exact - start).norm(), (coded - exact).norm()
    assert 0 < apart < 0.05 * gone


def test_8_bit_moments_take_a_quarter_of_the_bytes():
    optimizer = built("adamw 8-bit", w := weight())
    walk(optimizer, w, 1)
    state = optimizer.state[w]
    assert {name: t.dtype for name, t in state.items() if t.ndim > 1} == {
        "exp_avg_codes": torch.uint8,
        "exp_avg_sq_root_codes": torch.uint8,
    }
    assert sum(t.nbytes for t in state.values()) <= 2.05 * w.numel()


@pytest.mark.parametrize("shape", [(15, 16), (16, 16), (4096 + 128, 1), (65, 65)], ids=str)
def test_a_tensor_that_is_small_or_has_no_whole_blocks_keeps_its_moments_exact(shape):
    assert not low_bit.fits_blocks(torch.empty(shape))
    exact, coded = weight(shape=shape), weight(shape=shape)
    walk(built("adamw", exact), exact, 30)
    walk(built("adamw 8-bit", coded), coded, 30)
    torch.testing.assert_close(coded, exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("adamw", "float32"),
        ("automagic", "float32"),
        ("adamw", "bfloat16"),
        ("adamw 8-bit", "float32"),
        ("adamw kahan", "bfloat16"),
        ("adamw 8-bit kahan", "bfloat16"),
        ("prodigy", "float32"),
    ],
)
def test_the_estimate_of_a_plan_counts_what_is_really_remembered(name, dtype):
    optimizer = built(name, w := weight(getattr(torch, dtype)))
    walk(optimizer, w, 1)
    real = sum(t.nbytes for t in optimizer.state[w].values()) / w.numel()
    assert remembered_bytes(plan(name, dtype)) == pytest.approx(real, rel=0.05)


TINY = 2e-6
"""A rate whose steps are a hundredth of what bfloat16 tells apart at 0.1."""


@pytest.mark.parametrize(
    ("name", "eight_bit"), [("adamw kahan", False), ("adamw 8-bit kahan", True)]
)
def test_kahan_in_16_bits_is_float32_to_the_last_bit_over_500_steps(name, eight_bit):
    exact, kept = weight(), weight(BF16)
    slow = CompactAdamW(
        [exact], lr=TINY, betas=(0.9, 0.999), weight_decay=0.01, eight_bit=eight_bit, kahan=False
    )
    walk(slow, exact, 500)
    optimizer = built(name, kept, TINY)
    walk(optimizer, kept, 500)
    assert torch.equal(exact_value(kept, optimizer.state[kept]), exact)


def test_automagic_in_16_bits_is_float32_to_the_last_bit():
    exact, kept = weight(), weight(BF16)
    walk(built("automagic", exact, TINY), exact, 100)
    optimizer = built("automagic", kept, TINY)
    walk(optimizer, kept, 100)
    assert isinstance(optimizer, Automagic)
    assert torch.equal(exact_value(kept, optimizer.state[kept]), exact)


def test_kahan_follows_torchs_adamw_over_500_tiny_steps_that_plain_bfloat16_loses():
    start = weight().detach().clone()
    exact, plain, kept = weight(), weight(BF16), weight(BF16)
    walk(torch.optim.AdamW([exact], lr=TINY), exact, 500)
    walk(torch.optim.AdamW([plain], lr=TINY), plain, 500)
    optimizer = built("adamw kahan", kept, TINY)
    walk(optimizer, kept, 500)
    gone = (exact - start).norm()
    value = exact_value(kept, optimizer.state[kept])
    assert (value - exact).norm() < 1e-3 * gone
    large = start.abs() > 0.05
    assert (plain.float() - exact)[large].norm() > 0.9 * (exact - start)[large].norm()


def test_the_weight_is_the_nearest_to_the_exact_value():
    optimizer = built("adamw kahan", w := weight(BF16), 1e-4)

    def near():
        value = exact_value(w, optimizer.state[w])
        apart = (value.to(BF16).float() - value).abs()
        assert torch.equal((w.detach().float() - value).abs(), apart)

    walk(optimizer, w, 50, near)


def plan(name="adamw", dtype="float32", **rates):
    return TrainingPlan(
        optimizer=OptimizerSettings(name=name),
        lora=LoraSettings(dtype=dtype),
        high=ExpertSettings(**rates),
        low=ExpertSettings(**rates),
    )


def test_in_float32_kahan_has_nothing_to_do_and_says_so():
    optimizer = built("adamw kahan", weight())
    assert type(optimizer) is torch.optim.AdamW
    assert "nothing to do" in optimizer_notes(plan("adamw kahan"))[0]
    assert not built("adamw 8-bit kahan", weight()).kahan
    for name in ("adamw kahan", "adamw 8-bit kahan", "automagic"):
        assert optimizer_notes(plan(name, "bfloat16", maximum=1e-3)) == ()


@pytest.mark.parametrize("name", ["adamw", "adamw 8-bit", "prodigy", "library:Lion"])
def test_16_bits_without_kahan_are_told_what_they_lose(name):
    assert "loses every update" in optimizer_notes(plan(name, "bfloat16"))[0]
    assert optimizer_notes(plan(name)) == ()


def test_automagic_says_that_it_takes_no_schedule():
    notes = optimizer_notes(plan("automagic", schedule="cosine", maximum=1e-3))
    assert ["schedule and warm-up of" in note for note in notes] == [True, True]


def test_without_kahan_16_bit_weights_have_moments_of_32_bits_all_the_same():
    """In 16 bits the second moment stays where it is: a step of beta2 0.999 is below what they tell apart."""
    w, theirs = weight(BF16, (8, 8)), weight(BF16, (8, 8))
    optimizer, plain = built("adamw", w), torch.optim.AdamW([theirs], lr=1e-3)
    for step in range(1500):
        for each, its in ((optimizer, w), (plain, theirs)):
            its.grad = torch.full_like(its, 1.0 if step < 500 else 0.1)
            each.step()
    kept, stuck = (o.state[x]["exp_avg_sq"].mean() for o, x in ((optimizer, w), (plain, theirs)))
    exact = (1 - 0.999**500) * 0.999**1000 + 0.01 * (1 - 0.999**1000)
    assert optimizer.state[w]["exp_avg_sq"].dtype == torch.float32
    assert kept.item() == pytest.approx(exact, rel=2e-3)
    assert abs(stuck.item() - exact) > 0.3 * exact
    assert REMAINDER not in optimizer.state[w]


def test_a_remainder_that_is_no_longer_kept_is_not_added_again():
    w = weight(BF16)
    state = {}
    store_value(w.data, w.detach().float() * 1.001, state)
    assert state[REMAINDER].any()
    store_value(w.data, torch.full(SHAPE, 0.3001), state, keep=False)
    assert torch.equal(exact_value(w, state), w.detach().float())


def test_automagic_without_room_for_its_rates_says_so():
    notes = optimizer_notes(plan("automagic"))
    assert ["no room" in note and "0.0001" in note for note in notes] == [True, True]
    assert optimizer_notes(plan("automagic", minimum=1e-5, maximum=1e-4)) == ()
