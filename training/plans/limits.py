"""What is unusual, unwise or refused in a plan for a dataset of a given size: said before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...wan.errors import UserError
from ..data.dataset import Counts, Dataset
from .budget import (
    epochs_of,
    exposures_per_clip,
    plan_steps,
    repeats_per_clip,
    steps_for_epochs,
)
from .plan import TrainingPlan
from .presets import EFFECT, IMAGE_STYLE, MOTION
from .setting_limits import PlanFinding, outside, setting_findings

__all__ = [
    "PlanFinding",
    "dataset_findings",
    "findings_text",
    "plan_findings",
    "require_allowed",
]

GOOD_EPOCHS, OPTIMUM_EPOCHS, MOST_EPOCHS = (15, 25), 20, 50
"""Of a video effect; above the last a run is refused."""
PER_IMAGE = (30, 60)
"""Steps per image of an image style."""
MANY_IMAGES = 60
FEW_CLIPS = 8
# Received: general video and character; motion's best was seen at 1,800 to 2,400.
STEPS: dict[str, tuple[int, int]] = {
    "general video": (2000, 4000),
    "character": (500, 800),
    "motion 4x": (1800, 2400),
    "motion 3x": (1800, 2400),
}
CHARACTER_CLIPS = (10, 20)
WORDS = {"refusal": "Refused", "warning": "Warning", "note": "Note"}
"""How each level is told, the gravest first."""
ORDER = tuple(WORDS)

Check = Callable[[TrainingPlan, Counts], Iterator[PlanFinding]]


def plan_findings(plan: TrainingPlan, counts: Counts) -> tuple[PlanFinding, ...]:
    """Everything to know about this plan on so many clips, the gravest first. Of what it finds only refusals stop
    a run; a preset's own plan has none, and warnings only about the dataset."""
    found = [finding for check in _CHECKS for finding in check(plan, counts)]
    return tuple(sorted(found, key=lambda finding: ORDER.index(finding.level)))


def dataset_findings(plan: TrainingPlan, dataset: Dataset) -> tuple[PlanFinding, ...]:
    """The same, with what only the clips themselves can tell."""
    found = [*plan_findings(plan, dataset.counts()), *_pictures_only(plan, dataset)]
    return tuple(sorted(found, key=lambda finding: ORDER.index(finding.level)))


def require_allowed(plan: TrainingPlan, counts: Counts) -> None:
    """Raises `UserError` for the first refusal."""
    for finding in plan_findings(plan, counts):
        if finding.level == "refusal":
            came, _, can_be = finding.text.partition(". ")
            raise UserError(f"{came}.", can_be, finding.fix)


def findings_text(findings: tuple[PlanFinding, ...]) -> list[str]:
    """A line for each: level, what is, what to do."""
    return [f"{WORDS[found.level]}: {found.text} {found.fix}" for found in findings]


