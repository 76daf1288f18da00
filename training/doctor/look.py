"""What can be measured of clips in one decoding of their file: numbers, hashes and a small strip of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from ...wan.film import Film, undecodable
from ...wan.video import TIMESTAMP_S, UNEVEN_GAP
from .borders import Bars, common_bars, corners_of, inside_bars, logo_corners
from .frames import SIDE, SeenFrame, blocks_of, strip_of

SAMPLES = 5
"""Frames of a clip that are hashed, and looked at in full size for bars: evenly spread, both ends among them."""

# Limits, ours, in grey levels of 0-255 between thumbnails, as the largest mean over a block of 8x8 of its pixels.
# A still picture coded by H.264 at crf 18-38 differs by up to 0.9 from frame to frame, a frame that a film repeats by
# up to 0.5, and two successive frames of slow motion (bigbuckbunny) by at least 2.1.
REPEAT = 1.0
# Over longer, against the frame at which it began to stand: coding drifts by up to 1.8, and motion adds up.
STILL = 3.0
# A cut changes the picture by this part of its contrast, and this many times more than any of the 3 frames
# before and after: the five cuts of `bikes` have at least 1.1 and 2.5, all other frames of three films at most
# 0.6 and 1.4. Flashes of up to 3 frames have another jump near, and so are none.
CUT_CHANGE, CUT_RATIO, CUT_REACH = 0.4, 2.0, 3
LEAST_CONTRAST = 8.0
# A frame of one colour, and a black one: film black with its grain.
BLANK_CONTRAST, BLACK_MEAN, BLACK_PEAK = 3.0, 12.0, 32.0
# Repeats in a row of up to 3 frames come from a lower rate; longer ones are a picture that stands.
MOST_REPEATS, LEAST_MOVES = 3, 8
GIF_S = 0.0101
"""GIF rounds times to hundredths of a second."""


class Span(NamedTuple):
    """The part of a file to look at: times of its first and last frame, counted from the file's first."""

    first_s: float
    last_s: float


@dataclass(frozen=True, kw_only=True)
class ClipLook:
    """What was measured of one clip."""

    width: int
    height: int
    """As a player shows it: square pixels, upright."""
    fps: float
    """Frames per second of the file; 0 for a picture."""
    distinct_fps: float
    """The same without frames that only repeat the one before, as films have whose rate was raised."""
    uneven: float
    """The part of the file's intervals that differ from the usual one."""
    seconds: float
    frames: int
    """Frames of the file within the clip."""
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


def look_at_file(path: Path, spans: Sequence[Span]) -> list[ClipLook]:
    """Measures parts of a file, which is decoded once and no further than the last of them needs.

    Raises `UserError` when it cannot be decoded, or ends before a part begins.
    """
    watches = [_Watch(span) for span in spans]
    first, last = min(span.first_s for span in spans), max(span.last_s for span in spans)
    reformatter, times = VideoReformatter(), []
    with Film(path) as film:
        half = 0.5 / film.rate if film.rate else 0.5
        for seconds, frame in film.frames(max(0.0, first - 2 * half)):
            if seconds > last + half:
                break
            times.append(seconds)
            seen = SeenFrame(frame, reformatter, film.pixel_aspect)
            for watch in watches:
                watch.see(seconds, seen, half)
        stated = film.rate
    if not all(watch.times for watch in watches):
        raise undecodable(path, "it ends before the clip begins")
    fps, uneven = _rate(times, stated, path.suffix.lower() == ".gif")
    return [watch.look(fps, uneven) for watch in watches]


