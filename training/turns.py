"""Whose turn it is: a run gives its models back between two pieces of work when somebody else needs them.

A piece of work is a micro-batch, a sampler step of a preview or the encoding of a clip. It is done whole or
not at all, so what it computes does not depend on who came between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class RunStopped(Exception):  # noqa: N818 - it is no error
    """The run was asked to end before its plan does; what it has is saved."""


class Turns:
    """The turns of a run that shares its models with nobody: always its own."""

    interrupts: tuple[type[BaseException], ...] = ()
    """Exceptions by which a host cancels somebody else's work within ours: the piece is done again."""

    def over(self) -> bool:
        """Must the models be given back before the next piece of work?"""
        return False

    def wait(self) -> None:
        """Called with the models given back; returns when the run may take them. Raises `RunStopped`."""

    def leave(self) -> None:
        """The models are given back and not needed any more."""

    def stop(self, why: str = "") -> None:
        """The run ends itself: what its state is to say of it."""

    def interrupted(self) -> None:
        """One of `interrupts` hit a piece of work."""


def in_turn(
    turns: Turns, work: Callable[[], T], give_back: Callable[[], object] = lambda: None
) -> T:
    """Does a whole piece of work in the run's own turn, from the beginning if it was interrupted."""
    while True:
        if turns.over():
            give_back()
            turns.wait()
        try:
            return work()
        except turns.interrupts:
            turns.interrupted()
