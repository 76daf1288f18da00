"""What a run tells while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..wan.families import Role


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """One optimizer step. `step` counts both experts from 1; `rate` is the mean learning rate."""

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
class StateChanged:
    state: str
    step: int
    message: str = ""


Event = StepDone | CheckpointSaved | StateChanged
Listener = Callable[[Event], None]
