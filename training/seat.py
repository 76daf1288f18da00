"""Which expert is in use, and what is given back when the run's turn is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Literal, Protocol, TypeVar

import torch

from ..wan.expert import Expert
from ..wan.families import Role
from .turns import Turns, in_turn

GiveBack = Literal["offload", "keep", "free"]
"""offload: adapters and optimizer, which the host's memory manager cannot move, leave the device.
keep: everything stays. free: the experts' weights leave it as well."""
T = TypeVar("T")


class Trained(Protocol):
    """What sits on the device for an expert in training."""

    expert: Expert

    def to(self, device: torch.device) -> None: ...


class Seat:
    """Holds at most one expert in use; gives it up between two pieces of work when the turn is over."""

    def __init__(
        self, trainers: Mapping[Role, Trained], turns: Turns, give_back: GiveBack = "keep"
    ) -> None:
        self.seconds = 0.0
        """Time of the work itself: without waiting and without bringing weights."""
        self._trainers, self._turns, self._give_back = trainers, turns, give_back
        self._resident = ExitStack()
        self._expert: Expert | None = None
        self._away = False

    def __enter__(self) -> Seat:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def work(self, expert: Expert, piece: Callable[[], T]) -> T:
        """Does a whole piece of work with `expert` in use."""

        def seated() -> T:
            self._take(expert)
            began = time.perf_counter()
            result = piece()
            self.seconds += time.perf_counter() - began
            return result

        return in_turn(self._turns, seated, self._vacate)

    def aside(self, piece: Callable[[], T]) -> T:
        """Does a whole piece of work that needs another network: no expert is in use meanwhile."""
        self.leave()
        return in_turn(self._turns, piece, self._vacate)

    def _take(self, expert: Expert) -> None:
        if self._expert is expert:
            return
        self.leave()
        if self._away:
            self._away = False
            for trainer in self._trainers.values():
                trainer.to(trainer.expert.device)
        self._resident.enter_context(expert.in_use())
        self._expert = expert

    def leave(self) -> None:
        """Nobody is in use; the next piece of work brings its expert again."""
        self._expert = None
        self._resident.close()

    def _vacate(self) -> None:
        self.leave()
        if self._give_back == "keep" or self._away:
            return
        self._away = True
        for trainer in self._trainers.values():
            trainer.to(torch.device("cpu"))
        if self._give_back == "free":
            for trainer in self._trainers.values():
                trainer.expert.unload()
