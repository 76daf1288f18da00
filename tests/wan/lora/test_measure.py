"""Sizes of updates against dense products, and the same file under two names."""

import statistics

import pytest
import torch
from tandem_wan.wan.lora.adapters import LoraAdapter
from tandem_wan.wan.lora.measure import (
    WeightNorms,
    content_digest,
    low_rank_norm,
    spread,
    update_norm,
    update_size,
)

WIDTHS = {"blocks.0.self_attn.q.weight": (24, 24), "blocks.0.ffn.0.weight": (56, 24)}


def adapter(outputs: int, inputs: int, rank: int = 4, alpha: float = 3.0) -> LoraAdapter:
    return LoraAdapter(torch.randn(rank, inputs), torch.randn(outputs, rank), alpha)


def network(num: int = 6) -> dict[str, torch.Tensor]:
    return {f"blocks.{i}.self_attn.q.weight": torch.randn(24, 16) * (i + 1) for i in range(num)}


@pytest.mark.parametrize("rank", [1, 4, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_of_factors_is_that_of_their_product(rank, dtype):
    torch.manual_seed(0)
    down, up = torch.randn(rank, 640).to(dtype), torch.randn(320, rank).to(dtype)
    dense = (up.double() @ down.double()).norm().item()
    assert low_rank_norm(down, up) == pytest.approx(dense, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_the_norm_of_a_large_weight_is_exact_in_any_float_format(dtype):
    torch.manual_seed(0)
    weight = torch.randn(2048, 3072).to(dtype)
    norms = WeightNorms(lambda name: weight)
    assert norms.norm("w") == pytest.approx(weight.double().norm().item(), rel=1e-6)


def test_factors_that_cancel_have_almost_no_norm():
    torch.manual_seed(0)
    down, up = torch.randn(1, 64), torch.randn(48, 1)
    both = low_rank_norm(torch.cat([down, down]), torch.cat([up, -up], 1))
    assert both < 1e-6 * low_rank_norm(down, up)


def test_the_factors_of_a_convolution_are_counted_flat():
    torch.manual_seed(0)
    down, up = torch.randn(4, 36, 1, 2, 2), torch.randn(96, 4, 1, 1, 1)
    dense = (up.flatten(1) @ down.flatten(1)).norm().item()
    assert low_rank_norm(down, up) == pytest.approx(dense, rel=1e-6)


def test_the_size_of_an_update_is_the_median_of_the_dense_ratios():
    torch.manual_seed(0)
    weights = network(7)
    updates = {name: adapter(24, 16, alpha=i + 1.0) for i, name in enumerate(weights)}
    ratios = [(updates[n].delta(w).norm() / w.norm()).item() for n, w in weights.items()]
    size = update_size(updates, WeightNorms(weights.get))
    assert size.median == pytest.approx(statistics.median(ratios), rel=1e-6)
    assert (size.measured, size.modules, size.zero) == (7, 7, False)


def test_at_most_so_many_modules_are_measured_and_all_are_counted():
    weights = network(10)
    updates = {name: adapter(24, 16) for name in weights}
    read = []

    def weight_of(name: str) -> torch.Tensor:
        read.append(name)
        return weights[name]

    size = update_size(updates, WeightNorms(weight_of), at_most=3)
    assert (size.measured, size.modules) == (3, 10)
    assert len(set(read)) == 3


def test_an_update_that_has_not_learnt_is_zero():
    weights = network(3)
    fresh = {n: LoraAdapter(torch.randn(4, 16), torch.zeros(24, 4), 4.0) for n in weights}
    size = update_size(fresh, WeightNorms(weights.get))
    assert (size.median, size.zero) == (0.0, True)
    fresh["blocks.2.self_attn.q.weight"].up.data[5, 1] = 1e-30
    assert not update_size(fresh, WeightNorms(weights.get)).zero


def test_zero_is_seen_where_no_weight_can_be_read_and_a_size_is_not_invented():
    fresh = {n: LoraAdapter(torch.randn(4, 16), torch.zeros(24, 4), 4.0) for n in network(3)}
    size = update_size(fresh, WeightNorms(lambda name: None))
    assert (size.median, size.measured, size.zero) == (None, 0, True)
    assert not update_size({}, WeightNorms(lambda name: None)).zero


def test_a_weight_of_zeros_has_no_ratio():
    weights = {"blocks.0.ffn.0.weight": torch.zeros(24, 16), **network(1)}
    size = update_size({n: adapter(24, 16) for n in weights}, WeightNorms(weights.get))
    assert size.measured == 1


def test_norms_and_biases_are_measured_only_when_there_is_nothing_else():
    class Whole:
        def delta(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 0.5

    weights = {**network(2), "blocks.0.norm3.weight": torch.ones(16)}
    mixed = {n: Whole() if "norm" in n else adapter(24, 16) for n in weights}
    assert update_size(mixed, WeightNorms(weights.get)).measured == 2
    only = update_size({"blocks.0.norm3.weight": Whole()}, WeightNorms(weights.get))
    assert only.median == pytest.approx(0.5)


def test_an_update_of_another_kind_is_measured_by_its_difference():
    class Twice:
        def delta(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    weight = torch.randn(5, 7)
    norm = update_norm(Twice(), lambda: weight)
    assert norm == pytest.approx(2 * weight.norm().item(), rel=1e-6)
    assert update_norm(Twice(), lambda: None) is None


def test_each_norm_is_computed_once():
    asked = []

    def weight_of(name: str) -> torch.Tensor | None:
        asked.append(name)
        return None if name == "quantised" else torch.full((2, 2), 3.0)

    norms = WeightNorms(weight_of)
    assert norms.norm("a") == norms.norm("a") == pytest.approx(6.0, rel=1e-6)
    assert norms.norm("quantised") is norms.norm("quantised") is None
    assert asked == ["a", "quantised"]


def test_a_low_rank_update_needs_a_norm_of_its_weight_and_not_the_weight():
    class Given(WeightNorms):
        def norm(self, name: str) -> float | None:
            return 2.0

    def unreadable(name: str) -> torch.Tensor | None:
        raise AssertionError("nobody asks for the weight")

    update = adapter(24, 16)
    size = update_size({"blocks.0.ffn.0.weight": update}, Given(unreadable))
    dense = update.delta(torch.zeros(24, 16)).norm().item()
    assert size.median == pytest.approx(dense / 2, rel=1e-6)


def test_spread_takes_all_or_so_many_at_even_distances():
    assert spread([1, 2, 3], 5) == [1, 2, 3]
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
    assert len(set(spread(range(401), 48))) == 48


def test_a_copy_has_the_same_digest_and_another_file_has_not():
    tensors = {"a": torch.randn(64, 8), "b": torch.randn(8).bfloat16(), "alpha": torch.tensor(4.0)}
    same = {name: tensor.clone() for name, tensor in reversed(tensors.items())}
    assert content_digest(tensors) == content_digest(same)
    for change in ({"a": tensors["a"] + 1}, {"c": torch.ones(1)}, {"b": tensors["b"].float()}):
        assert content_digest(tensors | change) != content_digest(tensors)
