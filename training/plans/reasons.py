"""Why each value of a plan is what it is, and what that rests on."""

from __future__ import annotations

from math import isclose
from typing import NamedTuple

from ...wan.families import BOUNDARIES
from ..data.dataset import Counts
from .budget import STEPS_PER_IMAGE, plan_for, plan_steps
from .changes import Values, plan_values
from .plan import TrainingPlan
from .presets import EFFECT, IMAGE_STYLE, LENGTH, MOTION, PRESETS
from .target_words import target_words

OFFICIAL = "Wan's own configuration"
GROUP = "one group's runs, not replicated"
PEOPLE = "practitioners' ranges"
PUBLISHED = "one published run"
OURS = "our choice"
BY_HAND = "set by hand"


class Reason(NamedTuple):
    """One value, why, and its class of evidence."""

    name: str
    value: object
    why: str
    evidence: str

    def text(self) -> str:
        """`lora.rank 32: width of the update (one published run)`."""
        return f"{self.name} {short(self.value)}: {self.why} ({self.evidence})"


Grounds = dict[str, tuple[str, str]]
"""By the value's name: why, and the evidence."""

_RANK_32 = ("a usual width for 14B; the alpha equal to it leaves the update unscaled", OURS)
_MOTION: Grounds = {
    "steps": ("the best checkpoint was usually at 1,800-2,000", GROUP),
    "save_every": ("motion appears and goes within some hundred steps", GROUP),
    "optimizer.name": (
        "a rate for each weight, which grows where the sign of the update stays",
        GROUP,
    ),
    "high.rate": (
        "coarse motion is the high-noise expert's; these bounds make it lead 3-5 times",
        GROUP,
    ),
    "low.rate": ("detail must not overpower the motion", GROUP),
    "lora.rank": _RANK_32,
}
_RESTARTS = ("the rate falls and starts again, as the recipe has it", PEOPLE)
_EIGHT_BIT = ("AdamW; 8-bit states take less memory", PEOPLE)
_GROUNDS: dict[str, Grounds] = {
    **dict.fromkeys(MOTION, _MOTION),
    "character": {
        "steps": ("500-800 for 10-20 images or clips", GROUP),
        "save_every": ("eight checkpoints to compare", OURS),
        "optimizer.name": ("the plain one", OURS),
        "high.rate": ("half of the low expert's, which leads", OURS),
        "low.rate": ("identity is detail: the low-noise expert leads", GROUP),
        "lora.rank": _RANK_32,
    },
    IMAGE_STYLE: {
        "steps": ("", PEOPLE),
        "save_every": ("100 below 1,000 steps, 250 below 2,000, else 500", PEOPLE),
        "batch": ("two images a micro-batch; steps per image do not depend on it", PEOPLE),
        "optimizer.name": _EIGHT_BIT,
        "high.rate": ("4e-4 if the style is weak", PEOPLE),
        "low.rate": ("4e-4 if the style is weak", PEOPLE),
        "lora.rank": ("small, as a look needs; 32 if it is weak", PEOPLE),
        "high.schedule": _RESTARTS,
        "low.schedule": _RESTARTS,
        "high.cycles": ("how many falls the recipe does not say", OURS),
        "low.cycles": ("how many falls the recipe does not say", OURS),
    },
    EFFECT: {
        "steps": (
            "20 epochs: first signs at 5, visible at 10, strong at 15, stop at 20",
            PUBLISHED,
        ),
        "accumulate": ("two micro-batches a step calm the gradient", PUBLISHED),
        "save_every": ("every 5 epochs, where the effect changes visibly", PUBLISHED),
        "optimizer.name": ("of the run that worked", PUBLISHED),
        "high.rate": ("careful: an effect shows early", PUBLISHED),
        "low.rate": ("careful: an effect shows early", PUBLISHED),
        "lora.rank": ("of the run that worked", PUBLISHED),
        "lora.dtype": (
            "Kahan summation keeps what 16 bits round away; in 32 it has nothing to do",
            OURS,
        ),
    },
    "general video": {
        "steps": ("2,000-4,000, of large datasets; test at 1,000, 2,000 and 3,000", PEOPLE),
        "accumulate": (
            "four micro-batches a step, as cards of 24 GB take one or two clips at a time",
            PEOPLE,
        ),
        "save_every": ("a preview every 500", PEOPLE),
        "optimizer.name": ("AdamW; 8-bit states take less memory", OURS),
        "high.rate": ("1e-4 to 3e-4", PEOPLE),
        "low.rate": ("1e-4 to 3e-4", PEOPLE),
        "lora.rank": ("32-128 for many things at once", PEOPLE),
        "lora.alpha": ("half of the rank", PEOPLE),
    },
    LENGTH: {
        "steps": ("100 epochs, with a loss at two lengths", PUBLISHED),
        "accumulate": ("long clips come one at a time", PUBLISHED),
        "save_every": ("every 10 epochs", OURS),
        "optimizer.name": ("the plain one", OURS),
        "high.rate": ("of the recipe", PUBLISHED),
        "low.rate": ("of the recipe", PUBLISHED),
        "lora.rank": ("of the recipe", PUBLISHED),
        "lora.dropout": ("of the recipe", PUBLISHED),
        "lora.targets": ("attention alone: it carries time", PUBLISHED),
    },
}
_ALL: Grounds = {
    "train": ("both experts, each its own LoRA file", OFFICIAL),
    "task": ("image-to-video unless the connected model says otherwise", OURS),
    "boundary": ("sigma where the high-noise expert ends", OFFICIAL),
    "shift": (
        "the official image-to-video sampler's; the experts' shares follow from it",
        OFFICIAL,
    ),
    "batch": ("one clip at a time fits most cards", PEOPLE),
    "accumulate": ("every micro-batch makes a step", PEOPLE),
    "swap_every": ("steps of one expert before the other's turn, fewer in short runs", OURS),
    "order": ("turns keep one expert in memory and both at the same point of the run", OURS),
    "high_share": ("its part of the noise schedule, by boundary and shift", OURS),
    "phases": ("only a sequential run uses them; high, low, both is the received order", GROUP),
    "timesteps.distribution": ("as the sampler's schedule has them", OURS),
    "timesteps.mean": ("only logit-normal uses it", OURS),
    "timesteps.std": ("only logit-normal and sigmoid use it", OURS),
    "loss.weighting": ("every noise level counts as much", OURS),
    "loss.gamma": ("only clamped snr uses it", OURS),
    "alpha_phases.alphas": ("alpha stays as it is", OURS),
    "patterns": ("all layers have the same settings", OURS),
    "rules": ("the rules of the preset as they are", OURS),
    "prune.last": ("every checkpoint is kept", OURS),
    "prune.every": ("every checkpoint is kept", OURS),
    "swap_blocks": ("all weights on the card are fastest", OURS),
    "offload_activations": ("what the card can hold stays there", OURS),
    "caption_dropout": (
        "every sample is trained with its caption, as in the recipes",
        OURS,
    ),
    "checkpoint_blocks": ("a third more time, and a fraction of the memory", OURS),
    "lora.alpha": ("the update is scaled by alpha / rank", OURS),
    "lora.dropout": ("none, as in the recipes", PEOPLE),
    "lora.targets": ("in every block of the network", PEOPLE),
    "lora.dtype": ("LoRAs are small: 32 bits lose nothing of an update", OURS),
    "optimizer.ema": ("the weights are saved as they are, and no average beside them", OURS),
    "preset": ("what the LoRA is to teach", BY_HAND),
    "allow_long": ("the limit of epochs holds unless it is on", OURS),
    "held_out": (
        "every clip is trained on; from 10 clips on, one in ten shows which checkpoint is best",
        OURS,
    ),
    "stop_on": ("findings are told, and the run goes on", OURS),
    "seed": ("the same seed is the same run", OURS),
    "family": ("what is connected to the trainer decides", OURS),
}
SHOWN = (
    "steps",
    "batch",
    "accumulate",
    "swap_every",
    "save_every",
    "train",
    "boundary",
    "shift",
    "lora.rank",
    "lora.alpha",
    "lora.dropout",
    "lora.targets",
    "lora.dtype",
    "optimizer.name",
    "high.rate",
    "low.rate",
    "caption_dropout",
    "held_out",
    "checkpoint_blocks",
)
"""The values that a person decides about, in the order in which they are told."""
_OF_LENGTH = ("swap_every", "save_every")
_OF_RATES = ("bump", "minimum", "maximum")
_OF_SCHEDULES: dict[str, tuple[str, str]] = {
    "schedule": ("the rate stays as it is", OURS),
    "warmup": ("the first step has the full rate", OURS),
    "cycles": ("only cosine with restarts uses it", OURS),
    "beta2": ("as the optimizer has it", OURS),
    "clip": ("as the optimizer has it", OURS),
    "rank": ("as lora has it", OURS),
    "alpha": ("as lora has it", OURS),
    "dropout": ("as lora has it", OURS),
    "targets": ("as lora has it", OURS),
}
"""Of an expert's rate, unless a preset says more."""


