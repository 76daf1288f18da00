"""Where a film changes from one shot to the next, by how much FFmpeg finds frames to differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import av.filter

from .film import Film, undecodable

THRESHOLD = 7.0
WIDTH = 160
"""Pixels across at which frames are compared: a shot is told by its large forms, and noise is averaged out."""
AROUND = 3
"""Frames on each side whose difference counts as motion of the shot. Three is the longest that one is repeated in a
film of 24 frames a second shown at 60, or in animation that is drawn for every second or third frame."""


def cut_times(path: Path, *, threshold: float = THRESHOLD) -> list[float]:
    """Seconds after the first frame at which a new shot begins: the times of first frames of shots but for the first.

    A frame begins a shot when its difference from the frame before is by `threshold` larger than all those around it;
    differences are means of brightness, 0 to 100. Hard cuts of real films reach 10 and more; motion, shaking, flashes,
    fades and dissolves stay below 6. Raises `UserError` when the file cannot be decoded.
    """
    with Film(path) as film:
        try:
            found = list(_differences(film))
        except av.error.FFmpegError as error:
            raise undecodable(path, error) from error
    differences = [difference for _, difference in found]
    return [
        time_s
        for number, (time_s, difference) in enumerate(found)
        if difference - _motion(differences, number) >= threshold
    ]


def _motion(differences: list[float], number: int) -> float:
    """The largest difference around a frame, but for its own."""
    before = differences[max(0, number - AROUND) : number]
    return max(before + differences[number + 1 : number + 1 + AROUND], default=0.0)


def _differences(film: Film) -> Iterator[tuple[float, float]]:
    """(seconds after the first frame, difference from the frame before) of every frame."""
    graph = None
    for time_s, frame in film.frames():
        graph = graph or _graph(frame)
        graph.vpush(frame)
        yield time_s, float(graph.vpull().metadata["lavfi.scd.mafd"])


def _graph(frame: av.VideoFrame) -> av.filter.Graph:
    """FFmpeg's scdet (libavfilter/vf_scdet.c), whose own score looks at the frame before only: shaking raises it."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    scale = graph.add("scale", f"{WIDTH}:-2:flags=area")
    graph.link_nodes(source, scale, graph.add("scdet", "t=100"), graph.add("buffersink"))
    graph.configure()
    return graph
