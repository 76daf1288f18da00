"""Reading clips with PyAV: the frames that stand at k / fps seconds, never stretched in time."""

from __future__ import annotations

import itertools
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import av
import av.error
import numpy as np
import torch

from .errors import UserError
from .film import Film, nearest_frames, undecodable
from .picture_fit import CENTRED, PictureFit, View, shown_size
from .shapes import ClipSize

__all__ = [
    "CENTRED",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ClipInfo",
    "View",
    "probe",
    "read_clip",
]

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
WAITING = 4
"""Decoded frames that wait to be scaled. More of them would be gigabytes: 81 frames of a 4K film are 2 GB."""
UNEVEN_GAP = 0.1
"""A gap between frames that is by this part longer or shorter than the usual one is not even."""
UNEVEN_SHARE = 0.02
"""A rate is variable when more than this part of the gaps is not even: a dropped frame alone does not make it so."""
TIMESTAMP_S = 1.1e-3
"""Matroska rounds times to milliseconds, which at high rates alone is more than `UNEVEN_GAP`."""


class ClipInfo(NamedTuple):
    """What a file holds: frames that can be had at the asked rate, its size as shown, its own rate."""

    frames: int
    width: int
    height: int
    fps: float
    """Frames per second on average, as the file says."""
    seconds: float = 0.0
    """How long it lasts by the times of its frames; what its header says if it was not decoded to the end."""
    variable: bool = False
    """Gaps between the frames that were decoded differ by more than a tenth."""
    stated_s: float = 0.0
    """How long it lasts as its header says; 0 when it does not."""
    lacks_s: float = 0.0
    """How much of `stated_s` is missing at its end, as far as that can be known without decoding further."""


def probe(path: Path, *, fps: float, max_frames: int | None) -> ClipInfo:
    """Decodes as far as `max_frames` at `fps` need, so that a broken file is found now and not in a run.

    None decodes all of it. Raises `UserError` when the file cannot be decoded.
    """
    with Film(path) as film:
        times_s: list[float] = []
        found, shape, last = 0, (0, 0), None
        shown = nearest_frames(film, _noted(film.frames(), times_s), fps=fps)
        for frame in itertools.islice(shown, max_frames):
            shape = shape if found else shown_size(frame, film.pixel_aspect)
            found, last = found + 1, frame
        seconds = times_s[-1] + film.seconds_of(last) if last is not None else 0.0
        stated, lacks = film.header_s, film.cut_off_s
        if found == max_frames:
            seconds = max(seconds, stated)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            lacks = max(lacks, stated - seconds)
        return ClipInfo(found, *shape, film.rate, seconds, _uneven(times_s), stated, lacks)


def read_clip(
    path: Path, size: ClipSize, *, fps: float, start: int = 0, view: View = CENTRED
) -> torch.Tensor:
    """(frames, height, width, 3) float32 in [0, 1]: `read_pixels` as networks take them."""
    pixels = read_pixels(path, size, fps=fps, start=start, view=view).permute(0, 3, 1, 2).numpy()
    # NumPy's large arrays come in large pages of memory, which costs a fraction of the time of torch's.
    video = np.divide(pixels, np.float32(255), out=np.empty(pixels.shape, np.float32))
    return torch.from_numpy(video).permute(0, 2, 3, 1)


def read_pixels(
    path: Path, size: ClipSize, *, fps: float, start: int = 0, view: View = CENTRED
) -> torch.Tensor:
    """(frames, height, width, 3) uint8: scaled to cover `size`, then cut and mirrored as `view` says.

    Frame k is the one nearest to (start + k) / fps seconds after the file's first. In memory the channels are planes,
    as networks take them. Raises `UserError` when the file is damaged or too short, or `start` is below 0.
    """
    if start < 0:
        raise UserError(
            f"A clip of {path.name} begins at frame {start}.",
            "Frames are counted from the file's first, which is 0.",
            "Begin at 0 or later.",
        )
    video = np.empty((size.frames, 3, size.height, size.width), np.uint8)
    with Film(path) as film:
        fit = PictureFit(size, view, pixel_aspect=film.pixel_aspect)
        shown = nearest_frames(film, film.frames(start / fps), fps=fps, start=start)
        try:
            found = _fill(video, itertools.islice(shown, size.frames), fit)
        except av.error.FFmpegError as error:
            raise undecodable(path, error) from error
    if found < size.frames:
        raise _too_short(path, found, size.frames, fps, start)
    return torch.from_numpy(video).permute(0, 2, 3, 1)


def _fill(video: np.ndarray, frames: Iterable[av.VideoFrame], fit: PictureFit) -> int:
    """How many frames came. They are scaled on a thread of its own while the next ones are decoded."""
    found, last = 0, None
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as scaling:
        for frame in frames:
            if len(waiting) == WAITING:
                waiting.popleft().result()
            if frame is last:
                waiting.append(scaling.submit(np.copyto, video[found], video[found - 1]))
            else:
                waiting.append(scaling.submit(fit.write, frame, video[found]))
            found, last = found + 1, frame
        for written in waiting:
            written.result()
    return found


def _noted(
    frames: Iterable[tuple[float, av.VideoFrame]], times_s: list[float]
) -> Iterator[tuple[float, av.VideoFrame]]:
    for time_s, frame in frames:
        times_s.append(time_s)
        yield time_s, frame


def _uneven(times_s: Sequence[float]) -> bool:
    gaps = [later - earlier for earlier, later in itertools.pairwise(times_s)]
    if not gaps:
        return False
    usual = statistics.median(gaps)
    allowed = max(UNEVEN_GAP * usual, TIMESTAMP_S)
    return sum(abs(gap - usual) > allowed for gap in gaps) > UNEVEN_SHARE * len(gaps)


def _too_short(path: Path, found: int, asked: int, fps: float, start: int) -> UserError:
    after = f" from frame {start} on" if start else ""
    return UserError(
        f"{path.name} has {found} frames at {fps:g} fps{after}.",
        f"The dataset asks for {asked}.",
        "Use a longer clip, or fewer frames.",
    )
