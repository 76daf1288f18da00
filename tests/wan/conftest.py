"""Clips whose frames carry their own number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import settings

# The same examples each time, however busy the machine is.
settings.register_profile("tandem", deadline=None, derandomize=True)
settings.load_profile("tandem")

TIME_BASE = Fraction(1, 90_000)


def numbered_picture(number: int, width: int, height: int) -> np.ndarray:
    """The number in base 16 as two grey fields, which survive any codec."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, : width // 2] = number // 16 * 16 + 8
    picture[:, width // 2 :] = number % 16 * 16 + 8
    return picture


def write_numbered_clip(
    path: Path,
    times_s: Sequence[Fraction],
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Frame i, shown at `times_s[i]`, carries the number i."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        rate = Fraction(1) / (times_s[1] - times_s[0])
        stream = container.add_stream(codec, rate=rate, options=options or {"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        stream.codec_context.thread_count = 1
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = round(time_s / TIME_BASE), TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def numbered_clip(tmp_path: Path) -> Callable[..., Path]:
    """`numbered_clip(times_s, suffix=".mp4", **options)` writes a clip and gives its path."""

    def write(times_s: Sequence[Fraction], suffix: str = ".mp4", **options) -> Path:
        return write_numbered_clip(tmp_path / f"numbered{suffix}", times_s, **options)

    return write


@pytest.fixture
def picture_numbers() -> Callable[..., list[int]]:
    """The numbers that frames (frames, height, width, 3) in [0, 1] carry."""

    def read(video) -> list[int]:
        middle = video.shape[2] // 2
        digits = [
            (video[:, :, side].mean(dim=(1, 2, 3)) * 255 // 16).int()
            for side in (slice(2, middle - 2), slice(middle + 2, -2))
        ]
        return (digits[0] * 16 + digits[1]).tolist()

    return read
