"""Sizes as Wan takes them, and the folder that stands for one that is not known."""

from __future__ import annotations

from ...wan.errors import UserError
from ...wan.shapes import FRAMES_PER_CELL, PIXELS_PER_TOKEN
from .keys import Keys

PLACEHOLDER = "/path/to/clips/"
"""No folder of a dataset ends in a slash, so that one of this name is told from it."""


def multiple_of_16(pixels: float) -> int:
    """The nearest side that Wan takes."""
    return max(PIXELS_PER_TOKEN, round(pixels / PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN)


def four_k_plus_1(frames: int) -> int:
    """The longest clip that Wan takes within so many frames."""
    return max(1, (frames - 1) // FRAMES_PER_CELL * FRAMES_PER_CELL + 1)


def side(keys: Keys, key: str, value: object) -> int:
    """A side in pixels, or a number of frames: 1 to 16,384."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 16_384:
        raise UserError(
            f"{key} in {keys.where} holds {value!r:.60}.",
            "It is a whole number of pixels or frames, up to 16,384.",
            f"Correct {key}, for example [832, 480].",
        )
    return int(value)