def _too_long(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    if plan.preset != EFFECT or not counts.shown:
        return
    most, best = (
        steps_for_epochs(epochs, counts.shown, plan.batch, plan.accumulate)
        for epochs in (MOST_EPOCHS, OPTIMUM_EPOCHS)
    )
    epochs = epochs_of(plan, counts)
    if plan.steps <= most:
        return
    text = (
        f"{_number(epochs)} epochs is {_number(epochs / OPTIMUM_EPOCHS)} times the optimum of {OPTIMUM_EPOCHS}. For a "
        f"video effect {GOOD_EPOCHS[0]} to {GOOD_EPOCHS[1]} are good, and more than {MOST_EPOCHS} are refused."
    )
    if plan.allow_long:
        fix = f"It runs because allow_long is set; use {best} steps, or keep the early checkpoints."
        yield PlanFinding("warning", text, fix)
    else:
        fix = f"Use {best} steps; set allow_long on the plan to train so long all the same."
        yield PlanFinding("refusal", text, fix)


def _effect_epochs(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    if plan.preset != EFFECT or not counts.shown:
        return
    least, most, limit, best = (
        steps_for_epochs(epochs, counts.shown, plan.batch, plan.accumulate)
        for epochs in (*GOOD_EPOCHS, MOST_EPOCHS, OPTIMUM_EPOCHS)
    )
    if plan.steps < least or most < plan.steps <= limit:
        sign = "too weak" if plan.steps < least else "overtrained"
        yield PlanFinding(
            "warning",
            f"{_number(epochs_of(plan, counts))} epochs are likely {sign}. For a video effect {GOOD_EPOCHS[0]} to "
            f"{GOOD_EPOCHS[1]} are good: first signs at 5, visible at 10, strong at 15, stop at 20.",
            f"Use {best} steps.",
        )
    shown = exposures_per_clip(plan, counts)
    if shown > MOST_EPOCHS and plan.steps <= limit:
        yield PlanFinding(
            "warning",
            f"Repeats show each clip {_number(shown)} times in {_number(epochs_of(plan, counts))} epochs. The "
            f"{OPTIMUM_EPOCHS} epochs of a video effect were measured without repeats.",
            "Set repeats to 1.",
        )


def _steps_per_image(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    if plan.preset != IMAGE_STYLE or not counts.clips:
        return
    per_image, usual = plan.steps / counts.clips, plan_steps(IMAGE_STYLE, counts)
    if outside(per_image, PER_IMAGE) and plan.steps != usual:
        few = per_image < PER_IMAGE[0]
        why = (
            "The classic mistake is to divide by repeated images: steps per image are steps / images, whatever the "
            "repeats and the batch."
            if few
            else "More of them overtrain."
        )
        yield PlanFinding(
            "warning",
            f"{per_image:.1f} steps per image; 30-60 is the range, 40 the aim. {why}",
            f"Use {usual} steps for {counts.clips} images.",
        )
    if counts.clips > MANY_IMAGES:
        yield PlanFinding(
            "warning",
            f"{counts.clips} images may dilute the style. 25-60 are the sweet spot.",
            "Curate to 30-50.",
        )


def _repeats(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    repeats = repeats_per_clip(counts)
    if not counts.clips or not outside(repeats, (1.0, 1.0)):
        return
    shown = f"An epoch shows {counts.shown:g} samples of {counts.clips} clips ({repeats:.3g} each)."
    if plan.preset == IMAGE_STYLE:
        yield PlanFinding(
            "note",
            f"{shown} {plan.steps:,} steps are {_number(plan.steps / counts.clips)} per image whatever the repeats "
            f"are, and not {_number(plan.steps / (counts.clips * repeats))} per repeated image.",
            "Leave repeats at 1: here they change only how often checkpoints count as an epoch.",
        )
    else:
        yield PlanFinding(
            "note",
            f"{shown} Repeats shift the balance between folders; over the whole run each clip is shown "
            f"{_number(exposures_per_clip(plan, counts))} times on average.",
            "Leave repeats at 1 where all clips count alike.",
        )


def _steps(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    del counts
    span = STEPS.get(plan.preset)
    if span and outside(plan.steps, span):
        yield PlanFinding(
            "warning",
            f"{plan.steps:,} steps. For {plan.preset} {span[0]:,} to {span[1]:,} are usual.",
            "Save often, and compare the checkpoints."
            if plan.steps > span[1]
            else f"Use {span[0]:,} or more, or keep it as a trial.",
        )


def _long_by_epochs(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    epochs = epochs_of(plan, counts)
    if plan.preset in (*MOTION, "character", "general video") and epochs > MOST_EPOCHS:
        yield PlanFinding(
            "note",
            f"{_number(epochs)} epochs. This preset is counted in steps whatever the number of clips, so nothing is "
            "refused; few clips are seen very often.",
            "Compare early checkpoints, and stop when new prompts are no longer followed.",
        )


def _few_clips(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    if counts.clips < FEW_CLIPS:
        yield PlanFinding(
            "warning",
            f"{counts.clips} clips are few. 8-15 work if very alike, 10-20 are better.",
            "Add clips.",
        )
    elif plan.preset == "character" and outside(counts.clips, CHARACTER_CLIPS):
        yield PlanFinding(
            "warning",
            f"{counts.clips} clips for a character. 10-20 images or clips are usual.",
            "Add some." if counts.clips < CHARACTER_CLIPS[0] else "Keep the best 20.",
        )


def _saving(plan: TrainingPlan, counts: Counts) -> Iterator[PlanFinding]:
    del counts
    if plan.save_every > plan.steps:
        yield PlanFinding(
            "warning",
            f"A checkpoint every {plan.save_every} steps, and the run has {plan.steps}. Only the last step would be "
            "saved, and nothing could be compared.",
            f"Set save_every to {max(1, plan.steps // 4)}.",
        )


def _pictures_only(plan: TrainingPlan, dataset: Dataset) -> Iterator[PlanFinding]:
    wanted = plan.preset in (*MOTION, EFFECT, "general video", "length extension")
    if wanted and dataset.clips and all(clip.frames == 1 for clip in dataset.clips):
        yield PlanFinding(
            "warning",
            f"The dataset holds pictures only, and the preset is {plan.preset}. A picture has no motion to learn, and "
            "freezes the motion of the high-noise expert.",
            "Use video clips, or the preset image style.",
        )


def _number(value: float) -> str:
    """A whole number as it is, another with at most one decimal below a hundred."""
    if value >= 100 or abs(value - round(value)) < 0.05:
        return f"{value:,.0f}"
    return f"{value:.1f}"


_CHECKS: tuple[Check, ...] = (
    _too_long,
    _effect_epochs,
    _steps_per_image,
    _steps,
    _few_clips,
    _long_by_epochs,
    _repeats,
    setting_findings,
    _saving,
)
