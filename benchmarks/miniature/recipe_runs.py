"""The runs that try the received recipes on the miniature, as data: each preset with its rates scaled, and pairs of
plans that differ in one thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ...training.plans.presets import IMAGE_STYLE, PRESETS
from ...wan.miniature.family import VERSION

FACTOR = 20.0
"""What every rate of every preset is multiplied with: the miniature learns at 2e-3 where 14B networks take 1e-4."""
SEEDS = (0, 1)
HELD_OUT = 4
JUDGED = 7
"""Clips a row: each known motion once."""
RATES = ("rate", "bump", "minimum", "maximum")
LOOP, STRIPED = "loop", "striped"
CLIPS = 40
"""Of a lesson's dataset."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run, and which of its checkpoints are judged beside the last."""

    name: str
    """The same for all seeds."""
    lesson: str
    preset: str
    epochs: int = 0
    """Of the dataset; 0 leaves the length to the preset or to `changes`."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """To the preset's plan, by name."""
    seed: int = 0
    looks: tuple[int, ...] = ()
    pictures: int = 0
    """How many pictures the text-to-video network is trained on; 0 is both experts on the lesson's clips."""

    @property
    def key(self) -> str:
        """Another one for everything that would train or be judged differently."""
        recipe = PRESETS[self.preset]
        length = (recipe.steps, recipe.epochs, recipe.batch, recipe.accumulate)
        network = (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dtype, recipe.optimizer.name)
        own = {name: value for name, value in asdict(self).items() if name != "pictures" or value}
        all_of_it = [own, length, network, JUDGED, VERSION]
        digest = hashlib.sha256(json.dumps(all_of_it, sort_keys=True).encode()).hexdigest()
        words = "-".join("".join(c if c.isalnum() else " " for c in self.name).split())
        return f"{words}-s{self.seed}-{digest[:8]}"


def scaled_rates(preset: str, factor: float = FACTOR) -> dict[str, float]:
    """The rates of a preset, all multiplied with one factor, as changes to its plan."""
    recipe = PRESETS[preset]
    return {
        f"{expert}.{name}": round(value * factor, 12)
        for expert, rates in (("high", recipe.high), ("low", recipe.low))
        for name in RATES
        if (value := getattr(rates, name)) is not None
    }


def _common(**changes: Any) -> dict[str, Any]:
    # Recomputing blocks saves memory that tiny networks do not need.
    return {"held_out": HELD_OUT, "checkpoint_blocks": False, **changes}


def _of_preset(name: str, preset: str, lesson: str, **more: Any) -> Run:
    own = {key: more.pop(key) for key in ("epochs", "looks", "pictures") if key in more}
    changes = _common(**scaled_rates(preset)) | more.pop("changes", {})
    return Run(name=name, lesson=lesson, preset=preset, changes=changes, **own)


TEACHES = {LOOP: 720, STRIPED: 1000}
"""Optimizer steps of 4 clips after which a lesson shows."""


def _plain(
    name: str,
    lesson: str,
    changes: Mapping[str, Any] | None = None,
    *,
    rates: tuple[float, float] = (2e-3, 2e-3),
) -> Run:
    """AdamW in float32 at rank 32: what the comparisons change one thing of."""
    steps = TEACHES[lesson]
    plan = {
        "steps": steps,
        "batch": 4,
        "swap_every": 5,
        "save_every": steps // 4,
        "optimizer.name": "adamw",
        "high.rate": rates[0],
        "low.rate": rates[1],
    }
    return Run(
        name=f"{name} {lesson}",
        lesson=lesson,
        preset="character",
        changes=_common(**plan | dict(changes or {})),
    )


