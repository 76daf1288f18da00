"""Every kind of update against its formula, written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.lora.adapters import AdapterSet, LoraAdapter, new_adapters
from tandem_wan.wan.lora.dora import DoRA
from tandem_wan.wan.lora.hadamard import LoHa
from tandem_wan.wan.lora.kronecker import LoKr
from tandem_wan.wan.lora.updates import Difference, LayerPass, Update, UpdateSet

OUTPUTS, INPUTS, RANK, ALPHA = 12, 20, 4, 6.0


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def low_rank() -> LoraAdapter:
    return LoraAdapter(random(RANK, INPUTS), random(OUTPUTS, RANK), ALPHA)


def kronecker(first_whole: bool = True, second_whole: bool = False) -> LoKr:
    first = (random(3, 4),) if first_whole else (random(3, RANK), random(RANK, 4))
    second = (random(4, 5),) if second_whole else (random(4, RANK), random(RANK, 5))
    return LoKr(first, second, rank=RANK, alpha=ALPHA)


def hadamard() -> LoHa:
    one, two = ((random(OUTPUTS, RANK), random(RANK, INPUTS)) for _ in range(2))
    return LoHa(one, two, rank=RANK, alpha=ALPHA)


UPDATES = {
    "LoRA": low_rank,
    "LoKr": kronecker,
    "LoKr whole": lambda: kronecker(True, True),
    "LoKr of products": lambda: kronecker(False, False),
    "LoHa": hadamard,
    "difference": lambda: Difference(random(OUTPUTS, INPUTS)),
    "DoRA of outputs": lambda: DoRA(low_rank(), random(OUTPUTS).abs() + 1, "outputs"),
    "DoRA of inputs": lambda: DoRA(low_rank(), random(INPUTS).abs() + 1, "inputs"),
    "DoRA of a LoKr": lambda: DoRA(kronecker(), random(OUTPUTS).abs() + 1, "outputs"),
    "DoRA of a LoHa": lambda: DoRA(hadamard(), random(INPUTS).abs() + 1, "inputs"),
}


def applied(update: Update, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if not update.needs_layer:
        return update(x)
    update.prepare(weight)
    return update(x, LayerPass(x @ weight.T, lambda other: other @ weight.T))


@pytest.mark.parametrize("kind", UPDATES)
@given(strength=st.floats(-1.5, 1.5), seed=st.integers(0, 50))
def test_what_a_layer_gains_is_its_input_times_strength_times_delta(kind, strength, seed):
    torch.manual_seed(seed)
    update, weight, x = UPDATES[kind](), random(OUTPUTS, INPUTS), random(2, 3, INPUTS)
    update.strength = strength
    delta = update.delta(weight)
    assert delta.shape == weight.shape
    assert delta.dtype == torch.float32
    torch.testing.assert_close(
        applied(update, weight, x), strength * x @ delta.T, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("kind", UPDATES)
def test_a_half_precision_input_gains_a_half_precision_output(kind):
    torch.manual_seed(0)
    update, weight, x = UPDATES[kind](), random(OUTPUTS, INPUTS), random(3, INPUTS)
    exact = applied(update, weight, x)
    rounded = applied(update, weight.bfloat16(), x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() / exact.norm() < 0.03


@pytest.mark.parametrize("kind", UPDATES)
def test_delta_does_not_depend_on_strength(kind):
    torch.manual_seed(0)
    update, weight = UPDATES[kind](), random(OUTPUTS, INPUTS)
    before = update.delta(weight)
    update.strength = 0.0
    assert torch.equal(update.delta(weight), before)


def test_a_low_rank_delta_is_alpha_over_rank_up_down():
    adapter = low_rank()
    expected = ALPHA / RANK * torch.einsum("o r, r i -> o i", adapter.up, adapter.down)
    torch.testing.assert_close(adapter.delta(torch.empty(OUTPUTS, INPUTS)), expected)


@pytest.mark.parametrize("first_whole", [True, False])
@pytest.mark.parametrize("second_whole", [True, False])
def test_a_lokr_delta_is_a_kronecker_product(first_whole, second_whole):
    update = kronecker(first_whole, second_whole)
    first = update.first[0] if first_whole else update.first[0] @ update.first[1]
    second = update.second[0] if second_whole else update.second[0] @ update.second[1]
    expected = ALPHA / RANK * torch.kron(first, second)
    torch.testing.assert_close(update.delta(torch.empty(OUTPUTS, INPUTS)), expected)


def test_a_lokr_without_a_rank_is_not_scaled():
    first, second = random(3, 4), random(4, 5)
    update = LoKr((first,), (second,), alpha=1e9)
    torch.testing.assert_close(
        update.delta(torch.empty(OUTPUTS, INPUTS)), torch.kron(first, second)
    )


def test_a_loha_delta_is_a_product_entry_by_entry():
    update = hadamard()
    one, two = ((part[0] @ part[1]) for part in (update.one, update.two))
    torch.testing.assert_close(update.delta(torch.empty(OUTPUTS, INPUTS)), ALPHA / RANK * one * two)


@pytest.mark.parametrize(("axis", "numbers"), [("outputs", OUTPUTS), ("inputs", INPUTS)])
def test_a_dora_gives_every_row_or_column_its_length_and_the_direction_of_the_sum(axis, numbers):
    direction, magnitude = low_rank(), random(numbers).abs() + 1
    weight = random(OUTPUTS, INPUTS)
    moved = weight + direction.delta(weight)
    after = weight + DoRA(direction, magnitude, axis).delta(weight)
    over = 1 if axis == "outputs" else 0
    torch.testing.assert_close(after.norm(dim=over), magnitude)
    torch.testing.assert_close(
        after / after.norm(dim=over, keepdim=True), moved / moved.norm(dim=over, keepdim=True)
    )


def test_a_dora_of_a_row_of_zeros_is_a_number():
    zero = LoraAdapter(torch.zeros(RANK, INPUTS), torch.zeros(OUTPUTS, RANK), ALPHA)
    weight = torch.zeros(OUTPUTS, INPUTS)
    assert not DoRA(zero, torch.ones(OUTPUTS), "outputs").delta(weight).any()


def test_a_dora_of_a_convolution_keeps_its_change_once_it_has_seen_the_weight():
    weight = random(OUTPUTS, 5, 1, 2, 2)
    dora = DoRA(low_rank(), random(OUTPUTS).abs() + 1, "outputs")
    delta = dora.delta(weight)
    torch.testing.assert_close((weight + delta).flatten(1).norm(dim=1), dora.magnitude.detach())
    dora.prepare(weight)
    assert torch.equal(dora.delta(torch.empty_like(weight)), delta)


@pytest.mark.parametrize("shape", [(6,), (1, 6, 2), (OUTPUTS, 5, 1, 2, 2)])
def test_a_difference_is_what_it_is_in_the_shape_of_its_parameter(shape):
    stored = random(*shape)
    update = Difference(stored.squeeze())
    assert torch.equal(update.delta(torch.zeros(shape)), stored)
    assert (update.rank, update.alpha) == (None, None)


@pytest.mark.parametrize("kind", [kind for kind in UPDATES if kind != "LoRA"])
def test_what_comes_from_a_file_is_never_trained(kind):
    factors = dict(UPDATES[kind]().named_parameters())
    # The direction of a DoRA is an update of its own, here an adapter as training makes them.
    own = [factor for name, factor in factors.items() if not name.startswith("direction.")]
    assert own
    assert not any(factor.requires_grad for factor in own)


def test_a_set_tells_every_update_what_it_changes_and_counts_its_bytes():
    updates = UpdateSet({"a.weight": low_rank(), "a.bias": Difference(torch.zeros(12).half())})
    assert [update.target for update in updates.values()] == ["a.weight", "a.bias"]
    assert updates.num_bytes() == 4 * RANK * (INPUTS + OUTPUTS) + 2 * 12
    assert len(updates.to(torch.device("cpu")).parameters()) == 3


def test_adapters_in_training_are_updates_of_their_layers_weights():
    adapters = new_adapters({"blocks.0.ffn.0": (6, 8)}, rank=2, alpha=2.0, seed=0)
    updates = AdapterSet(adapters).updates()
    assert list(updates) == ["blocks.0.ffn.0.weight"]
    assert updates["blocks.0.ffn.0.weight"] is adapters["blocks.0.ffn.0"]
