"""The host's videos and pictures as files that training can read, and clips of a dataset as the host's videos."""

from __future__ import annotations

import hashlib
import io
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import av.error
import numpy as np
import torch
from comfy_api.latest import Input, InputImpl, Types
from PIL import Image

from ...training.data.dataset import Clip, Dataset
from ...training.data.media import Medium
from ...wan.errors import UserError
from ...wan.shapes import ClipSize
from ...wan.video import View, read_clip

NAME_DIGITS = 24
"""Hex digits of the content's SHA-256 in a file's name."""
SUFFIX_OF_CONTAINER = {"mov": ".mp4", "matroska": ".mkv", "avi": ".avi", "gif": ".gif"}


class ClipVideo(Input.Video):
    """A clip as training sees it. Nothing is decoded before somebody asks for its frames, and nothing is kept."""

    def __init__(self, path: Path, size: ClipSize, *, fps: float, start: int, view: View) -> None:
        self.path, self.size, self.fps, self.start, self.view = path, size, fps, start, view

    def get_components(self) -> Types.VideoComponents:
        """(frames, height, width, 3) in [0, 1], without sound."""
        frames = read_clip(
            self.path, self.size, fps=self.fps, start=self.start, view=self.view
        ).contiguous()
        return Types.VideoComponents(images=frames, frame_rate=self.get_frame_rate())

    def save_to(self, path: str | IO[bytes], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the host's
        """As the host saves frames: H.264 in MP4."""
        InputImpl.VideoFromComponents(self.get_components()).save_to(path, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    def as_trimmed(
        self,
        start_time: float | None = None,
        duration: float | None = None,
        strict_duration: bool = False,
    ) -> ClipVideo | None:
        """A part in seconds, to the nearest frame; None where nothing is left, or less than a strict duration.

        A negative start counts from the end, as in the host's own videos.
        """
        first = round((start_time or 0.0) * self.fps)
        first = max(0, self.size.frames + first) if first < 0 else first
        wanted = round(duration * self.fps) if duration else self.size.frames
        frames = min(wanted, self.size.frames - first)
        if frames < 1 or (strict_duration and duration and frames < wanted):
            return None
        size = self.size._replace(frames=frames)
        return ClipVideo(self.path, size, fps=self.fps, start=self.start + first, view=self.view)

    def get_dimensions(self) -> tuple[int, int]:
        return self.size.width, self.size.height

    def get_duration(self) -> float:
        return self.size.frames / self.fps

    def get_frame_count(self) -> int:
        return self.size.frames

    def get_frame_rate(self) -> Fraction:
        return _rate(self.fps)


def clip_video(dataset: Dataset, clip: Clip) -> ClipVideo:
    """`clip` for the host, in the first of its views."""
    size, fps = dataset.clip_size(clip), dataset.clip_fps(clip)
    return ClipVideo(clip.path, size, fps=fps, start=clip.start, view=clip.views[0])


def video_medium(video: Input.Video, caption: str | None, folder: Path) -> Medium:
    """Where `video` lies. What is no file yet, or only in memory, is written into `folder` without loss."""
    if isinstance(video, ClipVideo):
        return Medium(video.path, caption, video.start / video.fps, video.get_duration())
    if isinstance(video, InputImpl.VideoFromFile):
        source = video.get_stream_source()
        start_s, seconds = video.get_active_trim_window()
        path = _stream_file(source, folder) if isinstance(source, io.BytesIO) else Path(source)
        return Medium(path, caption, start_s, seconds)
    components = video.get_components()
    _check_frames(components.images)
    return Medium(film_file(components.images, float(components.frame_rate), folder), caption)


def images_medium(images: torch.Tensor, caption: str | None, fps: float, folder: Path) -> Medium:
    """(frames, height, width, 3 or 4) in [0, 1] as a file: one frame is a picture, several are a film at `fps`."""
    _check_frames(images)
    if len(images) == 1:
        return Medium(picture_file(images[0], folder), caption)
    return Medium(film_file(images, fps, folder), caption)


def _check_frames(images: torch.Tensor) -> None:
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or not images.numel():
        raise UserError(
            f"An entry has frames of the shape {tuple(images.shape)}.",
            "Videos and images have (frames, height, width, 3 or 4).",
            "Connect the output of a node that loads or makes videos or pictures.",
        )


def film_file(images: torch.Tensor, fps: float, folder: Path) -> Path:
    """FFV1 with whole colours in Matroska: what is read from it are these frames, to 8 bits a channel."""
    path = folder / f"clip_{_digest(_bytes_of(images), f'{fps}')}.mkv"
    if not path.is_file():
        _write_beside(path, lambda file: _write_film(file, images, _rate(fps)))
    return path


def picture_file(image: torch.Tensor, folder: Path) -> Path:
    """PNG of a (height, width, 3) picture, to 8 bits a channel."""
    (pixels,) = _bytes_of(image[None])
    path = folder / f"picture_{_digest([pixels], '')}.png"
    if not path.is_file():
        _write_beside(path, lambda file: Image.fromarray(pixels).save(file, "PNG"))
    return path


def _stream_file(stream: io.BytesIO, folder: Path) -> Path:
    """A film in memory as the file that it is."""
    content = stream.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:NAME_DIGITS]
    path = folder / f"clip_{digest}{_suffix(stream)}"
    if not path.is_file():
        _write_beside(path, lambda file: file.write(content))
    return path


def _suffix(stream: io.BytesIO) -> str:
    try:
        with av.open(stream, metadata_errors="replace") as container:
            names = container.format.name.split(",")
    except (av.error.FFmpegError, OSError, UnicodeError):
        names = []  # it is named, and refused by that name when it is read
    return next(
        (SUFFIX_OF_CONTAINER[name] for name in names if name in SUFFIX_OF_CONTAINER), ".mp4"
    )


def _write_film(file: IO[bytes], images: torch.Tensor, rate: Fraction) -> None:
    height, width = images.shape[1:3]
    with av.open(file, "w", format="matroska") as container:
        # Each frame for itself, so that a reader can begin anywhere.
        stream = container.add_stream("ffv1", rate=rate, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for pixels in _bytes_of(images):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode(None))


def _bytes_of(images: torch.Tensor) -> Iterator[np.ndarray]:
    """Each frame as (height, width, 3) uint8; transparency is left out."""
    for image in images:
        whole = image[..., :3].detach().float().nan_to_num().clamp(0, 1).mul(255).round()
        yield whole.byte().cpu().contiguous().numpy()


def _digest(frames: Iterable[np.ndarray], more: str) -> str:
    digest = hashlib.sha256(more.encode())
    for pixels in frames:
        digest.update(f"{pixels.shape}".encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()[:NAME_DIGITS]


def _rate(fps: float) -> Fraction:
    if not (fps > 0 and math.isfinite(fps)):
        raise UserError(
            f"A video has {fps} frames per second.",
            "The rate is a number above 0.",
            "Give it a rate, for example 16 in Create Video.",
        )
    return Fraction(fps).limit_denominator(65535)


def _write_beside(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as file:
            write(file)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
