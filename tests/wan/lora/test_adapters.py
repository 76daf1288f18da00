"""LoRA arithmetic against a plain product of matrices."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.lora.adapters import (
    DEFAULT_TARGETS,
    AdapterSet,
    LoraAdapter,
    new_adapters,
    pick_layers,
)
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout

SHAPES = {"blocks.0.self_attn.q": (12, 12), "blocks.0.ffn.0": (12, 20)}


def random_adapter(rank: int, inputs: int, outputs: int, alpha: float, **kwargs) -> LoraAdapter:
    down, up = torch.randn(rank, inputs), torch.randn(outputs, rank)
    return LoraAdapter(down.double(), up.double(), alpha, **kwargs)


@given(
    rank=st.integers(1, 8),
    alpha=st.floats(0.5, 64.0),
    strength=st.floats(-1.5, 1.5),
    seed=st.integers(0, 99),
)
def test_the_update_is_strength_alpha_over_rank_times_up_down_x(rank, alpha, strength, seed):
    torch.manual_seed(seed)
    adapter = random_adapter(rank, 12, 20, alpha)
    adapter.strength = strength
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    matrix = strength * alpha / rank * (adapter.up.detach() @ adapter.down.detach())
    expected = torch.stack([torch.stack([matrix @ token for token in clip]) for clip in x])
    torch.testing.assert_close(adapter(x).detach(), expected, rtol=1e-12, atol=1e-12)


def test_fresh_adapters_change_nothing_and_yet_can_learn():
    for adapter, (inputs, outputs) in zip(
        new_adapters(SHAPES, rank=4, alpha=4.0, seed=0).values(), SHAPES.values(), strict=True
    ):
        update = adapter(torch.randn(3, inputs))
        assert update.shape == (3, outputs)
        assert update.abs().max() == 0.0
        assert adapter.dropout == 0.0
        update.sum().backward()
        assert adapter.up.grad.abs().min() > 0.0, "`down` is not zero, so `up` has a gradient"


def test_down_starts_uniform_within_one_over_root_inputs():
    adapter = new_adapters({"layer": (400, 10)}, rank=64, alpha=64.0, seed=0)["layer"]
    bound = 1 / 20
    assert adapter.down.abs().max() <= bound
    assert adapter.down.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_the_seed_decides_and_the_global_random_state_does_not():
    torch.manual_seed(1)
    first = new_adapters(SHAPES, rank=4, alpha=4.0, seed=7)
    torch.manual_seed(2)
    again = new_adapters(SHAPES, rank=4, alpha=4.0, seed=7)
    other = new_adapters(SHAPES, rank=4, alpha=4.0, seed=8)
    for layer in SHAPES:
        assert torch.equal(first[layer].down, again[layer].down)
        assert not torch.equal(first[layer].down, other[layer].down)


def test_a_half_precision_input_gets_a_half_precision_update():
    adapter = LoraAdapter(torch.randn(4, 12), torch.randn(20, 4), 4.0)
    x = torch.randn(3, 12)
    update = adapter(x.bfloat16())
    assert update.dtype == torch.bfloat16
    torch.testing.assert_close(update.float(), adapter(x), rtol=0.1, atol=0.3)


def test_dropout_works_only_in_training_and_keeps_the_mean():
    torch.manual_seed(0)
    adapter = random_adapter(4, 12, 20, 4.0, dropout=0.5)
    x = torch.randn(1, 12, dtype=torch.float64)
    adapter.train()
    dropped = torch.stack([adapter(x) for _ in range(4000)])
    whole = adapter.eval()(x)
    assert dropped.std(dim=0).min() > 0.0
    assert torch.equal(adapter(x), whole)
    error = dropped.std(dim=0) / 4000**0.5
    assert ((dropped.mean(dim=0) - whole).abs() < 5 * error).all()


def test_the_default_targets_are_ten_layers_of_every_block_and_nothing_else():
    layers = [
        name.removesuffix(".weight")
        for name, shape in transformer_layout(TransformerSize(layers=12)).items()
        if name.endswith(".weight") and len(shape) == 2
    ]
    kinds = [f"{attention}.{name}" for attention in ("self_attn", "cross_attn") for name in "qkvo"]
    expected = {f"blocks.{i}.{kind}" for i in range(12) for kind in [*kinds, "ffn.0", "ffn.2"]}
    assert set(pick_layers(layers)) == expected


def test_a_pattern_must_match_the_whole_name():
    layers = ["blocks.1.self_attn.q", "blocks.11.self_attn.q", "blocks.1.self_attn.q_extra", "q"]
    assert pick_layers(layers, [r"blocks\.1\.self_attn\.q"]) == ["blocks.1.self_attn.q"]
    assert pick_layers(layers, ["self_attn"]) == []


def test_layers_keep_their_order_and_come_once_for_many_patterns():
    layers = ["c", "a", "b"]
    assert pick_layers(layers, ["a", "[abc]", "c"]) == layers
    assert pick_layers(["x.0.self_attn.q"], DEFAULT_TARGETS) == []


def test_mean_magnitude_counts_every_entry_alike():
    small = LoraAdapter(torch.ones(1, 2), torch.zeros(2, 1), 1.0)
    large = LoraAdapter(torch.full((2, 4), -3.0), torch.full((4, 2), 2.0), 1.0)
    entries = [1.0] * 2 + [0.0] * 2 + [3.0] * 8 + [2.0] * 8
    assert AdapterSet({"a": small, "b": large}).mean_magnitude() == pytest.approx(
        sum(entries) / len(entries)
    )
    assert AdapterSet({}).mean_magnitude() == 0.0


def test_parameters_come_layer_by_layer_down_before_up():
    adapters = new_adapters(SHAPES, rank=4, alpha=4.0, seed=0)
    expected = [factor for a in SHAPES for factor in (adapters[a].down, adapters[a].up)]
    assert [id(p) for p in adapters.parameters()] == [id(p) for p in expected]
