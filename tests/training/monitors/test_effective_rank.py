"""The effective rank against a slow reference on the whole matrix, and where it can be known by thought."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training import plots
from tandem_wan.training.events import CheckpointSaved, StateChanged
from tandem_wan.training.monitors.curves import Measured
from tandem_wan.training.monitors.effective_rank import (
    effective_rank,
    effective_ranks,
    ranks_of,
)
from tandem_wan.wan.lora.adapters import LoraAdapter


def adapter(rank, inputs, outputs, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    factors = [
        torch.randn(shape, generator=generator) for shape in ((rank, inputs), (outputs, rank))
    ]
    return LoraAdapter(*(factor.to(dtype) for factor in factors), alpha=rank)


def slow(one):
    values = torch.linalg.svdvals(one.up.double() @ one.down.double())
    shares = (values / values.sum()).tolist()
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


@given(st.integers(1, 8), st.integers(8, 40), st.integers(8, 40), st.integers(0, 99))
def test_it_is_that_of_the_whole_update(rank, inputs, outputs, seed):
    one = adapter(rank, inputs, outputs, seed)
    assert effective_rank([one]) == pytest.approx(slow(one), rel=1e-4)
    assert 1 <= effective_rank([one]) <= rank + 1e-6


@pytest.mark.parametrize("used", [1, 2, 5])
def test_so_many_directions_of_equal_strength_are_so_many(used):
    down, up = torch.eye(8, 20), torch.eye(30, 8)
    up[:, used:] = 0
    one = LoraAdapter(down, up * 7, alpha=1.0)
    assert effective_rank([one]) == pytest.approx(used, rel=1e-5)


def test_a_rank_below_the_layers_width_may_be_larger_than_one_side():
    one = adapter(16, 4, 40)
    assert effective_rank([one]) == pytest.approx(slow(one), rel=1e-4)


def test_it_is_the_mean_of_those_that_change_something():
    fresh = LoraAdapter(torch.randn(4, 8), torch.zeros(8, 4), alpha=4.0)
    broken = LoraAdapter(torch.randn(4, 8), torch.full((8, 4), float("nan")), alpha=4.0)
    one, two = adapter(4, 9, 9), adapter(2, 9, 9, seed=1)
    mean = (slow(one) + slow(two)) / 2
    assert effective_rank([one, fresh, broken, two]) == pytest.approx(mean, rel=1e-4)
    assert effective_rank([fresh]) is None and effective_rank([]) is None


def test_weights_and_gradients_stay_as_they_are():
    one = adapter(4, 9, 9, dtype=torch.bfloat16)
    before = [p.detach().clone() for p in one.parameters()]
    assert effective_rank([one]) == pytest.approx(slow(one), rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, one.parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in one.parameters())


def test_an_expert_that_changes_nothing_yet_has_none(toys):
    trainers = toys.trainers(toys.plan())
    assert effective_ranks(trainers) == {}
    with torch.no_grad():
        for one in trainers["low_noise"].adapters.values():
            one.up.copy_(torch.randn(one.up.shape, generator=torch.Generator().manual_seed(1)))
    assert effective_ranks(trainers).keys() == {"low_noise"}


def test_the_events_have_one_for_each_checkpoint_that_counts(replays):
    def saved(step, **ranks):
        return CheckpointSaved(step=step, files={}, effective_rank=ranks)

    events = [
        saved(100, high_noise=5.0, low_noise=9.0),
        saved(200, high_noise=6.0),
        saved(300, high_noise=7.0),
        StateChanged(state="queued", step=200),
        saved(250, high_noise=6.5),
    ]
    lines = replays.lines(events)
    del lines[0]["effective_rank"]  # as an earlier version wrote it
    assert ranks_of(lines) == {"high_noise": [(200, 6.0), (250, 6.5)]}
    assert ranks_of(replays.lines(events))["low_noise"] == [(100, 9.0)]


def test_the_picture_has_it_dotted_at_the_right_of_the_weights(monkeypatch):
    kept = []
    monkeypatch.setattr(plots, "_rendered", kept.append)
    ranks = {"high_noise": [(100, 5.0), (200, 6.0)]}
    plots.monitor_plot(
        Measured(weights={"high_noise": [(1, 0.1)]}, ranks=ranks), title="", steps=200
    )
    plots.monitor_plot(Measured(weights={"high_noise": [(1, 0.1)]}), title="", steps=200)
    with_ranks, without = (figure.axes for figure in kept)
    (right,) = [axes for axes in with_ranks if "effective rank" in axes.get_ylabel()]
    assert right.lines[0].get_xydata().tolist() == [[100, 5.0], [200, 6.0]]
    assert right.bbox.bounds == with_ranks[0].bbox.bounds and len(with_ranks) == len(without) + 1