def plan_reasons(plan: TrainingPlan, counts: Counts) -> tuple[Reason, ...]:
    """A reason for each value that a person decides about. A value that is not the preset's own is named as set by
    hand, with what the preset has."""
    values, own = plan_values(plan), _own_values(plan, counts)
    return tuple(_reason(name, plan, counts, values, own) for name in SHOWN)


def reason_for(name: str, plan: TrainingPlan, counts: Counts | None = None) -> Reason:
    """Why one value is what it is; any name of `plan_values`. Without counts the budget's values are not compared
    with the preset's."""
    values, own = plan_values(plan), _own_values(plan, counts)
    return _reason(name, plan, counts, values, own)


def _own_values(plan: TrainingPlan, counts: Counts | None) -> Values:
    """The values that the preset itself gives; without counts, but those that follow from them."""
    if plan.preset not in PRESETS:
        return {}
    own = plan_values(plan_for(counts or Counts(1, 1.0, 0.0), plan.preset))
    if counts is None:
        for name in ("steps", "batch", "swap_every", "save_every"):
            del own[name]
    # What is connected decides these two, and the seed has no better value.
    return {n: v for n, v in own.items() if n not in ("preset", "family", "seed", "allow_long")}


def _reason(
    name: str, plan: TrainingPlan, counts: Counts | None, values: Values, own: Values
) -> Reason:
    value = _value(name, values)
    if name in own and own[name] != values[name] and not _follows(name, plan, counts, values, own):
        why = f"the preset has {short(_value(name, own))}"
        return Reason(name, value, why, BY_HAND)
    why, evidence = _grounds(name, values, _ALL | _GROUNDS.get(plan.preset, {}))
    if name == "steps" and plan.preset == IMAGE_STYLE:
        why = _image_steps(counts) if counts else f"{STEPS_PER_IMAGE} per image, 500 to 3,500"
    return Reason(name, value, why, evidence)


