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
from .finding import LEVELS, PlanFinding, outside
from .material import Material, at_samples, material_of, number_of
from .plan import TrainingPlan
from .presets import EFFECT, IMAGE_STYLE, LENGTH, MOTION
from .rate_limits import destroying_rates
from .setting_limits import setting_findings

__all__ = [
    "PlanFinding",
    "dataset_findings",
    "findings_of",
    "findings_text",
    "plan_alone_findings",
    "plan_findings",
    "require_allowed",
]

GOOD_EPOCHS, OPTIMUM_EPOCHS, MOST_EPOCHS = (15, 25), 20, 50
"""Of a video effect; above the last a run is refused."""
PER_IMAGE = (30, 60)
"""Steps per image of an image style."""
MANY_IMAGES = 60
GENERAL = "general video"
FEW_CLIPS = 8
# From recipes: general video (of large datasets) and character (of small ones); motion's best was seen at 1,800 to
# 2,400.
STEPS: dict[str, tuple[int, int]] = {
    GENERAL: (2000, 4000),
    "character": (500, 800),
    "motion 4x": (1800, 2400),
    "motion 3x": (1800, 2400),
}
CHARACTER_CLIPS = (10, 20)
WORDS = {"refusal": "Refused", "warning": "Warning", "note": "Note"}
"""How each level is told."""

Check = Callable[[TrainingPlan, Material], Iterator[PlanFinding]]


def plan_findings(plan: TrainingPlan, counts: Counts) -> tuple[PlanFinding, ...]:
    """Everything to know about this plan on so many clips, the gravest first. Of what it finds only refusals stop
    a run; a preset's own plan has none, and warnings only about the dataset."""
    return _found(plan, material_of(counts, plan), _CHECKS)


def dataset_findings(plan: TrainingPlan, dataset: Dataset) -> tuple[PlanFinding, ...]:
    """The same, with what only the clips themselves can tell."""
    return _found(plan, material_of(dataset, plan), _CHECKS)


def plan_alone_findings(plan: TrainingPlan) -> tuple[PlanFinding, ...]:
    """What can be said of a plan without knowing the clips."""
    return _found(plan, material_of(Counts(0, 0.0, 0.0), plan), (_destroying, _settings, _saving))


def _found(
    plan: TrainingPlan, material: Material, checks: tuple[Check, ...]
) -> tuple[PlanFinding, ...]:
    found = [finding for check in checks for finding in check(plan, material)]
    return tuple(sorted(found, key=lambda finding: LEVELS.index(finding.level)))


def findings_of(plan: TrainingPlan, shown: Counts | Dataset) -> tuple[PlanFinding, ...]:
    """Everything to know about this plan on a dataset, or on as much as is known of one."""
    of_dataset = isinstance(shown, Dataset)
    return dataset_findings(plan, shown) if of_dataset else plan_findings(plan, shown)


def require_allowed(plan: TrainingPlan, shown: Counts | Dataset) -> None:
    """Raises `UserError` for the first refusal."""
    for finding in findings_of(plan, shown):
        if finding.level == "refusal":
            came, _, can_be = finding.text.partition(". ")
            raise UserError(f"{came}.", can_be, finding.fix)


def findings_text(findings: tuple[PlanFinding, ...]) -> list[str]:
    """A line for each: level, what is, what to do."""
    return [f"{WORDS[found.level]}: {found.text} {found.fix}" for found in findings]


def _too_long(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    counts = material.counts
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
        f"{_number(epochs)} epochs are {_number(epochs / OPTIMUM_EPOCHS)} times the optimum of {OPTIMUM_EPOCHS}. For a "
        f"video effect {GOOD_EPOCHS[0]} to {GOOD_EPOCHS[1]} are good, and more than {MOST_EPOCHS} are refused."
    )
    if plan.allow_long:
        fix = f"It runs because allow_long is set; use {_steps_at(best, plan)}, or keep the early checkpoints."
        yield PlanFinding("warning", text, fix)
    else:
        fix = f"Use {_steps_at(best, plan)}; set allow_long on the plan to train so long all the same."
        yield PlanFinding("refusal", text, fix)


def _effect_epochs(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    counts = material.counts
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
            f"{_epochs(epochs_of(plan, counts))} likely {sign}. For a video effect {GOOD_EPOCHS[0]} to "
            f"{GOOD_EPOCHS[1]} are good: first signs at 5, visible at 10, strong at 15, stop at 20.",
            f"Use {_steps_at(best, plan)}.",
        )
    shown = exposures_per_clip(plan, counts)
    if shown > MOST_EPOCHS and plan.steps <= limit:
        yield PlanFinding(
            "warning",
            f"Repeats show each {material.one()} {_number(shown)} times in {_number(epochs_of(plan, counts))} epochs. "
            f"The {OPTIMUM_EPOCHS} epochs of a video effect were measured without repeats.",
            "Set repeats to 1.",
        )


def _steps_per_image(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    counts = material.counts
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
            f"Use {_steps_at(usual, plan)} for {number_of(counts.clips, 'image')}.",
        )
    if counts.clips > MANY_IMAGES:
        yield PlanFinding(
            "warning",
            f"{counts.clips} images may dilute the style. 25-60 are the sweet spot.",
            "Curate to 30-50.",
        )


def _repeats(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    counts = material.counts
    repeats = repeats_per_clip(counts)
    if not counts.clips or not outside(repeats, (1.0, 1.0)):
        return
    each = "each" if material.alike() else "on average"
    shown = f"An epoch shows {counts.shown:g} samples of {material.shown(plan.preset)} ({repeats:.3g} {each})."
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
            f"{shown} Repeats shift the balance between folders; over the whole run each {material.one()} is shown "
            f"{material.times(plan)}.",
            "Leave repeats at 1 where all count alike.",
        )


