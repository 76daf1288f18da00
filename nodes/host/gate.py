"""Keeps training and everything else that ComfyUI does apart: one of them at a time touches the models.

The training thread is either inside the gate, where it may use the host's models, or outside. Whoever else needs
them closes the gate and waits until nobody is inside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management as host

LINGER_S = 0.3
"""How long the gate must have been open before training goes on: prompts often come one after another, and
each change of hands may move whole models."""
TAKEN_S = 0.02
"""How long training leaves an interrupt alone, for the prompt that it was meant for."""


class HostGate:
    """`training.control.Gate` between the training thread and ComfyUI's prompt worker."""

    def __init__(self, linger_s: float = LINGER_S) -> None:
        self._changed = threading.Condition()
        self._linger_s = linger_s
        self._closed_by: set[str] = set()
        self._lent = 0
        self._inside = False
        self._open_since = 0.0

    # For ComfyUI's side.

    def close(self, who: str) -> None:
        """Asks whoever is inside to come out; does not wait for it."""
        with self._changed:
            self._closed_by.add(who)
            self._changed.notify_all()

    def wait_until_empty(self) -> None:
        """Returns when nobody is inside; after `close`, nobody will be until `open`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._inside)

    def open(self, who: str) -> None:
        """Takes `close` back."""
        with self._changed:
            self._closed_by.discard(who)
            if not self._closed_by:
                self._open_since = time.monotonic()
            self._changed.notify_all()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """While entered, training may work although a prompt runs: its node does nothing but wait for it."""
        with self._changed:
            self._lent += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._lent -= 1
                self._changed.wait_for(lambda: self._lent > 0 or not self._inside)

    # For training's side.

    def is_open(self) -> bool:
        return self._lent > 0 or not self._closed_by

    def enter(self, give_up: Callable[[], bool]) -> bool:
        with self._changed:
            while not give_up():
                if not self.is_open():
                    self._changed.wait()
                    continue
                left = self._open_since + self._linger_s - time.monotonic()
                if self._lent or left <= 0:
                    self._inside = True
                    return True
                self._changed.wait(left)
        return False

    def leave(self) -> None:
        with self._changed:
            self._inside = False
            self._changed.notify_all()

    def rest(self, until: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(until)

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def interrupted(self) -> None:
        """The host has one flag for everybody, and whoever meets it first clears it. If a prompt runs or waits,
        it was meant for that one and is set again; otherwise it was meant for nobody."""
        with self._changed:
            prompt = bool(self._closed_by)
        if prompt:
            host.interrupt_current_processing(True)
            time.sleep(TAKEN_S)
