"""Euler steps by two experts: straight lines are followed exactly, each expert on its own side."""

import pytest
import torch
from tandem_wan.wan.miniature.sampling import sample, schedule

X0 = torch.full((2, 16, 1, 2, 2), 0.7)


def straight(x_t, sigma, context, condition):
    """The velocity of the line through `x_t` that ends at X0."""
    return (x_t - X0) / sigma.view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_a_straight_line_ends_where_it_points(steps):
    noise = torch.randn(X0.shape, generator=torch.Generator().manual_seed(0))
    found = sample((straight, straight), noise, X0, None, boundary=0.9, sigmas=schedule(steps, 5.0))
    assert torch.allclose(found, X0, atol=1e-4)


def test_each_expert_takes_its_own_side_of_the_boundary():
    seen = {"high": [], "low": []}

    def expert(name):
        def network(x_t, sigma, context, condition):
            seen[name].append(sigma[0].item())
            return torch.zeros_like(x_t)

        return network

    sigmas = schedule(16, 5.0)
    sample((expert("high"), expert("low")), X0, X0, None, boundary=0.9, sigmas=sigmas)
    assert min(seen["high"]) >= 0.9 > max(seen["low"])
    assert seen["high"] + seen["low"] == sigmas[:-1].tolist()
    # 36 % of a schedule of shift 5 lies above 0.9.
    assert len(seen["high"]) == 6


def test_the_schedule_falls_from_noise_to_clean():
    sigmas = schedule(8, 5.0)
    assert sigmas[0] == 1 and sigmas[-1] == 0
    assert (sigmas[1:] < sigmas[:-1]).all()
    assert sigmas[4].item() == pytest.approx(5 / 6)
