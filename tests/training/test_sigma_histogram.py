"""The histogram counts what the run has drawn, and its line is what the plan draws on average."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.training.plans.settings import TimestepSettings
from tandem_wan.training.schedule import sigmas_at
from tandem_wan.training.sigma_histogram import BINS, sigma_histogram
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.flow import unwarp

DRAWN = ["uniform", "logit-normal", "sigmoid"]


@pytest.mark.parametrize("distribution", DRAWN)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_sigma_that_was_drawn_is_counted_in_its_place(toys, distribution, batch):
    timesteps = TimestepSettings(distribution=distribution, mean=0.4, std=1.3)
    plan = toys.plan(batch=batch, timesteps=timesteps)
    for role in plan.roles():
        edges = sigma_histogram(plan, role, 1).edges
        slow = [0] * BINS
        for index in range(70):
            for sigma in sigmas_at(plan, role, index, plan.batch).tolist():
                slow[sum(edge <= sigma for edge in edges[1:-1])] += 1
        assert list(sigma_histogram(plan, role, 70).counts) == slow


def test_a_run_that_goes_on_adds_to_what_it_had(toys):
    plan = toys.plan()
    before, after = (sigma_histogram(plan, "low_noise", count) for count in (40, 90))
    assert all(a <= b for a, b in zip(before.counts, after.counts, strict=True))
    assert (sum(before.counts), sum(after.counts)) == (40, 90)
    none = sigma_histogram(plan, "low_noise", 0)
    assert sum(none.counts) == sum(none.expected) == 0


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("role", ["high_noise", "low_noise", "single"])
def test_the_line_of_a_uniform_schedule_is_the_share_of_each_part_before_the_warp(
    toys, role, shift
):
    plan = toys.plan(shift=shift)
    histogram = sigma_histogram(plan, role, 200)
    within = sigma_range(role, plan.boundary)
    assert histogram.edges[0] == within.low and histogram.edges[-1] == within.high
    places = [unwarp(edge, shift) for edge in histogram.edges]
    whole = places[-1] - places[0]
    for part in range(BINS):
        share = (places[part + 1] - places[part]) / whole
        assert histogram.expected[part] == pytest.approx(200 * share, abs=200 * 2e-4)


@pytest.mark.parametrize("distribution", DRAWN[1:])
def test_the_line_of_a_normal_schedule_is_what_many_free_draws_give(toys, distribution):
    """Against rejection: draw from the whole schedule, keep what falls into the expert's range."""
    mean, std, shift = 0.3, 0.9, 3.0
    timesteps = TimestepSettings(distribution=distribution, mean=mean, std=std)
    plan = toys.plan(shift=shift, timesteps=timesteps)
    centre = mean if distribution == "logit-normal" else 0.0
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(2_000_000, dtype=torch.float64, generator=generator)
    u = torch.sigmoid(centre + std * normal)
    sigma = shift * u / (1 + (shift - 1) * u)
    for role in plan.roles():
        histogram = sigma_histogram(plan, role, 1000)
        low, high = histogram.edges[0], histogram.edges[-1]
        kept = sigma[(sigma >= low) & (sigma < high)]
        found = torch.histc(kept, BINS, low, high) / len(kept) * 1000
        torch.testing.assert_close(
            torch.tensor(histogram.expected, dtype=torch.float64), found, rtol=0.05, atol=0.6
        )


def test_counts_are_near_the_line_because_draws_are_stratified(toys):
    plan = toys.plan(shift=5.0)
    histogram = sigma_histogram(plan, "low_noise", 1600)
    for count, expected in zip(histogram.counts, histogram.expected, strict=True):
        # Independent draws would stray by their square root; of each sixteen, one lies in each sixteenth.
        assert abs(count - expected) < 2.5 * expected**0.5
