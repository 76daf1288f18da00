"""How far the encoding of a dataset is, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..events import ClipEncoded, Listener

TELL_EVERY_S = 0.5
"""Clips that are in the cache come by hundreds a second: nobody reads each."""


class EncodingProgress:
    """Tells `ClipEncoded` of `total` clips. First each is looked for, then those that are missing are made."""

    def __init__(
        self, total: int, listen: Listener | None, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._listen, self._now = total, listen, now
        self._cached = self._made = 0
        self._work_left = self._work_done = self._seconds = 0.0
        self._told = float("-inf")

    def found(self, name: str) -> None:
        """One is in the cache."""
        self._cached += 1
        if self._cached == self._total or self._now() - self._told >= TELL_EVERY_S:
            self._tell(name)

    def missing(self, work: float) -> None:
        """One must be made. `work` is in any unit that encoding time grows with, such as pixels."""
        self._work_left += work

    def made(self, name: str, work: float, seconds: float) -> None:
        """One has been made in so much time of its own."""
        self._made += 1
        self._work_left -= work
        self._work_done += work
        self._seconds += seconds
        self._tell(name)

    def summary(self) -> str:
        """What came of it, when all is done."""
        if not self._cached:
            return f"{self._made} clips were encoded; the next run over them begins at once."
        return (
            f"{self._cached} of {self._total} clips came from the cache, {self._made} encoded now."
        )

    def _tell(self, name: str) -> None:
        self._told = self._now()
        left = None
        if self._work_done:
            left = max(0.0, self._seconds / self._work_done * self._work_left)
        done = self._cached + self._made
        if self._listen:
            self._listen(
                ClipEncoded(
                    name=name,
                    done=done,
                    total=self._total,
                    cached=self._cached,
                    seconds_left=left,
                )
            )
