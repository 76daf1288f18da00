"""From a dataset and a preset to a plan: steps, epochs, exposures, and each expert's share of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..wan.families import AUTO, BOUNDARIES, Role
from .dataset import Dataset
from .plan import TrainingPlan
from .presets import PRESETS, Preset
from .schedule import expert_steps


def make_plan(
    dataset: Dataset, preset_name: str, family: str = AUTO, *, seed: int = 0
) -> TrainingPlan:
    """The preset's plan for this dataset. `auto` plans for Wan 2.2 A14B image-to-video."""
    preset = PRESETS[preset_name]
    num_clips = len(dataset.clips)
    steps = plan_steps(preset_name, num_clips)
    return TrainingPlan(
        preset=preset_name,
        family=family,
        boundary=BOUNDARIES["i2v"],
        steps=steps,
        batch=min(preset.batch, num_clips),
        accumulate=preset.accumulate,
        # Short runs swap often, so that both experts get their share from the start.
        swap_every=max(1, min(10, steps // 20)),
        save_every=_save_every(preset, steps, num_clips),
        seed=seed,
        lora=preset.lora,
        optimizer=preset.optimizer,
        high=preset.high,
        low=preset.low,
        notes=(preset.evidence,),
    )


def plan_steps(preset_name: str, num_clips: int) -> int:
    """Optimizer steps over both experts."""
    preset = PRESETS[preset_name]
    if preset_name == "image style":
        return max(500, min(3500, 40 * num_clips))
    if preset.steps is not None:
        return preset.steps
    return steps_for_epochs(preset.epochs or 1, num_clips, preset.batch, preset.accumulate)


def steps_for_epochs(epochs: int, num_clips: int, batch: int, accumulate: int) -> int:
    """16 clips x 20 epochs at batch 1, accumulate 2: 320 iterations, 160 steps."""
    iterations = math.ceil(epochs * num_clips / batch)
    return max(1, math.ceil(iterations / accumulate))


def _save_every(preset: Preset, steps: int, num_clips: int) -> int:
    if preset.save_every_epochs:
        return steps_for_epochs(
            preset.save_every_epochs, num_clips, preset.batch, preset.accumulate
        )
    if preset.save_every:
        return preset.save_every
    return 100 if steps < 1000 else 250 if steps < 2000 else 500


@dataclass(frozen=True, kw_only=True)
class ExpertBudget:
    """One expert's part of a run."""

    role: Role
    steps: int
    exposures: float
    """How often each clip is shown to this expert."""


def expert_budgets(plan: TrainingPlan, num_clips: int) -> list[ExpertBudget]:
    """Counted from the very order in which the loop will take the experts."""
    samples = plan.batch * plan.accumulate
    return [
        ExpertBudget(role=role, steps=steps, exposures=steps * samples / max(1, num_clips))
        for role, steps in expert_steps(plan).items()
    ]


def plan_summary(plan: TrainingPlan, num_clips: int) -> str:
    """What will happen, in a few lines."""
    iterations = plan.steps * plan.accumulate
    epochs = iterations * plan.batch / max(1, num_clips)
    lines = [
        f"{plan.preset} for {num_clips} clips: {plan.steps} steps "
        f"({iterations} iterations at batch {plan.batch}, accumulate {plan.accumulate}; {epochs:.1f} epochs)",
        *(
            f"  {b.role}: {b.steps} steps ({b.steps / plan.steps:.1%}), each clip shown {b.exposures:.1f} times, "
            f"rate {plan.rates(b.role).rate:g}"
            for b in expert_budgets(plan, num_clips)
        ),
        f"rank {plan.lora.rank}, alpha {plan.lora.alpha:g}, {plan.optimizer.name}, shift {plan.shift:g}, "
        f"boundary {plan.boundary:g}; a checkpoint every {plan.save_every} steps",
        *plan.notes,
        *plan_warnings(plan, num_clips),
    ]
    return "\n".join(lines)


def plan_warnings(plan: TrainingPlan, num_clips: int) -> list[str]:
    """What a person should know before the run starts."""
    warnings = []
    per_clip = plan.steps / max(1, num_clips)
    epochs = plan.steps * plan.accumulate * plan.batch / max(1, num_clips)
    if plan.preset == "image style":
        if not 30 <= per_clip <= 60 and plan.steps != plan_steps(plan.preset, num_clips):
            warnings.append(
                f"Warning: {per_clip:.1f} steps per image; 30-60 is the range, 40 the aim."
            )
        if num_clips > 60:
            warnings.append(f"Warning: {num_clips} images may dilute the style; curate to 30-50.")
    elif plan.preset != "length extension" and epochs > 50 and plan.preset == "video effect":
        warnings.append(
            f"Warning: {epochs:.0f} epochs is {epochs / 20:.1f} times the optimum of 20."
        )
    if num_clips < 8:
        warnings.append(
            f"Warning: {num_clips} clips are few; 8-15 work if very alike, 10-20 are better."
        )
    return warnings
