"""Sizes for clips of other shapes than the dataset's: the same area, so that little is cut off and memory is alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

from ...wan.shapes import PIXELS_PER_TOKEN
from ...wan.video import CENTRED, View

Size = tuple[int, int]
"""(width, height) in pixels."""

SHAPES = (1.0, 9 / 8, 5 / 4, 4 / 3, 3 / 2, 5 / 3, 16 / 9, 2.0, 2.39, 8 / 3, 3.0)
"""Longer side by shorter: those of cameras, screens and films. Few, so that clips share their shapes."""
CLOSE_SHARE = 0.05
"""A clip that loses no more than this part of its picture gets the dataset's own size, lying or standing."""
AREA_OVER = 1.03
"""A bucket has at most this many times the dataset's area: memory is planned for that."""
SAME_SHARE = 1e-9
CROPS = {1: (0.5,), 2: (0.0, 1.0), 3: (0.0, 0.5, 1.0)}


def turned(size: Size) -> Size:
    """Standing for lying, and the reverse."""
    return size[1], size[0]


def lost_share(source: Size, size: Size) -> float:
    """The part of a picture of `source` that is cut off when it is scaled to cover `size`; 0 to under 1."""
    ratio = (source[0] * size[1]) / (source[1] * size[0])
    return 1 - min(ratio, 1 / ratio)


def enlargement(source: Size, size: Size) -> float:
    """How many times larger a picture of `source` becomes when it covers `size`; above 1 there is no such detail."""
    return max(size[0] / source[0], size[1] / source[1])


def bucket_for(source: Size, size: Size) -> Size:
    """The bucket of `size` for a clip of `source`: `size` itself when that cuts off 5 % or less, then the same
    lying or standing, else the one whose shape is nearest."""
    found = buckets(*size)
    for usual in (size, turned(size)):
        if usual in found and lost_share(source, usual) <= CLOSE_SHARE:
            return usual
    return min(found, key=lambda bucket: lost_share(source, bucket))


@lru_cache(maxsize=64)
def buckets(width: int, height: int) -> tuple[Size, ...]:
    """`width` x `height` first, then sizes of about its area in other shapes; at most 23.

    Sides are multiples of 16, and of 32 where both sides of the dataset are, since Wan 2.2 5B needs that.
    """
    own = (width, height)
    usual = [own] if lost_share(turned(own), own) <= CLOSE_SHARE else [own, turned(own)]
    found = list(usual)
    for shape in sorted({shape for s in SHAPES for shape in (s, 1 / s)}):
        bucket = _nearest(own, shape)
        # What a usual size stands for needs no bucket, and of two of one shape the first does.
        if (
            bucket
            and all(lost_share(bucket, other) > CLOSE_SHARE for other in usual)
            and all(lost_share(bucket, other) > SAME_SHARE for other in found)
        ):
            found.append(bucket)
    return tuple(found)


def views_for(source: Size, size: Size, *, flips: bool, crops: int) -> tuple[View, ...]:
    """The views of a clip in the order in which they are shown: every crop, then each of them mirrored.

    Where less than one token (16 pixels) is cut off, crops would be the same picture again: there is one.
    """
    scale = enlargement(source, size)
    over = max(source[0] * scale - size[0], source[1] * scale - size[1])
    places = CROPS[crops] if over >= PIXELS_PER_TOKEN else (CENTRED.crop,)
    return tuple(View(crop, flip) for flip, crop in product((False, True)[: 1 + flips], places))


def _nearest(own: Size, shape: float) -> Size | None:
    """The size of about the area of `own` and about `shape`; None where no multiple comes near."""
    area = own[0] * own[1]
    ideal = ((area * shape) ** 0.5, (area / shape) ** 0.5)
    step = 2 * PIXELS_PER_TOKEN if not any(s % (2 * PIXELS_PER_TOKEN) for s in own) else 0
    widths, heights = (_multiples(side, step or PIXELS_PER_TOKEN) for side in ideal)
    allowed = [size for size in product(widths, heights) if size[0] * size[1] <= area * AREA_OVER]
    return min(allowed, key=lambda size: _fault(size, area, shape), default=None)


def _fault(size: Size, area: int, shape: float) -> float:
    ratio = size[0] / size[1] / shape
    return 1 - min(ratio, 1 / ratio) + abs(1 - size[0] * size[1] / area)


def _multiples(side: float, step: int) -> Iterator[int]:
    below = int(side // step) * step
    return iter([n for n in (below, below + step) if n > 0])
