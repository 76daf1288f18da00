"""What a run tells while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ..wan.families import Role
from .states import State


@dataclass(frozen=True, kw_only=True)
class ClipEncoded:
    """One clip in all its views is latents and conditioning now: `done` (from 1) of `total`, `cached` of them from
    the cache. `seconds_left` for the rest, where it can be told yet."""

    name: str
    done: int
    total: int
    cached: int = 0
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """One optimizer step. `step` counts both experts from 1; `rate` is the mean learning rate; `seconds`
    are those of its own work, without the time it was parked.

    What the monitors measure is None where nobody watched, or where there is too little to measure yet.
    """

    step: int
    steps: int
    role: Role
    loss: float
    grad_norm: float
    rate: float
    seconds: float
    weight: float | None = None
    """Mean absolute value over all entries of all factors of the expert's adapters."""
    weight_growth: float | None = None
    """Of `weight` over the last fifth of the run, as a share: 0.05 is 5 %."""
    weight_ratio: float | None = None
    """The high-noise expert's weight over the low-noise one's, each after its own last step."""
    rate_ratio: float | None = None
    loss_mean: float | None = None
    """Over the expert's own last 100 steps, as `loss_std`."""
    loss_std: float | None = None


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The loss of one expert on clips that it is not trained on, with fixed noise and fixed sigmas; and on as many
    clips that it is trained on."""

    step: int
    role: Role
    loss: float
    trained: float


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    step: int
    files: dict[str, str]
    """Role to path."""
    effective_rank: dict[str, float] = field(default_factory=dict)
    """Role to how many directions its LoRA uses, where it does anything."""


@dataclass(frozen=True, kw_only=True)
class PreviewMade:
    """A clip sampled with the LoRAs as they are at `step`: number `number` of those, from 1. It begins like the
    dataset's clip `clip`, and follows `prompt`, or that clip's caption where there is none."""

    step: int
    file: str
    number: int = 1
    clip: str = ""
    prompt: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a person should know about the run, and at which step it was found."""

    step: int
    kind: Literal["note", "warning"]
    text: str
    rule: str = ""
    """The monitors' rule that found it."""


@dataclass(frozen=True, kw_only=True)
class VerdictGiven:
    """Which checkpoint of each expert to keep, in words; `keep` is role to step."""

    step: int
    keep: dict[str, int]
    text: str


@dataclass(frozen=True, kw_only=True)
class StateChanged:
    state: State
    step: int
    message: str = ""


Event = (
    ClipEncoded
    | StepDone
    | HeldOut
    | CheckpointSaved
    | PreviewMade
    | Finding
    | VerdictGiven
    | StateChanged
)
Listener = Callable[[Event], None]
