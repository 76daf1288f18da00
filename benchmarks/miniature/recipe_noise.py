"""What automagic's rates do on gradients that are noise alone: then nothing but the plan's bounds decides them."""

from __future__ import annotations

import torch
from torch import nn

from ...training.data.dataset import Counts
from ...training.expert_turns import expert_steps
from ...training.optimizers.automagic import Automagic
from ...training.plans.budget import plan_for
from ...training.plans.presets import PRESETS
from ...training.plans.settings import ExpertSettings
from .recipe_runs import CLIPS

SIDE = 64
"""Of the square matrix whose rates are averaged."""


def mean_rate_on_noise(rates: ExpertSettings, steps: int, *, side: int = SIDE) -> float:
    """Mean rate after so many steps whose gradients are independent normal numbers."""
    assert rates.bump is not None and rates.minimum is not None and rates.maximum is not None
    weight = nn.Parameter(torch.zeros(side, side))
    optimizer = Automagic(
        [weight],
        rate=rates.rate,
        bump=rates.bump,
        minimum=rates.minimum,
        maximum=rates.maximum,
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        weight.grad = torch.randn(side, side, generator=generator)
        optimizer.step()
    return optimizer.mean_rate()


def rate_ratio_on_noise(preset: str) -> float:
    """High over low at the end of the preset's own steps, with its own rates."""
    plan = plan_for(Counts(CLIPS, float(CLIPS), 0.0), preset)
    steps = expert_steps(plan)
    high = mean_rate_on_noise(PRESETS[preset].high, steps["high_noise"])
    return high / mean_rate_on_noise(PRESETS[preset].low, steps["low_noise"])
