"""What a run will do, as a value that a person can read, edit, save and compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from math import inf
from typing import Any

from ...wan.errors import UserError
from ...wan.families import A14B, AUTO, BOUNDARIES, FAMILIES, ROLES, Role
from ...wan.lora.adapters import DEFAULT_TARGETS
from ..optimizers.names import DTYPES, require_name
from ..optimizers.rate_schedules import SCHEDULES

PLAN_VERSION = 1
TRAINED = ("both", "high", "low")
STOPPABLE = ("low overpowers", "high too weak", "overtraining", "loss settled")
"""What the monitors can find, and a run can end on."""
LONGEST_RUN = 1_000_000
"""Steps; some three hundred times what a LoRA needs."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    rank: int = 32
    """Width of the two factors; the file grows with it."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of an adapter's inputs that is zeroed while training."""
    targets: tuple[str, ...] = DEFAULT_TARGETS
    """Patterns for whole layer names."""
    dtype: str = "float32"
    """What the factors are trained and saved in. In bfloat16 small updates need an optimizer with Kahan summation."""


@dataclass(frozen=True, kw_only=True)
class RateSettings:
    """Learning rate of one expert. With automagic every weight has its own rate, which starts at
    `rate`, moves by `bump` and stays between `minimum` and `maximum`."""

    rate: float = 1e-4
    bump: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    schedule: str = "constant"
    """How the rate moves over this expert's own steps; automagic moves it itself."""
    warmup: int = 0
    """Steps of this expert in which the rate rises to its full height."""
    cycles: int = 3
    """Falls from the full rate of `cosine with restarts`."""
    beta2: float | None = None
    """Another one than the optimizer's, for this expert."""
    clip: float | None = None
    """Another one than the optimizer's, for this expert."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    name: str = "adamw"
    beta2: float = 0.999
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest gradient norm (AdamW) or update RMS (automagic)."""
    ema: float = 0.0
    """What a step keeps of the average of the weights, which is saved beside them (0.99 to 0.999); 0 keeps none."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """`steps` are optimizer steps over both experts; an iteration is one micro-batch."""

    version: int = PLAN_VERSION
    preset: str = "video effect"
    family: str = AUTO
    """`auto` plans for Wan 2.2 A14B; what is connected to the trainer decides."""
    train: str = "both"
    """Which of A14B's experts: both, high or low."""
    task: str = "i2v"
    boundary: float = BOUNDARIES["i2v"]
    """Sigma at and above which the high-noise expert works."""
    shift: float = 5.0
    """Warp of the noise schedule that training draws from."""
    steps: int = 160
    batch: int = 1
    accumulate: int = 1
    swap_every: int = 10
    """Optimizer steps before the other expert takes its turn."""
    save_every: int = 100
    seed: int = 0
    caption_dropout: float = 0.0
    """Share of the samples that are trained without their caption."""
    allow_long: bool = False
    """Train longer than the preset's limit of epochs all the same."""
    held_out: int = 0
    """Clips that are not trained on: each expert's loss on them is measured before every checkpoint."""
    stop_on: tuple[str, ...] = ()
    """Findings that end the run; the others are told only."""
    checkpoint_blocks: bool = True
    """Recompute each block in the backward pass instead of keeping its activations."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    high: RateSettings = field(default_factory=RateSettings)
    low: RateSettings = field(default_factory=RateSettings)
    notes: tuple[str, ...] = ()
    """Why the values are what they are, for people."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "swap_every", "save_every"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(self.held_out >= 0, "held_out", self.held_out, "0 (none) or a number of clips")
        for name in self.stop_on:
            _check(name in STOPPABLE, "stop_on", name, f"any of {', '.join(STOPPABLE)}")
        _check(self.steps <= LONGEST_RUN, "steps", self.steps, f"at most {LONGEST_RUN:,}")
        _check(self.lora.rank >= 1, "lora.rank", self.lora.rank, "at least 1")
        _check(
            0 < self.lora.alpha < inf,
            "lora.alpha",
            self.lora.alpha,
            "above 0; at 0 the LoRA would do nothing",
        )
        _check(0 <= self.lora.dropout < 1, "lora.dropout", self.lora.dropout, "0 to below 1")
        _check(
            0 <= self.caption_dropout < 1, "caption_dropout", self.caption_dropout, "0 to below 1"
        )
        _check(
            0 < self.boundary < 1,
            "boundary",
            self.boundary,
            "between 0 and 1 (0.9 for I2V, 0.875 for T2V)",
        )
        _check(0 < self.shift < inf, "shift", self.shift, "above 0 (5 for Wan 2.2 I2V)")
        _check(self.train in TRAINED, "train", self.train, f"one of {', '.join(TRAINED)}")
        _check(self.family in FAMILIES, "family", self.family, f"one of {', '.join(FAMILIES)}")
        _check(
            self.lora.dtype in DTYPES, "lora.dtype", self.lora.dtype, f"one of {', '.join(DTYPES)}"
        )
        _check_optimizer(self.optimizer)
        for name, rates in (("high", self.high), ("low", self.low)):
            _check_rates(name, rates)

    def roles(self) -> tuple[Role, ...]:
        """The experts that this plan trains."""
        roles = ROLES[A14B if self.family == AUTO else self.family]
        return (
            roles
            if self.train == "both"
            else tuple(r for r in roles if r in (f"{self.train}_noise", "single"))
        )

    def rates(self, role: Role) -> RateSettings:
        """A single model takes the settings of the expert that leads."""
        if role == "single":
            return max(self.high, self.low, key=lambda rates: rates.rate)
        return self.low if role == "low_noise" else self.high