def _steps(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    span = STEPS.get(plan.preset)
    if span is None or (plan.steps < span[0] and _needs_many_clips(plan, material, span[0])):
        return
    if outside(plan.steps, span):
        yield PlanFinding(
            "warning",
            f"{plan.steps:,} {'step' if plan.steps == 1 else 'steps'}. For {plan.preset} {span[0]:,} to {span[1]:,} "
            "are usual.",
            "Save often, and compare the checkpoints."
            if plan.steps > span[1]
            else f"Use {span[0]:,} or more, or keep it as a trial.",
        )


def _needs_many_clips(plan: TrainingPlan, material: Material, steps: int) -> bool:
    """Whether so many steps are meant for a larger dataset than this: more of them is no advice then."""
    samples = steps * plan.accumulate * plan.batch
    return plan.preset == GENERAL and samples > MOST_EPOCHS * material.counts.shown


def _many_epochs(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    """General video's number of steps comes from large datasets: on a small one it is far too long."""
    counts = material.counts
    epochs = epochs_of(plan, counts)
    if plan.preset != GENERAL or epochs <= MOST_EPOCHS:
        return
    least, most = STEPS[GENERAL]
    best = steps_for_epochs(OPTIMUM_EPOCHS, counts.shown, plan.batch, plan.accumulate)
    enough = -(-plan.steps * plan.accumulate * plan.batch // MOST_EPOCHS)
    yield PlanFinding(
        "warning",
        f"{_number(epochs)} epochs are {_number(epochs / OPTIMUM_EPOCHS)} times the {OPTIMUM_EPOCHS} that are good for "
        f"few clips. The {least:,} to {most:,} steps of {GENERAL} come from large datasets; "
        f"{material.shown(plan.preset)} will be memorised.",
        f"Use the preset {EFFECT}, or epochs {OPTIMUM_EPOCHS} ({_steps_at(best, plan)}), or {enough:,} clips or more.",
    )


def _long_by_epochs(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    """Recipes of small datasets, which count steps. A run that is shorter than its recipe is not too long."""
    epochs = epochs_of(plan, material.counts)
    recipe = STEPS.get(plan.preset, (0, 0))[0]
    if plan.preset in (*MOTION, "character") and epochs > MOST_EPOCHS and plan.steps >= recipe:
        yield PlanFinding(
            "note",
            f"{_number(epochs)} epochs. The recipe of {plan.preset} counts steps and comes from small datasets, so "
            "that many are expected and nothing is refused.",
            "Compare early checkpoints, and stop when new prompts are no longer followed.",
        )


def _few_clips(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    count, shown = material.counts.clips, material.shown(plan.preset)
    if count < FEW_CLIPS:
        yield PlanFinding(
            "warning",
            f"{shown} {'is' if count == 1 else 'are'} few. 8-15 work if very alike, 10-20 are better.",
            _more("images" if plan.preset == IMAGE_STYLE else "clips", material),
        )
    elif plan.preset == "character" and outside(count, CHARACTER_CLIPS):
        yield PlanFinding(
            "warning",
            f"{shown} for a character. 10-20 images or clips are usual.",
            _more("some", material) if count < CHARACTER_CLIPS[0] else "Keep the best 20.",
        )


def _more(what: str, material: Material) -> str:
    """More to train on: where some are held out, those could be trained on too."""
    held = f", or hold out fewer than {material.held_out}" if material.held_out else ""
    return f"Add {what}{held}."


def _saving(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    del material
    if plan.save_every > plan.steps:
        yield PlanFinding(
            "warning",
            f"A checkpoint every {number_of(plan.save_every, 'step')}, and the run has {plan.steps}. Only the last "
            "step would be saved, and nothing could be compared.",
            f"Set save_every to {max(1, plan.steps // 4)}.",
        )


def _pictures_only(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    if plan.preset in (*MOTION, EFFECT, GENERAL, LENGTH) and material.only_pictures():
        yield PlanFinding(
            "warning",
            f"The dataset holds pictures only, and the preset is {plan.preset}. The LoRA cannot learn motion from "
            "pictures, and they teach the high-noise expert to stand still.",
            "Use video clips, or the preset image style.",
        )


def _settings(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    yield from setting_findings(plan, material)


def _destroying(plan: TrainingPlan, material: Material) -> Iterator[PlanFinding]:
    del material
    yield from destroying_rates(plan)


def _steps_at(steps: int, plan: TrainingPlan) -> str:
    """`160 steps at accumulate 2`: the same epochs are another number of steps where accumulate differs."""
    return f"{number_of(steps, 'step')} {at_samples(plan)}"


def _epochs(epochs: float) -> str:
    number = _number(epochs)
    return f"{number} epoch is" if number == "1" else f"{number} epochs are"


def _number(value: float) -> str:
    """A whole number as it is, another with at most one decimal below a hundred."""
    if value >= 100 or abs(value - round(value)) < 0.05:
        return f"{value:,.0f}"
    return f"{value:.1f}"


_CHECKS: tuple[Check, ...] = (
    # What makes a run useless stands before what makes it worse.
    _too_long,
    _destroying,
    _pictures_only,
    _many_epochs,
    _effect_epochs,
    _steps_per_image,
    _steps,
    _few_clips,
    _long_by_epochs,
    _repeats,
    _settings,
    _saving,
)
