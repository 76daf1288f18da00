"""What was found in media files, remembered from one reading of a folder to the next. It can be lost without harm."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

VERSION = 1
MAX_FILES = 50_000
MAX_FINDINGS = 8
"""Findings that are kept of one file: a rate and a length each give one."""


class FileNotes:
    """Findings by name for each file, as long as its size and time of writing stay what they were.

    Lines of JSON. A file of notes that is missing, cut off or wrong counts as empty where it cannot be read; what
    comes out of it has still to be checked by who asks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = _read(path)
        self._changed = False

    def get(self, path: Path, what: str) -> object:
        """The finding, or None."""
        entry = self._files.get(str(path))
        return entry[1].get(what) if entry and entry[0] == _stamp(path) else None

    def remember(self, path: Path, what: str, look: Callable[[], Found]) -> Found:
        """What `look` finds in the file, which is what JSON can hold; kept if the file is the same before and after."""
        before = _stamp(path)
        found = look()
        if _stamp(path) == before:
            self._put(path, what, found, before)
        return found

    def _put(self, path: Path, what: str, value: object, stamp: list[int]) -> None:
        name = str(path)
        entry = self._files.pop(name, None)
        found = entry[1] if entry and entry[0] == stamp else {}
        found.pop(what, None)
        found[what] = value
        kept = dict(list(found.items())[-MAX_FINDINGS:])
        self._files[name] = (stamp, kept)  # last, so that the oldest are dropped first
        self._changed = True

    def save(self) -> None:
        """Writes all of it, whole or not at all; where that is impossible, what is there stays."""
        if not self._changed:
            return
        lines = [json.dumps({"version": VERSION})]
        for name, (stamp, found) in list(self._files.items())[-MAX_FILES:]:
            lines.append(json.dumps({"path": name, "stamp": stamp, "found": found}))
        beside = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
            os.replace(beside, self._path)
            self._changed = False
        except OSError:
            with suppress(OSError):
                beside.unlink()


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _read(path: Path) -> dict[str, tuple[list[int], dict[str, object]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if not lines or json.loads(lines[0]) != {"version": VERSION}:
            return {}
    except (OSError, ValueError):
        return {}
    files = {}
    for line in lines[1:]:
        try:
            entry = json.loads(line)
            files[str(entry["path"])] = (list(entry["stamp"]), dict(entry["found"]))
        except (ValueError, KeyError, TypeError):
            continue
    return files
