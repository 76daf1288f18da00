"""Reading clips with PyAV: the frames that stand at k / fps seconds, never stretched in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import av.container
import av.error
import numpy as np
import torch
from torch.nn import functional as F

from .errors import UserError
from .shapes import ClipSize

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class View(NamedTuple):
    """Which part of a picture is kept when it is cut to a size, and whether it is mirrored."""

    crop: float = 0.5
    """0 keeps the left or upper end, 0.5 the middle, 1 the right or lower end."""
    flip: bool = False


CENTRED = View()


class ClipInfo(NamedTuple):
    """What a file holds: frames that can be had at the asked rate, its size as shown, its own rate."""

    frames: int
    width: int
    height: int
    fps: float


def probe(path: Path, *, fps: float, max_frames: int) -> ClipInfo:
    """Decodes as far as `max_frames` at `fps` need, so that a broken file is found now and not in a run.

    Raises `UserError` when the file cannot be decoded.
    """
    count, width, height, rate = 0, 0, 0, 0.0
    with _opened(path) as container:
        rate = float(container.streams.video[0].average_rate or 0)
        for frame in _frames_at(container, fps, max_frames, path):
            count += 1
            if count == 1:
                height, width = _picture(frame, container).shape[:2]
    return ClipInfo(count, width, height, rate)


def read_clip(path: Path, size: ClipSize, *, fps: float) -> torch.Tensor:
    """(frames, height, width, 3) float32 in [0, 1]: scaled to cover `size`, then cut in the middle."""
    with _opened(path) as container:
        # One at a time: 81 frames of a 4K film would be 8 GB at their own size.
        pictures = [
            fit_frames(
                torch.from_numpy(np.ascontiguousarray(_picture(frame, container)))[None], size
            )
            for frame in _frames_at(container, fps, size.frames, path)
        ]
    if len(pictures) < size.frames:
        raise UserError(
            f"{path.name} has {len(pictures)} frames at {fps:g} fps.",
            f"The dataset asks for {size.frames}.",
            "Use a longer clip, or fewer frames.",
        )
    return torch.cat(pictures)


def fit_frames(pictures: torch.Tensor, size: ClipSize) -> torch.Tensor:
    """uint8 (frames, h, w, 3) to float32 (frames, height, width, 3) in [0, 1], aspect kept."""
    video = pictures.permute(0, 3, 1, 2).float() / 255
    scale = max(size.width / video.shape[-1], size.height / video.shape[-2])
    inner = (
        max(size.height, round(video.shape[-2] * scale)),
        max(size.width, round(video.shape[-1] * scale)),
    )
    video = F.interpolate(video, inner, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (inner[0] - size.height) // 2, (inner[1] - size.width) // 2
    video = video[:, :, top : top + size.height, left : left + size.width]
    return video.permute(0, 2, 3, 1).contiguous()


def _picture(frame: av.VideoFrame, container: av.container.InputContainer) -> np.ndarray:
    """(height, width, 3) uint8 as a player shows it: square pixels, and upright if a phone was held upright."""
    pixel_aspect = float(container.streams.video[0].sample_aspect_ratio or 1)
    width = max(1, round(frame.width * pixel_aspect))
    return np.rot90(frame.to_ndarray(format="rgb24", width=width), frame.rotation // 90)


def _opened(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise _undecodable(path, error) from error
    if not container.streams.video:
        container.close()
        raise _undecodable(path, "it has no picture")
    return container


def _frames_at(
    container: av.container.InputContainer, fps: float, count: int, path: Path
) -> Iterator[av.VideoFrame]:
    """For k = 0, 1, ...: the source frame nearest to k / fps seconds after the first one.

    The last frame stands until its own duration is over, so a clip of d seconds gives d * fps frames.
    """
    wanted, previous, start = 0, None, None
    for time, frame in _timed_frames(container, path):
        start = time if start is None else start
        while (
            wanted < count
            and previous is not None
            and wanted / fps <= (time - start + previous[0]) / 2
        ):
            yield previous[1]
            wanted += 1
        previous = (time - start, frame)
        if wanted >= count:
            return
    end = previous[0] + _frame_seconds(container) if previous else 0.0
    while previous is not None and wanted < count and wanted / fps < end - 1e-6:
        yield previous[1]
        wanted += 1


def _timed_frames(
    container: av.container.InputContainer, path: Path
) -> Iterator[tuple[float, av.VideoFrame]]:
    step, fallback = _frame_seconds(container), 0.0
    try:
        for frame in container.decode(video=0):
            if frame.is_corrupt:
                raise _undecodable(path, "a frame is damaged")
            time = frame.time if frame.time is not None else fallback
            fallback = time + step
            yield time, frame
    except av.error.FFmpegError as error:
        raise _undecodable(path, error) from error


def _frame_seconds(container: av.container.InputContainer) -> float:
    rate = container.streams.video[0].average_rate
    return 1 / float(rate) if rate else 1.0


def _undecodable(path: Path, why: object) -> UserError:
    return UserError(
        f"{path.name} cannot be decoded ({why}).",
        "Clips and pictures are files that FFmpeg can read.",
        "Convert it again from its source, or take it out of the folder.",
    )
