"""Parts of a noise schedule, by noise instead of by steps: `0-25%, 95-100%` or `sigma 1-0.9`."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from .errors import SettingsError

_NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"
_PART = re.compile(rf"(sigma)?{_NUMBER}-{_NUMBER}(%)?")


class Window(NamedTuple):
    """From its beginning, which is the noisier end and belongs to it, to its end."""

    begin: float
    end: float
    percent: bool
    """0 to 100 of a schedule without a shift; otherwise sigmas, 1 to 0."""

    def holds(self, sigma: float, shift: float) -> bool:
        """Whether a call at this sigma, of a schedule with this shift, lies in it."""
        begin, end = (_sigma(p, shift) for p in self[:2]) if self.percent else self[:2]
        # From pure noise on: samplers that go through logarithms may come out a little above it.
        return end < sigma <= (math.inf if begin >= 1 else begin)


def parse_windows(text: str) -> tuple[Window, ...]:
    """The parts of a list; none of an empty text. Raises `SettingsError` for what is no such list."""
    return tuple(_window(part.strip()) for part in text.split(",") if part.strip())


def _window(text: str) -> Window:
    match = _PART.fullmatch(text)
    if match is None or bool(match[1]) == bool(match[4]):
        raise SettingsError(
            f"dense_window has {text!r}; it is a list such as 0-25%, 95-100% or sigma 1-0.9"
        )
    window = Window(float(match[2]), float(match[3]), percent=bool(match[4]))
    begin, end = window.begin, window.end
    if not (0 <= begin < end <= 100 if window.percent else 1 >= begin > end >= 0):
        raise SettingsError(
            f"dense_window has {text!r}; a percentage rises from 0 to 100, a sigma falls from 1 to 0"
        )
    return window


def _sigma(percent: float, shift: float) -> float:
    """Of a place in the schedule (Esser et al. 2024, arXiv 2403.03206, equation 23)."""
    u = 1 - percent / 100
    return shift * u / (1 + (shift - 1) * u)