def _grounds(name: str, values: Values, grounds: Grounds) -> tuple[str, str]:
    part, _, inner = name.partition(".")
    if name in grounds:
        return grounds[name]
    if inner in _OF_RATES and values[name] is None:
        return "only automagic uses it", OURS
    if inner in _OF_RATES:
        return grounds.get(f"{part}.rate", ("of the preset's rates", OURS))
    if part in ("high", "low") and inner in _OF_SCHEDULES:
        return _OF_SCHEDULES[inner]
    if part == "alpha_phases":
        return "of the received recipe; only alpha in phases uses it", GROUP
    if part == "optimizer":
        return "belongs to the preset's optimizer", grounds.get("optimizer.name", ("", OURS))[1]
    return "chosen for the run", BY_HAND


def _follows(
    name: str, plan: TrainingPlan, counts: Counts | None, values: Values, own: Values
) -> bool:
    """Whether a value is another than the preset's only because something else is."""
    if name in _OF_LENGTH and counts is not None:
        return getattr(plan_for(counts, plan.preset, steps=plan.steps), name) == values[name]
    if name == "lora.alpha":
        unscaled = values[name] * own["lora.rank"] / values["lora.rank"]
        return values["lora.rank"] != own["lora.rank"] and isclose(unscaled, own[name])
    return _follows_the_model(name, plan)


def _follows_the_model(name: str, plan: TrainingPlan) -> bool:
    """Task and boundary are those of the connected model."""
    if name == "boundary":
        return plan.boundary == BOUNDARIES["t2v" if plan.task == "t2v" else "i2v"]
    return name in ("task", "train")


def _image_steps(counts: Counts) -> str:
    raw, steps = STEPS_PER_IMAGE * counts.clips, plan_steps(IMAGE_STYLE, counts)
    if raw == steps:
        return f"{STEPS_PER_IMAGE} for each of {counts.clips} images"
    limit = "never under" if steps > raw else "never over"
    return (
        f"{STEPS_PER_IMAGE} for each of {counts.clips} images would be {raw:,}; {limit} {steps:,}, so "
        f"{steps / max(1, counts.clips):.3g} an image"
    )


def _value(name: str, values: Values) -> object:
    """A rate is told with its bump and its limits, or with its schedule, where it has them."""
    value = values[name]
    if name == "lora.targets":
        return target_words(values[name])
    if name in ("high.rate", "low.rate"):
        part = name.split(".")[0]
        bump, least, most = (values[f"{part}.{inner}"] for inner in _OF_RATES)
        if None not in (bump, least, most):
            return f"{value:g} (bump {bump:g}, {least:g} to {most:g})"
        if values[f"{part}.schedule"] != "constant":
            return f"{value:g} ({values[f'{part}.schedule']})"
    return value


def short(value: object) -> str:
    """A value as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return str(value)
