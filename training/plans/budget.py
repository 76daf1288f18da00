"""From a dataset and a preset to a plan: steps, epochs, exposures, and each expert's share of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...wan.errors import UserError
from ...wan.families import AUTO, BOUNDARIES, Role
from ..data.dataset import Counts, Dataset
from ..expert_turns import expert_steps
from .plan import TrainingPlan
from .presets import IMAGE_STYLE, PRESETS, Preset

STEPS_PER_IMAGE, LEAST_STEPS, MOST_STEPS = 40, 500, 3500
"""Of an image style."""
LOOK_EVERY = 500
"""Steps between the checkpoints that a person looks at."""
SHORTEST_TURNS = 20
"""Turns of the experts that even the shortest run has."""


def make_plan(
    dataset: Dataset,
    preset_name: str,
    family: str = AUTO,
    *,
    seed: int = 0,
    epochs: float = 0,
    steps: int = 0,
    allow_long: bool = False,
) -> TrainingPlan:
    """The preset's plan for this dataset. `auto` plans for Wan 2.2 A14B image-to-video; `epochs` or `steps` above 0
    goes before the preset's budget."""
    counts, preset = dataset.counts(), PRESETS[preset_name]
    asked = _asked_steps(epochs, steps, counts, preset)
    plan = plan_for(counts, preset_name, steps=asked)
    return replace(plan, family=family, seed=seed, allow_long=allow_long)


def plan_for(counts: Counts, preset_name: str, *, steps: int = 0) -> TrainingPlan:
    """The preset's plan for so many clips; `steps` above 0 goes before the preset's budget."""
    preset = PRESETS[preset_name]
    num_steps = steps or plan_steps(preset_name, counts)
    return TrainingPlan(
        preset=preset_name,
        boundary=BOUNDARIES["i2v"],
        steps=num_steps,
        batch=max(1, min(preset.batch, math.ceil(counts.shown))),
        accumulate=preset.accumulate,
        # Short runs swap often, so that both experts get their share from the start.
        swap_every=max(1, min(10, num_steps // SHORTEST_TURNS)),
        save_every=min(num_steps, _save_every(preset, num_steps, counts)),
        lora=preset.lora,
        optimizer=preset.optimizer,
        high=preset.high,
        low=preset.low,
        notes=(preset.evidence,),
    )


def plan_steps(preset_name: str, counts: Counts) -> int:
    """Optimizer steps over both experts. Steps per image are counted by images: repeats do not multiply them."""
    preset = PRESETS[preset_name]
    if preset_name == IMAGE_STYLE:
        return max(LEAST_STEPS, min(MOST_STEPS, STEPS_PER_IMAGE * counts.clips))
    if preset.steps is not None:
        return preset.steps
    return steps_for_epochs(preset.epochs or 1, counts.shown, preset.batch, preset.accumulate)


def steps_for_epochs(epochs: float, shown: float, batch: int, accumulate: int) -> int:
    """16 clips x 20 epochs at batch 1, accumulate 2: 320 iterations, 160 steps. `shown` are an epoch's samples."""
    # Repeats such as 0.1 are not exact in binary: the last of ten must not cost a step.
    iterations = math.ceil(round(epochs * shown / batch, 6))
    return max(1, math.ceil(iterations / accumulate))


def samples_of(plan: TrainingPlan) -> int:
    """Clips that the whole run shows, counted with their repetitions, over both experts."""
    return plan.steps * plan.accumulate * plan.batch


def epochs_of(plan: TrainingPlan, counts: Counts) -> float:
    """How often the run goes through the dataset."""
    return samples_of(plan) / counts.shown if counts.shown else 0.0


def exposures_per_clip(plan: TrainingPlan, counts: Counts) -> float:
    """How often a clip that teaches is shown in the whole run, on average: its repeats in every epoch."""
    return epochs_of(plan, counts) * repeats_per_clip(counts)


def repeats_per_clip(counts: Counts) -> float:
    """How often a clip that teaches is shown in an epoch, on average; 1 where none teaches."""
    return (counts.shown - counts.regularisation) / counts.clips if counts.clips else 1.0


@dataclass(frozen=True, kw_only=True)
class ExpertBudget:
    """One expert's part of a run."""

    role: Role
    steps: int
    epochs: float
    """How often this expert goes through the dataset."""
    exposures: float
    """How often each clip that teaches is shown to this expert."""


def expert_budgets(plan: TrainingPlan, counts: Counts) -> list[ExpertBudget]:
    """Counted from the very order in which the loop will take the experts."""
    epochs, exposures = epochs_of(plan, counts), exposures_per_clip(plan, counts)
    return [
        ExpertBudget(
            role=role,
            steps=steps,
            epochs=epochs * steps / plan.steps,
            exposures=exposures * steps / plan.steps,
        )
        for role, steps in steps_by_expert(plan).items()
    ]


def steps_by_expert(plan: TrainingPlan) -> dict[Role, int]:
    """Optimizer steps of each expert."""
    return expert_steps(plan)


def require_one_length(epochs: float, steps: int) -> None:
    """A run's length is asked for in epochs or in steps, or, with 0 for both, left as it is."""
    if epochs > 0 and steps > 0:
        raise UserError(
            f"epochs is {epochs:g} and steps is {steps}.",
            "One of them sets the length of the run; 0 leaves it as it is.",
            "Set one of them to 0.",
        )


def _asked_steps(epochs: float, steps: int, counts: Counts, preset: Preset) -> int:
    require_one_length(epochs, steps)
    if epochs > 0:
        return steps_for_epochs(epochs, counts.shown, preset.batch, preset.accumulate)
    return max(0, steps)


def _save_every(preset: Preset, steps: int, counts: Counts) -> int:
    if preset.save_every_epochs:
        return steps_for_epochs(
            preset.save_every_epochs, counts.shown, preset.batch, preset.accumulate
        )
    return preset.save_every or image_save_every(steps)


def image_save_every(steps: int) -> int:
    """Steps between checkpoints of an image style."""
    return 100 if steps < 1000 else 250 if steps < 2000 else 500


def looks(plan: TrainingPlan) -> list[int]:
    """Steps whose checkpoints are worth a look: every 500, and the last."""
    return [*range(LOOK_EVERY, plan.steps, LOOK_EVERY), plan.steps]
