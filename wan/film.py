"""A film being decoded with PyAV: its frames and when each is shown, from any moment on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.container
import av.error

from .errors import UserError

SEEKABLE = ("matroska", "mov", "mp4", "webm")
"""Containers (names of FFmpeg's demuxers) in which every frame carries the time at which it is shown."""
SEEK_MARGIN_S = 0.5
"""Containers find key frames by decoding time, which B-frames move before the time of showing."""


class Film:
    """Owns an open file. Raises `UserError` naming the file when it cannot be decoded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._container = self._open()

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._container.close()

    @property
    def rate(self) -> float:
        """Frames per second on average, as the file says; 0 when it does not."""
        return float(self._container.streams.video[0].average_rate or 0)

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel over its height."""
        return float(self._container.streams.video[0].sample_aspect_ratio or 1)

    @property
    def header_s(self) -> float:
        """Seconds that the file says it lasts; 0 when it does not."""
        stream = self._container.streams.video[0]
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return (self._container.duration or 0) / av.time_base

    @property
    def cut_off_s(self) -> float:
        """Seconds at the end of which the file lists frames but does not hold them, as after a broken download.

        Of MP4 and its kin, which list every frame; 0 for others.
        """
        if not {"mov", "mp4"} & set(self._container.format.name.split(",")):
            return 0.0
        stream, held = self._container.streams.video[0], self.path.stat().st_size
        entries = list(getattr(stream, "index_entries", ()))
        gone = [entry.timestamp for entry in entries if entry.pos + entry.size > held]
        if not gone or not stream.time_base:
            return 0.0
        listed = max(entry.timestamp for entry in entries) - min(gone)
        return float(listed * stream.time_base) + self._step

    def frames(self, start_s: float = 0.0) -> Iterator[tuple[float, av.VideoFrame]]:
        """(seconds after the file's first frame, frame), from the beginning or from a key frame at `start_s` or before.

        The frames and times are those of decoding from the beginning. Only where timestamps and key frames promise
        that is the way there skipped.
        """
        if start_s > SEEK_MARGIN_S:
            frames = self._frames_after_seek(start_s)
            if frames is not None:
                return frames
            # Nothing that a decoder went through is left behind.
            self._container.close()
            self._container = self._open()
        return self._from_beginning()

    def seconds_of(self, frame: av.VideoFrame) -> float:
        """How long `frame` is shown: its own duration, or that of a frame on average."""
        duration, time_base = getattr(frame, "duration", 0), frame.time_base
        if duration and duration > 0 and time_base:
            return float(duration * time_base)
        return self._step

    @property
    def _step(self) -> float:
        return 1 / self.rate if self.rate else 1.0

    def _open(self) -> av.container.InputContainer:
        try:
            # Titles of old programs are not UTF-8, and nobody asks for them here.
            container = av.open(str(self.path), metadata_errors="replace")
        except (av.error.FFmpegError, OSError, UnicodeError) as error:
            raise undecodable(self.path, error) from error
        if not container.streams.video:
            container.close()
            raise undecodable(self.path, "it has no picture")
        container.streams.video[0].thread_type = "AUTO"
        return container

    def _from_beginning(self) -> Iterator[tuple[float, av.VideoFrame]]:
        began, time = None, 0.0
        for frame in self._sound(self._decoded()):
            # Where a file has no times, its frames follow each other at its rate.
            time = frame.time if frame.time is not None else time
            began = time if began is None else began
            yield time - began, frame
            time += self._step

    def _frames_after_seek(self, start_s: float) -> Iterator[tuple[float, av.VideoFrame]] | None:
        """None where the frames are not certain to be those of decoding from the beginning."""
        if not set(SEEKABLE) & set(self._container.format.name.split(",")):
            return None
        try:
            began = next(self._decoded(), None)
            if began is None or began.time is None or not self._seek(began, start_s):
                return None
            decoded = self._decoded()
            # In front of a key frame stand frames that need what comes before it.
            head = next((frame for frame in decoded if frame.key_frame), None)
        except UserError:
            return None  # What is wrong with the file is said when it is read from the beginning.
        if head is None or head.time is None or head.time - began.time > start_s:
            return None
        return self._timed(began.time, head, decoded)

    def _seek(self, began: av.VideoFrame, start_s: float) -> bool:
        stream = self._container.streams.video[0]
        if began.pts is None or not stream.time_base:
            return False
        after = Fraction(start_s - SEEK_MARGIN_S) / stream.time_base
        try:
            self._container.seek(began.pts + int(after), stream=stream, backward=True)
        except (av.error.FFmpegError, OSError):
            return False
        return True

    def _timed(
        self, began: float, head: av.VideoFrame, decoded: Iterable[av.VideoFrame]
    ) -> Iterator[tuple[float, av.VideoFrame]]:
        time = head.time
        for part in ((head,), decoded):
            for frame in self._sound(part):
                time = frame.time if frame.time is not None else time + self._step
                yield time - began, frame

    def _decoded(self) -> Iterator[av.VideoFrame]:
        try:
            yield from self._container.decode(video=0)
        except av.error.FFmpegError as error:
            raise undecodable(self.path, error) from error

    def _sound(self, frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for frame in frames:
            if frame.is_corrupt:
                raise undecodable(self.path, "a frame is damaged")
            yield frame


def nearest_frames(
    film: Film, frames: Iterable[tuple[float, av.VideoFrame]], *, fps: float, start: int = 0
) -> Iterator[av.VideoFrame]:
    """For k = start, start + 1, ...: the one of `frames` nearest to k / fps seconds after the first of the film.

    The last frame stands until its own duration is over, so a film of d seconds gives d * fps frames.
    """
    wanted, previous = start, None
    for time, frame in frames:
        while previous is not None and wanted / fps <= (time + previous[0]) / 2:
            yield previous[1]
            wanted += 1
        previous = (time, frame)
    if previous is None:
        return
    end = previous[0] + film.seconds_of(previous[1])
    while wanted / fps < end - 1e-6:
        yield previous[1]
        wanted += 1


class UndecodableError(UserError):
    """A file that FFmpeg cannot read."""


def undecodable(path: Path, why: object) -> UndecodableError:
    """The error that names a file and says what is wrong with it."""
    if path.suffix.lower() == ".webp" and _is_animated_webp(path):
        return UndecodableError(
            f"{path.name} is an animated WebP, which is not read.",
            "Moving pictures are read from GIF, MP4 and other films, WebP as a still picture.",
            "Convert it to GIF or MP4, or take it out of the folder.",
        )
    return UndecodableError(
        f"{path.name} cannot be decoded ({why}).",
        "Clips and pictures are files that FFmpeg can read.",
        "Convert it again from its source, or take it out of the folder.",
    )


def _is_animated_webp(path: Path) -> bool:
    """By its header, see https://developers.google.com/speed/webp/docs/riff_container (VP8X, flag A)."""
    try:
        with path.open("rb") as file:
            head = file.read(21)
    except OSError:
        return False
    return len(head) == 21 and head[8:16] == b"WEBPVP8X" and bool(head[20] & 2)
