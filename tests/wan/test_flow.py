"""The straight line between data and noise, and the schedule's warp."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.flow import mix, share_above, unwarp, velocity_target, warp

unit = st.floats(0.0, 1.0)
shifts = st.floats(0.2, 20.0)


@pytest.mark.parametrize(
    ("boundary", "shift", "percent"),
    [
        (0.9, 1, 10.0),
        (0.9, 3, 25.0),
        (0.9, 5, 35.7),
        (0.9, 8, 47.1),
        (0.875, 1, 12.5),
        (0.875, 3, 30.0),
        (0.875, 5, 41.7),
        (0.875, 8, 53.3),
        (0.875, 12, 63.2),
    ],
)
def test_the_high_experts_share_is_the_published_one(boundary, shift, percent):
    assert 100 * share_above(boundary, shift) == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("boundary", [0.9, 0.875])
def test_the_share_is_what_counting_a_long_schedule_gives(boundary, shift):
    steps = 20_000
    above = sum(warp((i + 0.5) / steps, shift) >= boundary for i in range(steps))
    assert share_above(boundary, shift) == pytest.approx(above / steps, abs=1 / steps)


@given(unit, shifts)
def test_unwarp_undoes_warp(u, shift):
    assert unwarp(warp(u, shift), shift) == pytest.approx(u, abs=1e-12)


@given(unit, shifts)
def test_warp_undoes_unwarp(sigma, shift):
    assert warp(unwarp(sigma, shift), shift) == pytest.approx(sigma, abs=1e-12)


@given(unit, unit, shifts)
def test_warp_keeps_order_and_ends(u, v, shift):
    low, high = sorted((u, v))
    assert 0.0 <= warp(low, shift) <= warp(high, shift) + 1e-15 <= 1.0 + 2e-15
    assert warp(0.0, shift) == 0.0
    assert warp(1.0, shift) == pytest.approx(1.0, abs=1e-15)


def test_a_shift_above_1_moves_the_schedule_towards_noise():
    assert warp(0.5, 5.0) == pytest.approx(5 / 6)
    assert warp(0.5, 1.0) == 0.5


def test_sigma_0_is_the_clip_and_sigma_1_is_the_noise():
    x0, noise = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    assert torch.equal(mix(x0, noise, torch.zeros(2)), x0)
    assert torch.equal(mix(x0, noise, torch.ones(2)), noise)


def test_each_clip_of_a_batch_is_mixed_by_its_own_sigma():
    x0, noise = torch.randn(3, 4, 3, 2, 2), torch.randn(3, 4, 3, 2, 2)
    sigma = [0.1, 0.5, 0.95]
    mixed = mix(x0, noise, torch.tensor(sigma))
    for index, s in enumerate(sigma):
        torch.testing.assert_close(mixed[index], (1 - s) * x0[index] + s * noise[index])


@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_the_true_velocity_leads_back_to_the_clip(sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 1, 4, 3, 2, 2, generator=generator, dtype=torch.float64)
    sigma_b = torch.tensor([sigma], dtype=torch.float64)
    x_t = mix(x0, noise, sigma_b)
    torch.testing.assert_close(x_t - sigma * velocity_target(x0, noise), x0, rtol=0, atol=1e-12)


def test_the_velocity_is_the_slope_of_the_path():
    x0, noise = torch.randn(2, 1, 4, 3, 2, 2, dtype=torch.float64)
    ahead, behind = (mix(x0, noise, torch.tensor([s], dtype=torch.float64)) for s in (0.6, 0.4))
    torch.testing.assert_close((ahead - behind) / 0.2, velocity_target(x0, noise))
