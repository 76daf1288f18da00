"""The states of a run, and which may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

State = Literal[
    "queued",
    "running",
    "parked",
    "paused",
    "stopping",
    "stopped",
    "done",
    "failed",
    "cut off",
]

TRANSITIONS: Mapping[State, tuple[State, ...]] = {
    # Waits for its turn behind other runs.
    "queued": ("running", "stopped", "failed", "cut off"),
    # Makes steps.
    "running": ("parked", "paused", "stopping", "done", "failed", "cut off"),
    # Has given the models back while a prompt needs them; goes on by itself.
    "parked": ("running", "paused", "stopping", "failed", "cut off"),
    # The same because a person asked; goes on when asked again.
    "paused": ("running", "parked", "stopping", "failed", "cut off"),
    # Ends its micro-batch and saves.
    "stopping": ("stopped", "done", "failed", "cut off"),
    # Over for now: the same run can be queued again and goes on where it was.
    "stopped": ("queued",),
    "failed": ("queued",),
    "cut off": ("queued",),
    # Over. Queued again only when somebody deleted its checkpoints.
    "done": ("queued",),
}
STATES: tuple[State, ...] = get_args(State)
LIVE: tuple[State, ...] = ("queued", "running", "parked", "paused", "stopping")
"""States that need a living process. On disk without one they read `cut off`."""


def require_transition(before: State, after: State) -> None:
    """Raises ValueError for a change that the table does not have: a mistake in the program, never a user's."""
    if after not in TRANSITIONS[before]:
        raise ValueError(f"a run that is {before} cannot become {after}")
