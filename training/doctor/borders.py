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
# Behind the bar's straight edge (coding blurs 2 pixels of it) much of the row must be something else: a black
# background ends in no straight line.
EDGE_BLUR, EDGE_STEP, EDGE_SHARE = 2, 16.0, 1 / 3
# A logo is not moved; behind a moving camera nearly everything else is. Its outlines are clear.
LOGO_MOVES, REST_MOVES, REST_SHARE = 3.0, 6.0, 0.8
LOGO_OUTLINE, LOGO_PIXELS = 20.0, 6
# The same mark over different films: its outline has the same grey in this part of the clips, the rest has not.
MARK_CLIPS, MARK_SHARE, MARK_SAME = 4, 0.6, 8.0
MARK_REST = 0.6


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
    sides = {
        "left": _bar(grey.T),
        "top": _bar(grey),
        "right": _bar(grey.T[::-1]),
        "bottom": _bar(grey[::-1]),
    }
    kept = {}
    for side, other in (("left", "right"), ("top", "bottom"), ("right", "left"), ("bottom", "top")):
        (depth, colour), (depth_there, colour_there) = sides[side], sides[other]
        twin = depth_there > 0 and abs(colour - colour_there) <= SAME_BAR
        kept[side] = depth if colour <= DARK or twin else 0
    return Bars(**kept)


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
        if ((moved[box] < LOGO_MOVES) & (outlines[box] > LOGO_OUTLINE)).sum() >= LOGO_PIXELS
        # A corner that is still as a whole is a part of the scene, or a bar.
        and (moved[box] > REST_MOVES).mean() > 1 / 3
    )


def shared_marks(corners: Sequence[np.ndarray]) -> dict[str, list[int]]:
    """Corners in which clips of different films have the same mark: the numbers of those clips.

    `corners` are (4, n, n) each, as `corners_of` gives them.
    """
    if len(corners) < MARK_CLIPS:
        return {}
    found = {}
    for at, name in enumerate(CORNERS):
        stack = np.stack([each[at] for each in corners]).astype(np.float32)
        typical = np.median(stack, axis=0)
        same = np.abs(stack - typical) <= MARK_SAME
        fixed = same.mean(axis=0) >= MARK_SHARE
        mark = fixed & (_outlines(typical) > LOGO_OUTLINE)
        if mark.sum() < LOGO_PIXELS or fixed.mean() > MARK_REST:
            continue
        members = [n for n, each in enumerate(same) if each[mark].mean() >= 0.7]
        if len(members) >= MARK_CLIPS:
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


def _outlines(picture: np.ndarray) -> np.ndarray:
    """The larger of the steps to the next pixel, down and to the right."""
    down = np.abs(np.diff(picture, axis=0, append=picture[-1:]))
    right = np.abs(np.diff(picture, axis=1, append=picture[:, -1:]))
    return np.maximum(down, right)


def _bar(grey: np.ndarray) -> tuple[int, float]:
    """(rows of a bar at the top, its grey); 0 rows where there is none."""
    colour = float(grey[0].mean())
    depth = 0
    for row in grey[: len(grey) // 2]:
        if row.std() > FLAT or abs(row.mean() - colour) > SAME_BAR:
            break
        depth += 1
    edge = min(depth + EDGE_BLUR, len(grey) - 1)
    behind = np.abs(grey[edge].astype(np.float32) - colour) > EDGE_STEP
    return (depth if behind.mean() >= EDGE_SHARE else 0), colour


def _common(depths: Sequence[float], frames: int) -> float:
    return min(depths) if len(depths) * 2 > frames else 0
