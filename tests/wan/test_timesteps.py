"""Noise levels never leave their expert's range and are spread as the whole schedule spreads them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.flow import unwarp
from tandem_wan.wan.timesteps import draw_sigmas, sigma_quantiles

SHIFTS = [1.0, 3.0, 5.0, 8.0, 12.0]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole_schedule_cdf(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """P(s u / (1 + (s - 1) u) <= sigma) for uniform u."""
    return sigma / (shift - (shift - 1) * sigma)


def kolmogorov_smirnov(draws: torch.Tensor, low: float, high: float, shift: float) -> float:
    """Largest distance between the draws' distribution and the schedule's, cut to [low, high]."""
    ordered = draws.double().sort().values
    ends = whole_schedule_cdf(torch.tensor([low, high], dtype=torch.float64), shift)
    expected = (whole_schedule_cdf(ordered, shift) - ends[0]) / (ends[1] - ends[0])
    count = len(ordered)
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    return max((steps[1:] - expected).abs().max(), (steps[:-1] - expected).abs().max()).item()


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("boundary", [0.9, 0.875])
def test_none_of_a_million_draws_leaves_either_experts_range(boundary, shift):
    for role, within in (
        ("high_noise", lambda s: (s >= boundary) & (s <= 1.0)),
        ("low_noise", lambda s: (s >= 0.0) & (s < boundary)),
    ):
        drawn = draw_sigmas(
            sigma_range(role, boundary), 1_000_000, shift=shift, generator=generator(1)
        )
        assert drawn.dtype == torch.float32
        # In float64, where 0.9 is not what it is in float32.
        assert within(drawn.double()).all(), role


@given(boundary=st.floats(0.01, 0.99), shift=st.floats(0.5, 20.0), seed=st.integers(0, 2**31))
def test_no_boundary_and_no_shift_lets_a_draw_out(boundary, shift, seed):
    high = draw_sigmas(
        sigma_range("high_noise", boundary), 64, shift=shift, generator=generator(seed)
    ).double()
    low = draw_sigmas(
        sigma_range("low_noise", boundary), 64, shift=shift, generator=generator(seed)
    ).double()
    assert boundary <= high.min() and high.max() <= 1.0
    assert low.min() >= 0.0 and low.max() < boundary


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("role", ["high_noise", "low_noise", "single"])
def test_a_run_of_small_draws_has_the_distribution_of_the_cut_schedule(role, shift):
    within, chances = sigma_range(role, 0.9), generator(2)
    draws = torch.cat(
        [draw_sigmas(within, 50, shift=shift, generator=chances) for _ in range(2000)]
    )
    assert kolmogorov_smirnov(draws, *within, shift) <= 0.005


def test_the_distance_to_another_shift_would_be_seen():
    within = sigma_range("low_noise", 0.9)
    draws = draw_sigmas(within, 100_000, shift=5.0, generator=generator(3))
    assert kolmogorov_smirnov(draws, *within, 3.0) > 0.05


def test_each_of_count_equal_parts_gets_one_draw_in_random_order():
    within = sigma_range("high_noise", 0.9)
    drawn = draw_sigmas(within, 16, shift=5.0, generator=generator(4)).double()
    start = whole_schedule_cdf(torch.tensor(0.9, dtype=torch.float64), 5.0)
    part = ((whole_schedule_cdf(drawn, 5.0) - start) / (1 - start) * 16).floor().long()
    assert sorted(part.tolist()) == list(range(16))
    assert part.tolist() != list(range(16))


def test_the_same_generator_state_gives_the_same_sigmas():
    within = sigma_range("low_noise", 0.9)
    first, again, other = (
        draw_sigmas(within, 16, shift=5.0, generator=generator(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def cut_normal_cdf(at: torch.Tensor, below: float, above: float) -> torch.Tensor:
    """P(n <= at) of a normal n cut to [below, above], by adding up exp(-n^2 / 2), however far out that lies."""
    nearest = min(max(0.0, below), above)
    # Nothing that counts is further from the most likely place than this.
    reach = 12.0 / max(1.0, abs(nearest))
    first, last = max(below, nearest - reach), min(above, nearest + reach)
    n = torch.linspace(first, last, 100_001, dtype=torch.float64)
    density = torch.exp((nearest**2 - n.square()) / 2)
    total = torch.cat([torch.zeros(1), ((density[1:] + density[:-1]) / 2).cumsum(0)])
    places = ((at - first) / (last - first) * (len(n) - 1)).round().long().clamp(0, len(n) - 1)
    return total[places] / total[-1]


@pytest.mark.parametrize("shift", [1.0, 5.0, 12.0])
@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1.0), (-1.0, 0.1), (-3.0, 0.1), (3.0, 0.1), (-3.0, 0.3), (3.0, 2.0)]
)
@pytest.mark.parametrize("role", ["high_noise", "low_noise", "single"])
def test_the_cut_logit_normal_is_right_however_far_out_an_experts_range_lies(
    role, mean, std, shift
):
    within = sigma_range(role, 0.9)
    shares = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    drawn = sigma_quantiles(
        within, shares, shift=shift, distribution="logit-normal", mean=mean, std=std
    )
    ends = torch.tensor([unwarp(end, shift) for end in within], dtype=torch.float64)
    below, above = ((torch.logit(ends) - mean) / std).tolist()
    normal = (torch.logit(unwarp(drawn.double(), shift)) - mean) / std
    found = cut_normal_cdf(normal, below, above)
    # What float32 takes for 1 is the one end of the range.
    inside = (drawn > 0) & (drawn < 1)
    assert inside.double().mean() > 0.9
    assert (found - shares)[inside].abs().max() < 0.005