class _Watch:
    """Gathers what belongs to one span, frame by frame; keeps no frame but the last and the one that stands."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.times: list[float] = []
        self._jumps: list[tuple[float, float]] = []
        self._changes: list[float] = []
        self._blanks: list[bool] = []
        self._darks: list[bool] = []
        self._sum = np.zeros((SIDE, SIDE))
        self._squares = np.zeros((SIDE, SIDE))
        self._still_s, self._anchor, self._anchor_s = 0.0, np.zeros((SIDE, SIDE, 3)), 0.0
        self._last: SeenFrame | None = None
        self._hashes: list[np.ndarray] = []
        self._tints: list[np.ndarray] = []
        self._bars: list[Bars | None] = []
        self._pictures: list[Image.Image] = []

    def see(self, seconds: float, seen: SeenFrame, half: float) -> None:
        """`half` of a frame: the clip's first frame is the one nearest to its time."""
        if not self._span.first_s - half < seconds <= self._span.last_s + half:
            return
        luma, colours = seen.luma, seen.colours
        dark = bool(luma.mean() < BLACK_MEAN and np.percentile(luma, 99) < BLACK_PEAK)
        blocks = blocks_of(colours)
        blank = dark or bool(np.abs(blocks - blocks.mean(axis=(0, 1))).max() < BLANK_CONTRAST)
        if self._last is not None:
            self._compare(seen, self._last)
        self._stand(colours, seconds, blank)
        self._darks.append(dark)
        self._blanks.append(blank)
        self._sum += luma
        self._squares += luma**2
        self.times.append(seconds)
        self._last = seen
        length = self._span.last_s - self._span.first_s
        due = self._span.first_s + length * len(self._hashes) / (SAMPLES - 1) - half
        if seconds >= due and len(self._hashes) < SAMPLES - 1:
            self._sample(seen)

    def look(self, fps: float, uneven: float) -> ClipLook:
        assert self._last is not None
        width, height = self._last.size
        count = len(self.times)
        if count > 1:
            self._sample(self._last)
        picture = count == 1
        mean = self._sum / count
        moved = np.sqrt(np.maximum(0, self._squares / count - mean**2))
        bars = common_bars(self._bars)
        inside = inside_bars(bars, (width, height), SIDE)
        blank = sum(self._blanks)
        rate = 0.0 if picture else fps
        return ClipLook(
            width=width,
            height=height,
            fps=rate,
            distinct_fps=rate * (1 - _repeated(self._changes)),
            uneven=0.0 if picture else uneven,
            seconds=0.0 if picture else self.times[-1] - self.times[0] + 1 / fps,
            frames=count,
            still_s=self._still_s,
            cuts_s=tuple(self.times[at] - self.times[0] for at in self._cuts()),
            blank=blank,
            blank_head=_leading(self._blanks),
            blank_tail=_leading(self._blanks[::-1]),
            black=sum(self._darks) * 2 > blank,
            bars=bars,
            logos=() if picture else logo_corners(mean[inside], moved[inside]),
            hashes=_five(self._hashes),
            tints=_five(self._tints),
            corners=corners_of(mean[inside]),
            strip=strip_of(self._pictures),
        )

    def _compare(self, seen: SeenFrame, before: SeenFrame) -> None:
        change = float(np.abs(seen.luma - before.luma).mean())
        contrast = max(LEAST_CONTRAST, float(seen.luma.std() + before.luma.std()) / 2)
        self._jumps.append((change, change / contrast))
        self._changes.append(_most_changed(seen.colours, before.colours))

    def _stand(self, colours: np.ndarray, seconds: float, blank: bool) -> None:
        # What stands in black is a fault of its own.
        if self.times and not blank and _most_changed(colours, self._anchor) < STILL:
            self._still_s = max(self._still_s, seconds - self._anchor_s)
        else:
            self._anchor, self._anchor_s = colours, seconds

    def _cuts(self) -> list[int]:
        """Numbers of the frames with which a scene begins; what begins in black is no scene."""
        found, jumps = [], self._jumps  # jumps[i] is between frames i and i + 1
        for at, (change, relative) in enumerate(jumps):
            near = [*jumps[max(0, at - CUT_REACH) : at], *jumps[at + 1 : at + 1 + CUT_REACH]]
            most = max((each for each, _ in near), default=change)
            blank = self._blanks[at] or self._blanks[at + 1]
            if relative >= CUT_CHANGE and change >= CUT_RATIO * most and not blank:
                found.append(at + 1)
        return found

    def _sample(self, seen: SeenFrame) -> None:
        # Imported late: it brings SciPy, whose start would count as the host's.
        import imagehash

        grey = Image.fromarray(np.clip(seen.luma, 0, 255).astype(np.uint8))
        self._hashes.append(np.asarray(imagehash.phash(grey).hash).reshape(-1))
        self._tints.append(np.clip(blocks_of(seen.colours), 0, 255).astype(np.uint8))
        self._bars.append(seen.bars())
        self._pictures.append(seen.small())


def _most_changed(a: np.ndarray, b: np.ndarray) -> float:
    return float(blocks_of(np.abs(a - b)).max())


def _repeated(changes: Sequence[float]) -> float:
    """The part of frames that repeat the one before, where the picture moves: between two clear changes."""
    moves, few, run = 0, 0, MOST_REPEATS + 1
    for change in changes:
        if change < REPEAT:
            run += 1
        elif change < STILL:
            run = MOST_REPEATS + 1  # Nearly nothing moves: what it repeats cannot be told.
        else:
            few += run if run <= MOST_REPEATS else 0
            moves, run = moves + 1, 0
    return few / (few + moves) if moves >= LEAST_MOVES else 0.0


def _five(samples: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([*samples, *[samples[-1]] * (SAMPLES - len(samples))])


def _leading(flags: Sequence[bool]) -> int:
    return next((at for at, flag in enumerate(flags) if not flag), len(flags))


def _rate(times: Sequence[float], stated: float, is_gif: bool) -> tuple[float, float]:
    """Frames per second by the time stamps, and the part of intervals that are uneven."""
    steps = np.array([b - a for a, b in pairwise(times)])
    if len(steps) < SAMPLES or times[-1] <= times[0]:
        return stated or 1.0, 0.0
    usual = float(np.median(steps))
    off = np.abs(steps - usual) > max(UNEVEN_GAP * usual, GIF_S if is_gif else TIMESTAMP_S)
    return len(steps) / (times[-1] - times[0]), float(off.mean())
