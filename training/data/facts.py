"""What a media file holds: looked up once, then remembered until the file changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...wan.scene_cuts import cut_times
from ...wan.video import probe
from .file_notes import FileNotes, Found

WHOLE_FILE = None
"""As `max_frames`: to the end."""


class Facts(NamedTuple):
    """A file as training reads it."""

    frames: int
    """Frames at the asked rate, counted no further than asked."""
    width: int
    """As a player shows it."""
    height: int
    fps: float
    """The file's own rate, on average; 0 where it has none."""
    variable: bool
    """Its frames are not all as long as each other."""
    stated_s: float = 0.0
    """Seconds that the file says it lasts; 0 where it does not."""
    lacks_s: float = 0.0
    """Seconds of them that are missing at its end, as far as they were looked for."""


def facts_of(path: Path, *, fps: float, max_frames: int | None, notes: FileNotes | None) -> Facts:
    """Decodes as far as `max_frames` need. Raises `UserError` when the file cannot be decoded."""
    what = f"frames {fps!r} {max_frames}"
    if known := _facts(notes and notes.get(path, what)):
        return known

    def look() -> list[Any]:
        info = probe(path, fps=fps, max_frames=max_frames)
        frames, width, height, rate, _, variable, stated_s, lacks_s = info
        return [frames, width, height, rate, variable, stated_s, lacks_s]

    return Facts(*_kept(path, what, look, notes))


def cuts_of(path: Path, notes: FileNotes | None) -> list[float]:
    """Seconds after the first frame at which a new shot begins."""
    known = notes and notes.get(path, "cuts")
    if isinstance(known, list) and all(_is_number(time) for time in known):
        return known
    return _kept(path, "cuts", lambda: list(cut_times(path)), notes)


def digest_of(path: Path, notes: FileNotes | None) -> str:
    """SHA-256 of the content, in hexadecimal."""
    known = notes and notes.get(path, "sha256")
    if isinstance(known, str) and re.fullmatch("[0-9a-f]{64}", known):
        return known
    return _kept(path, "sha256", lambda: _digest(path), notes)


def _kept(path: Path, what: str, look: Callable[[], Found], notes: FileNotes | None) -> Found:
    return notes.remember(path, what, look) if notes else look()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _facts(known: object) -> Facts | None:
    if not isinstance(known, list) or len(known) != len(Facts._fields):
        return None
    counts = all(type(value) is int and value > 0 for value in known[:3])
    numbers = all(_is_number(known[n]) for n in (3, 5, 6))
    right = counts and numbers and isinstance(known[4], bool)
    return Facts(*known) if right else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < 1e9


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