LED = {"high leads": (3.2e-3, 0.8e-3), "equal": (2e-3, 2e-3), "low leads": (0.8e-3, 3.2e-3)}
"""Rates of the experts, 4 to 1 and 1 to 4, of one sum."""
EPOCHS = (5, 10, 15, 20, 50)
STEPS_AN_EPOCH = CLIPS // 2
"""Of the video effect: one clip a micro-batch, two of them a step."""
_SWAPPED = {"high.rate": 1e-4 * FACTOR, "low.rate": 5e-5 * FACTOR}
_EXCHANGED = {
    f"{to}.{name}": scaled_rates("motion 4x")[f"{of}.{name}"]
    for of, to in (("high", "low"), ("low", "high"))
    for name in RATES
} | {"save_every": 200}
_GENTLE = scaled_rates("motion 4x", FACTOR / 4) | {"save_every": 200}
"""Whether the one factor is what misses the motion."""
GENERAL_LOOKS = (300, 600)
_GENERAL = {"steps": 900, "batch": 4, "accumulate": 1, "save_every": 300}
"""Three tenths of its steps; a micro-batch of 4 clips is the mean of its 4 micro-batches of one, in less time."""


def _led_runs() -> list[Run]:
    return [
        _plain(name, lesson, rates=rates)
        for lesson in (LOOP, STRIPED)
        for name, rates in LED.items()
    ]


def _other_runs() -> list[Run]:
    presets = [
        _of_preset("motion 4x", "motion 4x", LOOP, looks=(1000, 1800), changes={"save_every": 200}),
        _of_preset("motion 3x", "motion 3x", LOOP, changes={"save_every": 200}),
        _of_preset("character", "character", STRIPED),
        _of_preset("character, high leads", "character", STRIPED, changes=_SWAPPED),
        _of_preset(
            "video effect",
            "video effect",
            LOOP,
            epochs=EPOCHS[-1],
            looks=tuple(epoch * STEPS_AN_EPOCH for epoch in EPOCHS[:-1]),
        ),
        _of_preset("general video", "general video", LOOP, looks=GENERAL_LOOKS, changes=_GENERAL),
        _of_preset(
            "general video, alpha = rank",
            "general video",
            LOOP,
            changes={**_GENERAL, "lora.alpha": 64.0},
        ),
    ]
    small = {"optimizer.name": "adamw 8-bit kahan", "lora.dtype": "bfloat16"}
    others = [
        _plain("8-bit kahan", LOOP, small),
        _plain("bf16 alone", LOOP, small | {"optimizer.name": "adamw"}),
        _plain("sequential", LOOP, {"order": "sequential"}),
        _plain("half and half", LOOP, {"high_share": 0.5}),
        _of_preset("motion 4x, bounds exchanged", "motion 4x", LOOP, changes=_EXCHANGED),
        _of_preset("motion 4x, rates times 5", "motion 4x", LOOP, changes=_GENTLE),
    ]
    return [*presets, *others, *_image_runs()]


PICTURES = 15
PER_IMAGE = (10, 20, 30, 40, 60)
_WEAK = {"high.rate": 4e-4 * FACTOR, "low.rate": 4e-4 * FACTOR}
_STEADY = {
    "steps": PICTURES * PER_IMAGE[-1],
    "save_every": 150,
    "high.schedule": "constant",
    "low.schedule": "constant",
}


def _image_runs() -> list[Run]:
    """Image style: as received, at the rate for a weak style, and at a rate that does not fall, by steps per image."""
    few = {"held_out": 2}
    return [
        _of_preset("image style", IMAGE_STYLE, STRIPED, pictures=PICTURES, changes=few),
        _of_preset(
            "image style, 4e-4", IMAGE_STYLE, STRIPED, pictures=PICTURES, changes=few | _WEAK
        ),
        _of_preset(
            "image style, steady rate",
            IMAGE_STYLE,
            STRIPED,
            pictures=PICTURES,
            changes=few | _STEADY,
            looks=tuple(PICTURES * count for count in PER_IMAGE[:-1]),
        ),
    ]


RUNS: tuple[Run, ...] = tuple(
    replace(run, seed=seed)
    for some in (_led_runs(), _other_runs())
    for seed in SEEDS
    for run in some
)
"""Those that answer most come first."""


def of_all_seeds(name: str) -> tuple[Run, ...]:
    """The runs of one name."""
    return tuple(run for run in RUNS if run.name == name)
