"""Which expert takes which step, and which clip, noise and sigma each micro-batch sees.

Everything here is a pure function of the plan and a counter: a resumed run needs no random state.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch

from ..wan.families import Role, sigma_range
from ..wan.flow import share_above
from ..wan.timesteps import draw_sigmas
from .plan import TrainingPlan

STRATA = 16
"""Micro-batches over which an expert's sigmas cover its range evenly."""


def role_at(plan: TrainingPlan, step: int) -> Role:
    """The expert of an optimizer step (from 0). Turns of `swap_every` steps; the high expert begins
    and its share of the turns follows from boundary and shift."""
    roles = plan.roles()
    if len(roles) == 1:
        return roles[0]
    turn, share = step // plan.swap_every, share_above(plan.boundary, plan.shift)
    # Whole turns of the high expert up to here; the offset lets it begin and keeps short runs near the share.
    first, after = (math.floor(n * share + 1 - share / 2) for n in (turn, turn + 1))
    return "high_noise" if after > first else "low_noise"


def expert_steps(plan: TrainingPlan) -> dict[Role, int]:
    """Optimizer steps that each expert gets."""
    counts: dict[Role, int] = dict.fromkeys(plan.roles(), 0)
    for step in range(plan.steps):
        counts[role_at(plan, step)] += 1
    return counts


def steps_before(plan: TrainingPlan, step: int) -> dict[Role, int]:
    """How many of the first `step` steps each expert took."""
    counts: dict[Role, int] = dict.fromkeys(plan.roles(), 0)
    for earlier in range(step):
        counts[role_at(plan, earlier)] += 1
    return counts


def generator_for(seed: int, *words: object) -> torch.Generator:
    """Random numbers that depend on their name alone, not on what was drawn before."""
    digest = hashlib.sha256("/".join(map(str, (seed, *words))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def batch_indices(
    shapes: Sequence[tuple[int, ...]], batch: int, index: int, *, seed: int, role: Role
) -> list[int]:
    """The clips of an expert's micro-batch `index`: every clip once an epoch, only equal shapes together."""
    per_epoch = _batches(shapes, batch, generator_for(seed, role, "order", 0))
    epoch, position = divmod(index, len(per_epoch))
    return _batches(shapes, batch, generator_for(seed, role, "order", epoch))[position]


def _batches(
    shapes: Sequence[tuple[int, ...]], batch: int, generator: torch.Generator
) -> list[list[int]]:
    order = torch.randperm(len(shapes), generator=generator).tolist()
    buckets: dict[tuple[int, ...], list[int]] = {}
    for clip in order:
        buckets.setdefault(shapes[clip], []).append(clip)
    groups = [
        clips[i : i + batch] for clips in buckets.values() for i in range(0, len(clips), batch)
    ]
    shuffled = torch.randperm(len(groups), generator=generator).tolist()
    return [groups[i] for i in shuffled]


def sigmas_at(plan: TrainingPlan, role: Role, index: int, count: int) -> torch.Tensor:
    """(count,) sigmas of an expert's micro-batch `index`, within its range."""
    first = index * count
    drawn = [_sigma(plan, role, first + i) for i in range(count)]
    return torch.stack(drawn)


def _sigma(plan: TrainingPlan, role: Role, position: int) -> torch.Tensor:
    group, within = divmod(position, STRATA)
    generator = generator_for(plan.seed, role, "sigma", group)
    return draw_sigmas(
        sigma_range(role, plan.boundary), STRATA, shift=plan.shift, generator=generator
    )[within]
