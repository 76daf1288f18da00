"""What a run tells while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..wan.families import Role
from .states import State


@dataclass(frozen=True, kw_only=True)
class ClipEncoded:
    """One clip in one view is latents and conditioning now: `done` (from 1) of `total`, `cached` of them from
    the cache. `seconds_left` for the rest, where it can be told yet."""

    name: str
    done: int
    total: int
    cached: int = 0
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """One optimizer step. `step` counts both experts from 1; `rate` is the mean learning rate; `seconds`
    are those of its own work, without the time it was parked."""

    step: int
    steps: int
    role: Role
    loss: float
    grad_norm: float
    rate: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    step: int
    files: dict[str, str]
    """Role to path."""


@dataclass(frozen=True, kw_only=True)
class PreviewMade:
    """A clip sampled with the LoRAs as they are at `step`."""

    step: int
    file: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a person should know about the run, and at which step it was found."""

    step: int
    kind: Literal["note", "warning"]
    text: str


@dataclass(frozen=True, kw_only=True)
class StateChanged:
    state: State
    step: int
    message: str = ""


Event = ClipEncoded | StepDone | CheckpointSaved | PreviewMade | Finding | StateChanged
Listener = Callable[[Event], None]
