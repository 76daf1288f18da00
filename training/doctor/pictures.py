"""What can be wrong with the pictures of clips: their size and shape, and what lies on top of them."""

from __future__ import annotations

from ..data.buckets import enlargement, lost_share
from ..data.dataset import Clip
from .borders import Bars, shared_marks
from .clip_look import ClipLook
from .findings import Finding, Ward, finding
from .pairs import different

# Ours.
MOST_LOST = 1 / 3
MOST_ENLARGED = 1.05
LEAST_BAR_PX = 2.0
"""Bars are seen, and learnt, from this width on at the training size."""


def bars(ward: Ward) -> Finding | None:
    faults = []
    for number, clip, look in ward.seen():
        shown = _bars_shown(look, *ward.dataset.clip_size(clip)[:2], clip)
        if sides := ", ".join(f"{s} {n:.0f} px" for s, n in shown._asdict().items() if n):
            faults.append(ward.fault(number, f"{sides} of {look.width}x{look.height}", "no bars"))
    return finding(
        "bars", "warning", faults, "Crop them off: they would be learnt as a part of the picture"
    )


def logos(ward: Ward) -> Finding | None:
    found: dict[int, tuple[str, ...]] = {
        n: look.logos for n, _, look in ward.moving() if look.logos
    }
    # One clip of each file: parts of one film share their background.
    firsts = {clip.path: number for number, clip, _ in reversed(list(ward.seen()))}
    numbers = sorted(firsts.values())
    seen = {n: look for n, _, look in ward.seen()}
    corners = [seen[n].corners for n in numbers]
    witnesses = different([seen[n].hashes for n in numbers])
    for corner, members in shared_marks(corners, witnesses).items():
        for number in (numbers[m] for m in members):
            found[number] = tuple(dict.fromkeys((*found.get(number, ()), corner)))
    faults = [
        ward.fault(number, f"{', '.join(corners)} corner stands still", "no logo")
        for number, corners in sorted(found.items())
    ]
    fix = "If it is a logo or a subtitle, crop it off, since it would be learnt; else ignore this"
    return finding("logo", "warning", faults, fix)


def enlarged(ward: Ward) -> Finding | None:
    faults = []
    for number, clip, look in ward.seen():
        size = ward.dataset.clip_size(clip)
        if enlargement((look.width, look.height), size[:2]) > MOST_ENLARGED:
            expected = f"at least {size.width}x{size.height}"
            faults.append(ward.fault(number, f"{look.width}x{look.height}", expected))
    fix = "Blur would be learnt: take larger sources (720p or more), or lower width and height"
    return finding("enlarged", "warning", faults, fix)


def cropped(ward: Ward) -> Finding | None:
    faults = []
    for number, clip, look in ward.seen():
        size = ward.dataset.clip_size(clip)
        lost = lost_share((look.width, look.height), size[:2])
        if lost > MOST_LOST:
            value = f"{look.width}x{look.height} at {size.width}x{size.height} loses {lost:.0%}"
            faults.append(ward.fault(number, value, "at most a third cut off"))
    fix = "Set fit to keep aspect in Tandem Dataset, or choose width and height of the clips' shape"
    return finding("cut off", "warning", faults, fix)


def _bars_shown(look: ClipLook, width: int, height: int, clip: Clip) -> Bars:
    """What is left of the bars where a clip shows most of them, of those that can be seen."""
    scale = enlargement((look.width, look.height), (width, height))
    off_x, off_y = max(0.0, look.width - width / scale), max(0.0, look.height - height / scale)
    crops = [view.crop for view in clip.views] or [0.5]
    low, high = min(crops), 1 - max(crops)
    off = Bars(off_x * low, off_y * low, off_x * high, off_y * high)
    left = [max(0.0, bar - cut) for bar, cut in zip(look.bars, off, strict=True)]
    return Bars(*(n if n * scale >= LEAST_BAR_PX else 0 for n in left))
