"""Gathers what is measured of one part of a film, frame by frame: numbers, hashes and a small strip of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...wan.video import TIMESTAMP_S, UNEVEN_GAP
from .borders import Bars, common_bars, corners_of, inside_bars, logo_corners
from .clip_look import ClipLook, Span
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
# A rate that was raised repeats at even distances, which a rounding makes one longer here and there; a picture that
# stands for moments does not.
LEAST_DISTANCES, EVEN_SHARE = 3, 0.85
GIF_S = 0.0101
"""GIF rounds times to hundredths of a second."""
LONG_S = 0.5
"""What is shown for longer before the next frame, or after the one before, is a picture that stands."""


class Shown(NamedTuple):
    """When a frame is shown: its own time, and the times between which it is the nearest one."""

    time_s: float
    since_s: float
    until_s: float


class Watch:
    """Gathers what belongs to one span; keeps no frame but the last and the one that stands."""

    def __init__(self, span: Span, is_gif: bool) -> None:
        self._span, self._is_gif = span, is_gif
        self._times: list[float] = []
        self._jumps: list[tuple[float, float]] = []
        self._changes: list[float] = []
        self._blanks: list[bool] = []
        self._darks: list[bool] = []
        self._sum = np.zeros((SIDE, SIDE))
        self._squares = np.zeros((SIDE, SIDE))
        self._still_s, self._anchor, self._anchor_s = 0.0, np.zeros((SIDE, SIDE, 3)), 0.0
        self._shown_to_s = span.first_s
        self._last: SeenFrame | None = None
        self._hashes: list[np.ndarray] = []
        self._tints: list[np.ndarray] = []
        self._bars: list[Bars | None] = []
        self._pictures: list[Image.Image] = []

    def see(self, shown: Shown, seen: SeenFrame) -> None:
        """Frames in their order, from the one that stands at the span's beginning to the one at its end."""
        luma, colours = seen.luma, seen.colours
        dark = bool(luma.mean() < BLACK_MEAN and np.percentile(luma, 99) < BLACK_PEAK)
        blocks = blocks_of(colours)
        blank = dark or bool(np.abs(blocks - blocks.mean(axis=(0, 1))).max() < BLANK_CONTRAST)
        if self._last is not None:
            self._compare(seen, self._last)
        self._stand(colours, shown, blank)
        self._darks.append(dark)
        self._blanks.append(blank)
        self._sum += luma
        self._squares += luma**2
        self._times.append(shown.time_s)
        self._last = seen
        while len(self._hashes) < self._samples_due(shown.until_s):
            self._sample(seen)

    def look(self, usual_fps: float) -> ClipLook:
        """What was measured, of at least one frame. `usual_fps` is the file's, where these are too few to tell."""
        assert self._last is not None
        width, height = self._last.size
        count, picture = len(self._times), self._span.first_s == self._span.last_s
        if count > 1:
            self._sample(self._last)
        mean = self._sum / count
        moved = np.sqrt(np.maximum(0, self._squares / count - mean**2))
        bars = common_bars(self._bars)
        inside = inside_bars(bars, (width, height), SIDE)
        blank = sum(self._blanks)
        fps, uneven = _rate(self._times, usual_fps, self._is_gif)
        return ClipLook(
            width=width,
            height=height,
            fps=0.0 if picture else fps,
            distinct_fps=0.0 if picture else fps * (1 - _repeated(self._changes)),
            uneven=0.0 if picture else uneven,
            seconds=0.0 if picture else self._length_s() + 1 / fps,
            frames=count,
            still_s=self._still_s,
            cuts_s=tuple(self._times[at] - self._span.first_s for at in self._cuts()),
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

    def _samples_due(self, until_s: float) -> int:
        """The last one is taken at the end."""
        first_s, last_s = self._span
        if last_s == first_s:
            return 1
        passed = (until_s - first_s) / (last_s - first_s)
        return min(SAMPLES - 1, 1 + int(passed * (SAMPLES - 1)))

    def _length_s(self) -> float:
        """From the first frame to the last; where one stands, to the end of the span."""
        begin_s = max(self._times[0], self._span.first_s)
        return max(self._shown_to_s, self._times[-1]) - begin_s

    def _compare(self, seen: SeenFrame, before: SeenFrame) -> None:
        change = float(np.abs(seen.luma - before.luma).mean())
        contrast = max(LEAST_CONTRAST, float(seen.luma.std() + before.luma.std()) / 2)
        self._jumps.append((change, change / contrast))
        self._changes.append(_most_changed(seen.colours, before.colours))

    def _stand(self, colours: np.ndarray, shown: Shown, blank: bool) -> None:
        time_s, first_s, last_s = shown.time_s, *self._span
        begin_s = max(first_s, shown.since_s if time_s - shown.since_s > LONG_S else time_s)
        stands = shown.until_s - time_s > LONG_S
        self._shown_to_s = min(last_s, shown.until_s) if stands else time_s
        # What stands in black is a fault of its own.
        if not self._times or blank or _most_changed(colours, self._anchor) >= STILL:
            self._anchor, self._anchor_s = colours, begin_s
        if not blank:
            self._still_s = max(self._still_s, self._shown_to_s - self._anchor_s)

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
    """The part of frames that repeat the one before in an even pattern, as in films whose rate was raised, where the
    picture moves: between two clear changes."""
    moves: list[int] = []
    repeats: list[int] = []
    run = MOST_REPEATS + 1
    for at, change in enumerate(changes):
        if change < REPEAT:
            run += 1
        elif change < STILL:
            run = MOST_REPEATS + 1  # Nearly nothing moves: what it repeats cannot be told.
        else:
            repeats += range(at - run, at) if run <= MOST_REPEATS else ()
            moves.append(at)
            run = 0
    rare = min(repeats, moves, key=len)
    regular = len(moves) >= LEAST_MOVES and _is_even(rare)
    return len(repeats) / (len(repeats) + len(moves)) if regular else 0.0


def _is_even(places: Sequence[int]) -> bool:
    """The distances between them are nearly all the same, or that and one more."""
    distances = np.diff(places)
    if len(distances) < LEAST_DISTANCES:
        return False
    counts = np.bincount(distances)
    return bool((counts + np.append(counts[1:], 0)).max() >= EVEN_SHARE * len(distances))


def _five(samples: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([*samples, *[samples[-1]] * (SAMPLES - len(samples))])


def _leading(flags: Sequence[bool]) -> int:
    return next((at for at, flag in enumerate(flags) if not flag), len(flags))


def _rate(times: Sequence[float], usual_fps: float, is_gif: bool) -> tuple[float, float]:
    """Frames per second by the time stamps where the picture moves, and the part of intervals that are uneven."""
    steps = np.array([b - a for a, b in pairwise(times)])
    if len(steps) < SAMPLES or times[-1] <= times[0]:
        return usual_fps, 0.0
    usual = float(np.median(steps))
    moving = steps[steps <= (MOST_REPEATS + 1.5) * usual]
    off = np.abs(steps - usual) > max(UNEVEN_GAP * usual, GIF_S if is_gif else TIMESTAMP_S)
    # One frame alone that is dropped or stands makes no variable rate, however short the part.
    uneven = float(off.mean()) if off.sum() > 1 else 0.0
    return len(moving) / float(moving.sum()), uneven
