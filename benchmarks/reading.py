"""Reading a clip (decoding, choosing frames, scaling, cutting) beside plain decoding of the same frames with PyAV.

The film is real footage of 1280 x 720, shown faster or slower so that its rate is the wanted one, encoded again: as it
is, an animation without noise, which decodes faster than anything a camera makes; and with the noise of a camera. Both
ways take turns in one process, with the same threads.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.filter
from av.video.frame import PictureType
from av.video.stream import VideoStream

from ..wan.shapes import ClipSize
from ..wan.video import read_clip, read_pixels

FILM = "bigbuckbunny.mp4"
RATES, FPS = (24, 30, 60), 16
SIZE = ClipSize(832, 480, 81)
CRF = "18"
"""x264's quality: what cameras and careful exports write. Coarser films decode faster beside the same scaling."""
NOISES = {"without noise": 0, "with a camera's noise": 3}
"""Strength for FFmpeg's filter `noise`, in levels."""
ROUNDS, GOAL = 7, 1.25


def main() -> None:
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"
    print(f"load of the machine {load} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        for words, noise in NOISES.items():
            print(f"film {words}")
            for rate in RATES:
                _report(_film(Path(folder) / f"{noise} {rate}.mp4", rate, noise), rate)


def _report(film: Path, rate: int) -> None:
    plain, read, floats = _take_turns(
        lambda: _decode(film),
        lambda: read_pixels(film, SIZE, fps=FPS),
        lambda: read_clip(film, SIZE, fps=FPS),
    )
    ratios = [ours / theirs for ours, theirs in zip(read, plain, strict=True)]
    megabits = film.stat().st_size * 8e-6 / _seconds(rate)
    print(
        f"  {rate} to {FPS} fps, {megabits:.1f} Mbit/s, {SIZE.frames} frames of 1280x720 to "
        f"{SIZE.width}x{SIZE.height}: read_pixels {_ms(read)}, as float32 {_ms(floats)}, "
        f"plain decoding {_ms(plain)}, ratio "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), goal {GOAL}; "
        f"{1 / statistics.median(read):.2f} clips/s",
        flush=True,
    )


def _decode(film: Path) -> None:
    """Every frame up to the one that decides the clip's last."""
    last_s = (SIZE.frames - 1) / FPS
    with av.open(str(film)) as container:
        container.streams.video[0].thread_type = "AUTO"
        before = 0.0
        for frame in container.decode(video=0):
            if last_s <= (before + frame.time) / 2:
                return
            before = frame.time


def _take_turns(*ways: Callable[[], object]) -> list[list[float]]:
    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(ROUNDS + 1):
        for taken, way in zip(seconds, ways, strict=True):
            began = time.perf_counter()
            way()
            if turn:  # the first warms up
                taken.append(time.perf_counter() - began)
    return seconds


def _seconds(rate: int) -> float:
    """A frame more than the clip needs at both rates."""
    return (SIZE.frames + 1) / FPS + 1 / rate


def _film(path: Path, rate: int, noise: int) -> Path:
    source = Path(os.environ["TANDEM_FOOTAGE"]) / FILM
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": CRF})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number, frame in enumerate(_noisy(_endless(source), noise)):
            if number > _seconds(rate) * rate:
                break
            frame.pts, frame.time_base = number, Fraction(1, rate)
            frame.pict_type = PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _noisy(frames: Iterator[av.VideoFrame], strength: int) -> Iterator[av.VideoFrame]:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=1280, height=720, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 90_000)
    )
    noise = graph.add("noise", f"alls={strength}:allf=t")
    graph.link_nodes(source, noise, graph.add("buffersink")).configure()
    for frame in frames:
        graph.vpush(frame)
        yield graph.vpull()


def _endless(source: Path) -> Iterator[av.VideoFrame]:
    while True:
        with av.open(str(source)) as container:
            yield from container.decode(video=0)


def _ms(seconds: list[float]) -> str:
    low, high = min(seconds) * 1e3, max(seconds) * 1e3
    return f"{statistics.median(seconds) * 1e3:.0f} ms ({low:.0f} to {high:.0f})"
