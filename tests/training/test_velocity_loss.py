"""Loss weights against their formulas, and what a weighting leaves alone."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import LossSettings, TimestepSettings
from tandem_wan.training.velocity_loss import VelocityLoss
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.flow import mix, velocity_target
from tandem_wan.wan.loss_weights import WEIGHTINGS, loss_weight
from tandem_wan.wan.timesteps import draw_sigmas

PLAN = TrainingPlan(family="wan 2.2 A14B")
LEVELS = torch.linspace(0, 1, 101, dtype=torch.float64)


def slow_weight(weighting: str, sigma: float, gamma: float) -> float:
    snr = math.inf if sigma == 0 else ((1 - sigma) / sigma) ** 2
    clamped = 0.0 if sigma == 0 else min(snr, gamma) / (snr + 1)
    return {
        "none": 1.0,
        "x0": sigma * sigma,
        "cosmap": 2 / (math.pi * (1 - 2 * sigma + 2 * sigma * sigma)),
        "clamped snr": clamped,
    }[weighting]


@pytest.mark.parametrize("gamma", [0.5, 5.0])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_are_their_formulas(weighting, gamma):
    ours = loss_weight(weighting, LEVELS, gamma=gamma)
    expected = [slow_weight(weighting, sigma, gamma) for sigma in LEVELS.tolist()]
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


def test_the_x0_weight_makes_it_the_error_of_x0():
    generator = torch.Generator().manual_seed(1)
    x0, noise, wrong = torch.randn(3, 4, 2, 3, 3, 3, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    velocity = velocity_target(x0, noise) + wrong
    level = sigma.view(-1, 1, 1, 1, 1)
    x0_found = mix(x0, noise, sigma) - level * velocity
    by_velocity = (wrong**2).flatten(1).mean(1) * loss_weight("x0", sigma)
    torch.testing.assert_close(((x0_found - x0) ** 2).flatten(1).mean(1), by_velocity)


@pytest.mark.parametrize("role", ["high_noise", "low_noise"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("drawn", ["uniform", "logit-normal"])
def test_a_weighting_is_one_on_average_over_what_the_expert_draws(weighting, role, drawn):
    timesteps = TimestepSettings(distribution=drawn, mean=0.3, std=0.8)
    plan = replace(PLAN, loss=LossSettings(weighting=weighting), timesteps=timesteps)
    loss = VelocityLoss(plan, role)
    sigma = draw_sigmas(
        sigma_range(role, 0.9),
        20_000,
        shift=plan.shift,
        generator=torch.Generator().manual_seed(0),
        **asdict(timesteps),
    )
    ones, zeros = torch.ones(len(sigma), 2), torch.zeros(len(sigma), 2)
    assert loss(ones, zeros, sigma).item() == pytest.approx(1.0, rel=1e-3)


def test_without_a_weighting_the_loss_is_the_mean_squared_error_to_the_bit():
    a, b = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    loss = VelocityLoss(PLAN, "low_noise")(a, b, torch.tensor([0.1, 0.5, 0.8]))
    assert loss.item() == torch.nn.functional.mse_loss(a, b).item()


def test_a_weighting_tilts_towards_its_noise_levels():
    plan = replace(PLAN, loss=LossSettings(weighting="x0"))
    errors = torch.tensor([[1.0], [0.0]]), torch.zeros(2, 1)
    at_high = VelocityLoss(plan, "low_noise")(*errors, torch.tensor([0.8, 0.2]))
    at_low = VelocityLoss(plan, "low_noise")(*errors, torch.tensor([0.2, 0.8]))
    assert at_high.item() == pytest.approx(16 * at_low.item())
