"""What was measured of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .borders import Bars


class Span(NamedTuple):
    """The part of a file to look at: times of its first and last frame, counted from the file's first."""

    first_s: float
    last_s: float


SAME_RATE = 0.95
"""What has this part of a rate counts as it: of a film of 24 fps in 25, each 25th frame is repeated."""


@dataclass(frozen=True, kw_only=True)
class ClipLook:
    """What was measured of one clip."""

    width: int
    height: int
    """As a player shows it: square pixels, upright."""
    fps: float
    """Frames per second of the file in this part of it, where it moves; 0 for a picture."""
    distinct_fps: float
    """The same without frames that repeat the one before at even distances, as in films whose rate was raised."""
    uneven: float
    """The part of its intervals that differ from the usual one."""
    seconds: float
    frames: int
    """Frames of the file that are shown within the clip."""
    still_s: float
    """The longest time in which nothing moves."""
    cuts_s: tuple[float, ...]
    """Where the scene changes, from the clip's beginning."""
    blank: int
    """Frames that are black or of one colour."""
    blank_head: int
    """Of those, in a row at the beginning, and at the end."""
    blank_tail: int
    black: bool
    """The blank frames are black."""
    bars: Bars
    """Pixels of one-coloured bars at the left, top, right and bottom."""
    logos: tuple[str, ...]
    """Corners in which something stands still while everything else moves."""
    hashes: np.ndarray
    """(5, 64) bool: perceptual hashes of the samples."""
    tints: np.ndarray
    """(5, 12, 12, 3) uint8: the samples as coarse pictures in colour, which the hashes are blind to."""
    corners: np.ndarray
    """(4, 24, 24) uint8: the clip's mean thumbnail in its corners."""
    strip: bytes
    """JPEG: first, middle and last frame side by side; a picture once."""
    file_s: float = 0.0
    """How long the whole file lasts; by its header where it was not read to its end."""
    missing_s: float = 0.0
    """By how much a file that was read to its end is shorter than its header says."""

    @property
    def is_picture(self) -> bool:
        return self.fps == 0

    @property
    def told_fps(self) -> float:
        """The rate that is judged and told: the file's own, unless many of its frames are repeated."""
        return self.fps if self.distinct_fps >= SAME_RATE * self.fps else self.distinct_fps