def _check_optimizer(settings: OptimizerSettings) -> None:
    require_name(settings.name)
    _check_beta2("optimizer.beta2", settings.beta2)
    _check(settings.clip > 0, "optimizer.clip", settings.clip, "above 0 (1 is usual)")
    _check(0 <= settings.ema < 1, "optimizer.ema", settings.ema, "0 to below 1 (0.99 to 0.999)")


def _check_rates(name: str, rates: RateSettings) -> None:
    _check(0 < rates.rate < inf, f"{name}.rate", rates.rate, "above 0")
    for part in ("bump", "minimum", "maximum"):
        value = getattr(rates, part)
        _check(value is None or 0 <= value < inf, f"{name}.{part}", value, "0 or more, or null")
    if rates.minimum is not None and rates.maximum is not None:
        _check(
            rates.minimum <= rates.maximum,
            f"{name}.minimum",
            rates.minimum,
            f"at most {name}.maximum, which is {rates.maximum}",
        )
    known = f"one of {', '.join(SCHEDULES)}"
    _check(rates.schedule in SCHEDULES, f"{name}.schedule", rates.schedule, known)
    _check(rates.warmup >= 0, f"{name}.warmup", rates.warmup, "at least 0")
    _check(rates.cycles >= 1, f"{name}.cycles", rates.cycles, "at least 1")
    if rates.beta2 is not None:
        _check_beta2(f"{name}.beta2", rates.beta2)
    if rates.clip is not None:
        _check(rates.clip > 0, f"{name}.clip", rates.clip, "above 0 (1 is usual)")


def _check_beta2(name: str, beta2: float) -> None:
    _check(0 <= beta2 < 1, name, beta2, "0 to below 1 (0.999)")


PARTS: dict[str, type] = {
    "lora": LoraSettings,
    "optimizer": OptimizerSettings,
    "high": RateSettings,
    "low": RateSettings,
}
"""The parts of a plan that have values of their own."""


def plan_json(plan: TrainingPlan) -> str:
    """The plan as text that `read_plan` turns back into an equal plan."""
    return json.dumps(asdict(plan), indent=2)


def read_plan(text: str) -> TrainingPlan:
    """A plan from JSON, of this version or an earlier one; unknown keys and impossible values are errors that name
    them."""
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"The plan is not JSON ({error}).",
            "A plan is a JSON object.",
            "Save it again from the plan node.",
        ) from error
    if not isinstance(values, dict):
        raise UserError(
            f"The plan is {str(values)[:80]!r}.",
            "A plan is a JSON object.",
            "Save it again from the plan node.",
        )
    values = _migrated(values)
    for name, kind in PARTS.items():
        if name in values:
            values[name] = _build(kind, values[name], f"{name}.")
    return _build(TrainingPlan, values, "")


Values = dict[str, Any]
_MIGRATIONS: dict[int, Callable[[Values], Values]] = {}
"""Version n to a function that turns the values of version n into those of n + 1. A new key with a default needs
none: a plan without it has the default. A key that was renamed, or means something else, needs one."""


def _migrated(values: Values) -> Values:
    version = values.get("version")
    known = isinstance(version, int) and not isinstance(version, bool)
    while known and version in _MIGRATIONS and version < PLAN_VERSION:
        values, version = _MIGRATIONS[version](values), version + 1
    if not known or version != PLAN_VERSION:
        raise UserError(
            f"The plan has version {version}.",
            f"This version of Tandem reads version {PLAN_VERSION}"
            + (f" and, from before it, {sorted(_MIGRATIONS)}." if _MIGRATIONS else "."),
            "Make the plan again, or install the version that wrote it.",
        )
    return values | {"version": PLAN_VERSION}


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number or null"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "text"),
    "tuple[str, ...]": ((list,), "a list of texts"),
}
"""What JSON can hold for a field, by its annotation."""


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - kind decides
    _check(isinstance(values, Mapping), where.removesuffix("."), values, "an object of settings")
    known = [f.name for f in fields(kind)]
    if unknown := sorted(set(values) - set(known)):
        near = [n for name in unknown for n in get_close_matches(name, known, 1)]
        meant = f"Is {', '.join(where + n for n in near)} meant? " if near else ""
        raise UserError(
            f"The plan has {', '.join(where + name for name in unknown)}.",
            f"Known here: {', '.join(known)}.",
            f"{meant}Check the spelling or remove it.",
        )
    for f in fields(kind):
        if f.name in values and str(f.type) in _KINDS:
            kinds, can_be = _KINDS[str(f.type)]
            value = values[f.name]
            fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
            _check(fits, where + f.name, repr(value), can_be)
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    )


def _check(holds: bool, name: str, value: object, can_be: str) -> None:
    if not holds:
        raise UserError(
            f"{name} is {value}.", f"It can be {can_be}.", f"Change {name} in the plan."
        )
