"""What people ask of a run, joined with when its surroundings let it work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, Protocol

from ..wan.errors import UserError
from .states import LIVE, State
from .turns import RunStopped, Turns

Wish = Literal["", "pause", "stop"]


class Gate(Protocol):
    """Lets a run in while nobody else needs what it shares with them."""

    def is_open(self) -> bool: ...

    def enter(self, give_up: Callable[[], bool]) -> bool:
        """Waits until the gate is open and goes in; False as soon as `give_up()` says so."""
        ...

    def leave(self) -> None:
        """Goes out; harmless outside."""
        ...

    def rest(self, until: Callable[[], bool]) -> None:
        """Waits outside until `until()` holds; looked at again after each `wake`."""
        ...

    def wake(self) -> None:
        """Has `enter` and `rest` look again."""
        ...

    def interrupted(self) -> None:
        """An interrupt of the host's was caught by the run, for which it never is."""
        ...


class Control(Turns):
    """The turns of a run that can be paused, resumed and stopped from any thread."""

    def __init__(
        self,
        gate: Gate,
        state: Callable[[], State],
        say: Callable[[State, str], None],
        interrupts: tuple[type[BaseException], ...] = (),
    ) -> None:
        self.interrupts = interrupts
        self.why = ""
        """What the state says once the run has stopped."""
        self._gate, self._state, self._say = gate, state, say
        self._lock = threading.RLock()
        self._wish: Wish = ""

    @property
    def wish(self) -> Wish:
        """What was asked and is not yet so."""
        state = self._state()
        fulfilled = state not in LIVE or (self._wish == "pause" and state == "paused")
        return "" if fulfilled else self._wish

    def pause(self) -> None:
        """Gives the models back after the current piece of work, until `resume`."""
        with self._lock:
            self._require("pause", "running", "parked", "paused")
            self._wish = "pause"
        self._gate.wake()

    def resume(self) -> None:
        """Takes a pause back."""
        with self._lock:
            self._require("resume", "paused", "running", "parked")
            self._wish = ""
        self._gate.wake()

    def stop(self, why: str = "") -> None:
        """Ends the run after the current piece of work and saves it."""
        try:
            with self._lock:
                self._require("stop", *LIVE)
                if self._wish != "stop":
                    self._wish, self.why = "stop", why
                    if self._state() in ("running", "parked", "paused"):
                        self._say("stopping", why)
        finally:
            self._gate.wake()

    def end(self, state: State, message: str) -> None:
        """The run is over; from here nothing can be asked of it."""
        with self._lock:
            self.why = message or self.why
            self._say(state, message)

    def over(self) -> bool:
        return self._wish != "" or not self._gate.is_open()

    def wait(self) -> None:
        self._gate.leave()
        while True:
            with self._lock:
                if self._wish == "stop":
                    raise RunStopped
                self._become("paused" if self._wish == "pause" else "parked")
            if self._wish == "pause":
                self._gate.rest(lambda: self._wish != "pause")
            elif self._gate.enter(lambda: self._wish != ""):
                break
        with self._lock:
            if self._wish == "stop":
                self._gate.leave()
                raise RunStopped
            self._become("running")

    def leave(self) -> None:
        self._gate.leave()

    def interrupted(self) -> None:
        self._gate.interrupted()

    def _become(self, state: State) -> None:
        before = self._state()
        # A run that was never let in still waits for its turn.
        if before != state and not (before == "queued" and state == "parked"):
            self._say(state, "")

    def _require(self, what: str, *states: State) -> None:
        if self._state() not in states:
            raise UserError(
                f"The run is {self._state()}, so there is nothing to {what}.",
                f"It can be done while a run is {', '.join(states)}.",
                "Queue its workflow again: it goes on where it was."
                if what == "resume"
                else "Look at the list of runs.",
            )
