"""What lies on top of a picture and does not belong to it: bars at its sides, and logos in its corners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CORNERS = ("upper left", "upper right", "lower left", "lower right")
CORNER = 24
"""Pixels of a corner in the square thumbnail: a quarter of its side."""

# Limits, ours, in grey levels of 0-255. A row of a bar is flat, but for the traces of coding.
FLAT, SAME_BAR = 6.0, 4.0
DARK = 26.0  # black of video is 16
# Behind the bar's straight edge (coding blurs 2 pixels of it) the row is something else: a black background ends in no
# straight line. So it is along the whole edge, but for a dark part of the scene, and up to one of its ends at least: a
# thing that stands before a plain background has a margin at both.
EDGE_BLUR, EDGE_STEP, EDGE_SHARE = 2, 16.0, 1 / 2
EDGE_PARTS, EDGE_PARTS_SEEN, EDGE_END = 8, 7, 1 / 16
# Of the side: 2.39 in 4:3 is a bar of 0.22. Only an upright film in a lying one has more, at both sides the same.
MOST_DEPTH, MOST_TWIN_DEPTH, TWIN_PX = 0.25, 0.375, 2
# A logo is not moved; behind a moving camera nearly everything else is. Its outlines are clear.
LOGO_MOVES, REST_MOVES, REST_SHARE = 3.0, 6.0, 0.8
LOGO_OUTLINE, LOGO_PIXELS = 20.0, 6
LOGO_BESIDE = 3
"""Pixels beside the straightest of its lines: what is only a line is a post, a horizon, or the edge of a bar."""
# The same mark over different films: its outline has the same grey in this part of the clips, the rest has not.
MARK_CLIPS, MARK_SHARE, MARK_SAME = 3, 0.6, 8.0
MARK_REST = 0.6
MARK_BESIDE = 3
"""Of the 8 pixels around one of a mark so many are fixed, too: what agrees by chance lies scattered."""


class Bars(NamedTuple):
    """Pixels at each side that are a bar."""

    left: float = 0
    top: float = 0
    right: float = 0
    bottom: float = 0


def bars_of(grey: np.ndarray) -> Bars | None:
    """Bars in a picture (height, width) of 0-255; None where it has too little to see them against.

    A bar is dark, or has a bar of the same colour at the other side: pictures end in flat light areas,
    too, but not at both sides behind a straight edge.
    """
    if grey[:: max(1, len(grey) // 64)].std() < FLAT:
        return None
    turned = grey.T
    sides = _bar(turned), _bar(grey), _bar(turned[::-1]), _bar(grey[::-1])
    others = (*sides[2:], *sides[:2])
    if all(one.alike(other) and one.dark for one, other in zip(sides, others, strict=True)):
        # A picture within black: its edges end where the other bars begin.
        left, top, right, bottom = (side.depth for side in sides)
        inside = slice(top, len(grey) - bottom), slice(left, len(turned) - right)
        whole = [side.whole(inside[number % 2 == 1]) for number, side in enumerate(sides)]
    else:
        whole = [side.whole() for side in sides]
    found = zip(sides, others, whole, strict=True)
    return Bars(*(side.counted(other) if straight else 0 for side, other, straight in found))


class _Side(NamedTuple):
    """What a bar could be: its rows, its grey, the rows of the picture, and where along its edge something begins."""

    depth: int
    colour: float
    rows: int
    behind: np.ndarray

    @property
    def dark(self) -> bool:
        return self.colour <= DARK

    def alike(self, other: _Side) -> bool:
        both = self.depth > 0 and other.depth > 0
        return (
            both
            and abs(self.depth - other.depth) <= TWIN_PX
            and abs(self.colour - other.colour) <= SAME_BAR
        )

    def whole(self, part: slice = slice(None)) -> bool:
        """The edge is straight along all of this part of it."""
        edge = self.behind[part]
        if not self.depth or len(edge) < EDGE_PARTS:
            return False
        seen = [each.mean() >= EDGE_SHARE for each in np.array_split(edge, EDGE_PARTS)]
        end = max(1, round(EDGE_END * len(edge)))
        ends = max(edge[:end].mean(), edge[-end:].mean())
        return sum(seen) >= EDGE_PARTS_SEEN and ends >= EDGE_SHARE

    def counted(self, other: _Side) -> int:
        """The rows of the bar, given the other side of the picture; 0 where it is none."""
        twin = other.depth > 0 and abs(self.colour - other.colour) <= SAME_BAR
        most = (MOST_TWIN_DEPTH if self.alike(other) else MOST_DEPTH) * self.rows
        return self.depth if self.depth <= most and (self.dark or twin) else 0


def common_bars(found: Sequence[Bars | None]) -> Bars:
    """The bars that most of the frames of a clip have, as thin as the thinnest."""
    seen = [bars for bars in found if bars is not None]
    sides = list(zip(*seen, strict=True)) if seen else [()] * 4
    return Bars(*(_common([d for d in depths if d], len(depths)) for depths in sides))


def logo_corners(mean: np.ndarray, moved: np.ndarray) -> tuple[str, ...]:
    """Corners of thumbnails (their mean and standard deviation over time) with something that stands still
    while the camera moves. With a camera that stands, nothing can be said."""
    inside = np.ones(moved.shape, bool)
    boxes = dict(zip(CORNERS, _boxes(moved.shape), strict=True))
    for box in boxes.values():
        inside[box] = False
    if (moved[inside] > REST_MOVES).mean() < REST_SHARE:
        return ()
    outlines = _outlines(mean)
    return tuple(
        name
        for name, box in boxes.items()
        if _is_mark((moved[box] < LOGO_MOVES) & (outlines[box] > LOGO_OUTLINE))
        # A corner that is still as a whole is a part of the scene, or a bar.
        and (moved[box] > REST_MOVES).mean() > 1 / 3
    )


def shared_marks(corners: Sequence[np.ndarray], witnesses: Sequence[int]) -> dict[str, list[int]]:
    """Corners in which clips of different films have the same mark: the numbers of those clips.

    `corners` are (4, n, n) each, as `corners_of` gives them. `witnesses` are the numbers of clips that look different
    otherwise: of copies and clips of one shot only one says anything.
    """
    if len(witnesses) < MARK_CLIPS:
        return {}
    found = {}
    for at, name in enumerate(CORNERS):
        stack = np.stack([each[at] for each in corners]).astype(np.float32)
        typical = np.median(stack[witnesses], axis=0)
        same = np.abs(stack - typical) <= MARK_SAME
        fixed = same[witnesses].sum(axis=0) >= max(MARK_CLIPS, MARK_SHARE * len(witnesses))
        mark = fixed & (_beside(fixed) >= MARK_BESIDE) & (_outlines(typical) > LOGO_OUTLINE)
        if not _is_mark(mark) or fixed.mean() > MARK_REST:
            continue
        members = [n for n, each in enumerate(same) if each[mark].mean() >= 0.7]
        if len(set(members) & set(witnesses)) >= MARK_CLIPS:
            found[name] = members
    return found


def corners_of(mean: np.ndarray) -> np.ndarray:
    """(4, 24, 24) uint8 in the order of `CORNERS`."""
    return np.stack([np.clip(mean[box], 0, 255).astype(np.uint8) for box in _boxes(mean.shape)])


def inside_bars(bars: Bars, size: tuple[int, int], side: int) -> tuple[slice, slice]:
    """Rows and columns of a thumbnail of side x side without bars and their edges; all of it where they leave
    too little. `size` is the (width, height) in which the bars are counted."""
    low_x, high_x = (_thumb_px(bar, size[0], side) for bar in (bars.left, bars.right))
    low_y, high_y = (_thumb_px(bar, size[1], side) for bar in (bars.top, bars.bottom))
    if side - max(low_x + high_x, low_y + high_y) < 2 * CORNER:
        return slice(0, side), slice(0, side)
    return slice(low_y, side - high_y), slice(low_x, side - high_x)


def _thumb_px(bar: float, of: int, side: int) -> int:
    return -int(-bar * side // of) + EDGE_BLUR if bar else 0


def _boxes(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    top, left = slice(0, CORNER), slice(0, CORNER)
    bottom, right = slice(shape[0] - CORNER, shape[0]), slice(shape[1] - CORNER, shape[1])
    return [(top, left), (top, right), (bottom, left), (bottom, right)]


def _is_mark(outline: np.ndarray) -> bool:
    """Enough pixels of an outline, and not nearly all of them in one row or column."""
    straight = max(outline.sum(axis=0).max(), outline.sum(axis=1).max())
    return bool(outline.sum() >= LOGO_PIXELS and outline.sum() - straight >= LOGO_BESIDE)


def _beside(pixels: np.ndarray) -> np.ndarray:
    """Of the pixels around each, how many are set."""
    height, width = pixels.shape
    wide = np.pad(pixels, 1).astype(int)
    at = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return np.sum([wide[y : y + height, x : x + width] for y, x in at], axis=0)


def _outlines(picture: np.ndarray) -> np.ndarray:
    """The larger of the steps to the next pixel, down and to the right."""
    down = np.abs(np.diff(picture, axis=0, append=picture[-1:]))
    right = np.abs(np.diff(picture, axis=1, append=picture[:, -1:]))
    return np.maximum(down, right)


def _bar(grey: np.ndarray) -> _Side:
    """The flat rows at the top."""
    colour = float(grey[0].mean())
    depth = 0
    for row in grey[: len(grey) // 2]:
        if row.std() > FLAT or abs(row.mean() - colour) > SAME_BAR:
            break
        depth += 1
    edge = min(depth + EDGE_BLUR, len(grey) - 1)
    behind = np.abs(grey[edge].astype(np.float32) - colour) > EDGE_STEP
    return _Side(depth, colour, len(grey), behind)


def _common(depths: Sequence[float], frames: int) -> float:
    return min(depths) if len(depths) * 2 > frames else 0
