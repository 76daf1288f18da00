"""A frame of a film in the small shapes in which it is compared and shown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from io import BytesIO

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from ...wan.picture_fit import Pose, pose_of, shown_size, upright
from .borders import Bars, bars_of

SIDE = 96
"""Pixels of the square thumbnail in which frames are compared."""
STRIP_SIDE = 112
BLOCK = 8
POOL = np.kron(np.eye(SIDE // BLOCK, dtype=np.float32), np.full((1, BLOCK), 1 / BLOCK, np.float32))
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class SeenFrame:
    """A frame in the shapes in which it is needed, each made at most once."""

    def __init__(
        self, frame: av.VideoFrame, reformatter: VideoReformatter, pixel_aspect: float
    ) -> None:
        self._frame, self._reformatter, self._pixel_aspect = frame, reformatter, pixel_aspect
        self._colours: np.ndarray | None = None
        self._luma: np.ndarray | None = None

    @cached_property
    def _pose(self) -> Pose:
        return pose_of(self._frame)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as a player shows it."""
        return shown_size(self._frame, self._pixel_aspect)

    @property
    def colours(self) -> np.ndarray:
        """(96, 96, 3) float32, 0-255, whatever the frame's shape."""
        if self._colours is None:
            self._colours = self._scaled(SIDE, SIDE).astype(np.float32)
        return self._colours

    @property
    def luma(self) -> np.ndarray:
        """(96, 96) float32, 0-255: what is bright and what is dark in `colours`."""
        if self._luma is None:
            self._luma = self.colours @ LUMA
        return self._luma

    def bars(self) -> Bars | None:
        """Its bars, in pixels as a player shows them."""
        # Grey has one byte a pixel, and full size is needed: a bar may be a pixel wide.
        grey = self._frame.to_ndarray(format="gray")
        found = bars_of(upright(grey, self._pose))
        if found is None:
            return None
        shown, stored = self.size, grey.shape[::-1]
        if self._pose.turns % 2:
            stored = stored[::-1]
        across, along = shown[0] / stored[0], shown[1] / stored[1]
        return Bars(*(n * s for n, s in zip(found, (across, along) * 2, strict=True)))

    def small(self) -> Image.Image:
        """Its own shape, the longer side of 112 pixels."""
        width, height = self.size
        scale = STRIP_SIDE / max(width, height)
        sides = max(1, round(width * scale)), max(1, round(height * scale))
        turned = self._pose.turns % 2 != 0
        return Image.fromarray(self._scaled(*(sides[::-1] if turned else sides)))

    def _scaled(self, width: int, height: int) -> np.ndarray:
        # One reformatter for all frames: each new one plans its scaling anew.
        small = self._reformatter.reformat(
            self._frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation=Interpolation.AREA,
        )
        return np.ascontiguousarray(upright(small.to_ndarray(), self._pose))


def blocks_of(colours: np.ndarray) -> np.ndarray:
    """(12, 12, 3): means over blocks of 8x8 pixels of a thumbnail."""
    # Products are ten times faster than means over axes of 8.
    rows = (POOL @ colours.reshape(SIDE, -1)).reshape(-1, SIDE, 3)
    return POOL @ rows


def strip_of(pictures: Sequence[Image.Image]) -> bytes:
    """JPEG of the first, the middle and the last side by side; of a single one once."""
    shown = [pictures[0], pictures[len(pictures) // 2], pictures[-1]][: len(pictures)]
    width, height = shown[0].size
    strip = Image.new("RGB", (width * len(shown), height))
    for number, picture in enumerate(shown):
        strip.paste(picture, (number * width, 0))
    out = BytesIO()
    strip.save(out, "JPEG", quality=80)
    return out.getvalue()
