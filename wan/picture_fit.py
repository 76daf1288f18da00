"""Pictures of a film in the size of a clip: scaled by FFmpeg to cover it, then cut, never distorted."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, cast

import av
import av.error
import av.filter
import numpy as np
from av.video.reformatter import VideoReformatter

from .shapes import ClipSize


class View(NamedTuple):
    """Which part of a picture is kept when it is cut to a size, and whether it is mirrored."""

    crop: float = 0.5
    """0 keeps the left or upper end, 0.5 the middle, 1 the right or lower end."""
    flip: bool = False


CENTRED = View()


class Pose(NamedTuple):
    """How the picture lies in the file: first its rows are put upside down if `mirrored`, then it is turned."""

    turns: int = 0
    """Quarter turns to the left."""
    mirrored: bool = False


# SWS_BICUBIC | SWS_ACCURATE_RND of FFmpeg's libswscale/swscale.h. Antialiased: the filter widens with the reduction.
# Without the second, pictures that keep their size take a short cut that darkens them by a level.
_FILTER = 0x4 | 0x40000
# Straight to planes: packed RGB of the same quality takes three times as long.
_PLANES = "gbrp"
_PLANE_OF_CHANNEL = (2, 0, 1)
# AV_FRAME_DATA_EXIF of FFmpeg's libavutil/frame.h.
_EXIF = 31


class PictureFit:
    """Owns FFmpeg's scaler, which is set up once for all frames of a film."""

    def __init__(self, size: ClipSize, view: View, *, pixel_aspect: float) -> None:
        self._size, self._view, self._pixel_aspect = size, view, pixel_aspect
        self._scaler = VideoReformatter()
        self._pose: Pose | None = None

    def write(self, frame: av.VideoFrame, out: np.ndarray) -> None:
        """`frame` as a player shows it, into `out` (3, height, width) uint8; transparency is left out."""
        # All frames of a film have the same, and to find it out takes time.
        pose = self._pose = self._pose or pose_of(frame)
        inner = _cover(shown_size(frame, self._pixel_aspect), self._size)
        width, height = inner[::-1] if pose.turns % 2 else inner
        scaled = self._scaler.reformat(frame, width, height, _PLANES, interpolation=_FILTER)
        for channel, plane in enumerate(_PLANE_OF_CHANNEL):
            out[channel] = self._cut(upright(_pixels(scaled, plane), pose))

    def _cut(self, plane: np.ndarray) -> np.ndarray:
        (height, width), size, view = plane.shape, self._size, self._view
        top = round((height - size.height) * view.crop)
        left = round((width - size.width) * view.crop)
        cut = plane[top : top + size.height, left : left + size.width]
        return cut[:, ::-1] if view.flip else cut


def shown_size(frame: av.VideoFrame, pixel_aspect: float) -> tuple[int, int]:
    """(width, height) as a player shows it: square pixels, and upright if a phone was held upright."""
    width = max(1, round(frame.width * pixel_aspect))
    return (frame.height, width) if quarter_turns(frame) % 2 else (width, frame.height)


def pose_of(frame: av.VideoFrame) -> Pose:
    """How a decoded frame has to be moved to stand as a player shows it."""
    matrix = _display_matrix(frame)
    mirrored = matrix is not None and matrix[0] * matrix[4] < matrix[1] * matrix[3]
    return Pose(quarter_turns(frame), mirrored)


def upright(picture: np.ndarray, pose: Pose) -> np.ndarray:
    """A decoded (height, width, ...) picture as a player shows it."""
    return np.rot90(picture[::-1] if pose.mirrored else picture, pose.turns)


def _cover(shown: tuple[int, int], size: ClipSize) -> tuple[int, int]:
    """The smallest (width, height) of the shape `shown` that covers `size`."""
    scale = max(size.width / shown[0], size.height / shown[1])
    return max(size.width, round(shown[0] * scale)), max(size.height, round(shown[1] * scale))


def quarter_turns(frame: av.VideoFrame) -> int:
    """To the left, that stand it upright; of a mirrored one, after its rows were put upside down."""
    return round(frame.rotation / 90)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of FFmpeg's libavutil/display.h; None for a frame that stands as it is stored."""
    try:
        kinds = frame.side_data
    except ValueError:  # PyAV lists none of them where it has no name for one
        try:
            kinds = _without_exif(frame).side_data
        except (ValueError, av.error.FFmpegError):
            return None
    matrix = kinds.get("DISPLAYMATRIX")
    return None if matrix is None else struct.unpack("=9i", bytes(matrix))


def _without_exif(frame: av.VideoFrame) -> av.VideoFrame:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    graph.link_nodes(
        source, graph.add("sidedata", f"mode=delete:type={_EXIF}"), graph.add("buffersink")
    )
    graph.configure()
    graph.vpush(frame)
    return cast("av.VideoFrame", graph.vpull())


def _pixels(frame: av.VideoFrame, plane: int) -> np.ndarray:
    pixels = frame.planes[plane]
    # A buffer, though PyAV's stubs do not say so.
    rows = np.frombuffer(cast(Any, pixels), np.uint8).reshape(-1, pixels.line_size)
    return rows[: frame.height, : frame.width]
