"""What can be measured of clips in one decoding of their file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import av
from av.video.reformatter import VideoReformatter

from ...wan.errors import UserError
from ...wan.film import Film, undecodable
from .clip_look import ClipLook, Span
from .frames import SeenFrame
from .span_watch import Shown, Watch

__all__ = ["ClipLook", "Span", "look_at_file"]

BEYOND_S = 0.25
"""So much further a file is decoded than its parts need, so that one that they cover is read to its end."""
LAST_STEPS = 99
"""Intervals by which the rate is told of a part that has too few frames of its own."""


def look_at_file(path: Path, spans: Sequence[Span]) -> list[ClipLook | UserError]:
    """Measures parts of a file, which is decoded once and no further than the last of them needs.

    What cannot be measured is an error in its place: the file cannot be decoded up to there, or ends before.
    """
    visit = _Visit(path, spans)
    try:
        visit.go()
    except UserError as error:
        visit.failed = error
    return visit.found()


class _Visit:
    """One decoding of a file. What is held of its parts is what is measured of them, but for those that are on."""

    failed: UserError | None = None

    def __init__(self, path: Path, spans: Sequence[Span]) -> None:
        self._path, self._spans = path, spans
        self._waiting = sorted(range(len(spans)), key=lambda number: spans[number].first_s)
        self._on: dict[int, Watch] = {}
        self._looks: dict[int, ClipLook] = {}
        self._steps: deque[float] = deque(maxlen=LAST_STEPS)
        self._rate = 0.0
        self._end_s, self._header_s, self._whole = 0.0, 0.0, False

    def go(self) -> None:
        """Raises `UserError` where the file cannot be decoded."""
        first_s, last_s = min(s for s, _ in self._spans), max(s for _, s in self._spans)
        reformatter = VideoReformatter()
        is_gif = self._path.suffix.lower() == ".gif"
        with Film(self._path) as film:
            self._header_s, self._rate = film.header_s, film.rate
            for shown, frame in _shown_frames(film, first_s):
                if not self._waiting and not self._on and shown.time_s > last_s + BEYOND_S:
                    return
                self._end_s = shown.until_s
                self._steps.append(2 * (shown.until_s - shown.time_s))
                seen = SeenFrame(frame, reformatter, film.pixel_aspect)
                self._begin(shown, is_gif)
                self._see(shown, seen)
        self._whole = True
        for number, watch in self._on.items():
            self._looks[number] = watch.look(self._usual_fps())

    def found(self) -> list[ClipLook | UserError]:
        """In the order of the parts."""
        length_s = self._end_s if self._whole else max(self._header_s, self._end_s)
        missing_s = max(0.0, self._header_s - self._end_s) if self._whole else 0.0
        whole = {"file_s": length_s, "missing_s": missing_s}
        error = self.failed or undecodable(self._path, "it ends before the clip begins")
        return [
            replace(self._looks[number], **whole) if number in self._looks else error
            for number in range(len(self._spans))
        ]

    def _begin(self, shown: Shown, is_gif: bool) -> None:
        while self._waiting and self._spans[self._waiting[0]].first_s <= shown.until_s:
            number = self._waiting.pop(0)
            self._on[number] = Watch(self._spans[number], is_gif)

    def _see(self, shown: Shown, seen: SeenFrame) -> None:
        for number, watch in list(self._on.items()):
            watch.see(shown, seen)
            if shown.until_s >= self._spans[number].last_s:
                self._looks[number] = self._on.pop(number).look(self._usual_fps())

    def _usual_fps(self) -> float:
        """The file's own rate; where frames of it stand for long, that of its motion."""
        usual_s = median(self._steps)
        return max(self._rate, 1 / usual_s if usual_s > 0 else 0.0) or 1.0


def _shown_frames(film: Film, start_s: float) -> Iterator[tuple[Shown, av.VideoFrame]]:
    """The frames from the one that stands at `start_s` or before, each with the time in which it is the nearest."""
    before, since_s = None, float("-inf")
    for time_s, frame in film.frames(start_s):
        if before is not None:
            # As `nearest_frames` counts: of two as near, the earlier one.
            until_s = (time_s + before[0]) / 2
            yield Shown(before[0], since_s, until_s), before[1]
            since_s = until_s
        before = time_s, frame
    if before is not None:
        end_s = before[0] + film.seconds_of(before[1])
        yield Shown(before[0], since_s, end_s), before[1]
