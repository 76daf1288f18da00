"""Which parts of a longer file become clips. Counted in frames at the dataset's rate; every part is 4k+1 long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor
from typing import NamedTuple

from ...wan.shapes import FRAMES_PER_CELL

SHORTEST_PART = 0.5
"""A shorter file or shot is used at its own length, down to this part of the frames that are asked for."""
UNIFORM_WINDOWS = 2
"""What `uniform` takes of a file when no number is given."""


LONGEST_FRAME_S = 0.25
"""A frame before a cut in a file of variable rate is taken to stand no longer."""


class Window(NamedTuple):
    """A part of a file: `frames` (4k+1) frames from `start`."""

    start: int
    frames: int


def usable_frames(available: int, wanted: int) -> int:
    """The largest 4k+1 up to `wanted` that `available` frames hold; 0 if that is less than half of `wanted`."""
    fits = min(wanted, (available - 1) // FRAMES_PER_CELL * FRAMES_PER_CELL + 1)
    return fits if fits >= wanted * SHORTEST_PART else 0


def clip_windows(
    mode: str, total: int, wanted: int, *, cuts: Sequence[int] = (), limit: int = 0
) -> list[Window]:
    """The parts of a file of `total` frames that `mode` takes, in order; none if all of it is too short.

    - head, middle: one.
    - uniform: `limit` (or 2), from the beginning to the end of the file and evenly apart. They begin at least
      half a window apart, so a short file gives fewer; a single one lies in the middle.
    - overlapping: as few as cover the whole file, the first at its beginning and the last at its end.
    - scenes: one in the middle of each shot. `cuts` are the first frames of new shots; no window crosses one.

    With `limit`, at most so many: evenly chosen, so that the end of a long film counts as much as its beginning.
    """
    if mode == "scenes":
        shots = list(_shot_windows(total, wanted, cuts))
        return [shots[i] for i in _evenly(len(shots) - 1, min(limit or len(shots), len(shots)))]
    frames = usable_frames(total, wanted)
    if not frames:
        return []
    return [Window(start, frames) for start in _starts(mode, total, frames, limit)]


def shortest_use(wanted: int) -> int:
    """The fewest frames that are still used where `wanted` are asked for."""
    return next(n for n in range(1, wanted + 1) if usable_frames(n, wanted))


def cut_frames(
    times: Sequence[float], *, fps: float, source_fps: float, variable: bool = False
) -> list[int]:
    """Cuts in seconds to the first frames of new shots at `fps`.

    A frame is the source frame nearest to its time, the earlier one of two as near; so the new shot begins half a
    source frame before its own first frame. Where the source's frames are not alike (`variable`), the frames in which
    it can begin become a shot of their own, which is too short to be used.
    """
    half = 0.5 / source_fps if source_fps > 0 else 0.0
    earliest = max(half, LONGEST_FRAME_S / 2) if variable else half
    begins = [floor((time - earliest) * fps + 1e-6) + 1 for time in times]
    return begins + [ceil(time * fps - 1e-6) for time in times] if variable else begins


def _starts(mode: str, total: int, frames: int, limit: int) -> list[int]:
    spare = total - frames
    if mode == "head":
        return [0]
    if mode == "middle":
        return [spare // 2]
    if mode == "uniform":
        half = (frames + 1) // 2
        return _evenly(spare, min(limit or UNIFORM_WINDOWS, 1 + spare // half))
    if mode == "overlapping":
        covering = -(-total // frames)
        return _evenly(spare, min(limit or covering, covering))
    raise AssertionError(f"clip mode {mode!r}")


def _shot_windows(total: int, wanted: int, cuts: Sequence[int]) -> Iterable[Window]:
    inside = sorted({cut for cut in cuts if 0 < cut < total})
    for begin, end in zip([0, *inside], [*inside, total], strict=True):
        if frames := usable_frames(end - begin, wanted):
            yield Window(begin + (end - begin - frames) // 2, frames)


def _evenly(last: int, count: int) -> list[int]:
    """`count` whole numbers from 0 to `last`, evenly apart; the middle for one."""
    if count <= 1:
        return [last // 2] * count
    steps = count - 1
    return [(2 * i * last + steps) // (2 * steps) for i in range(count)]
