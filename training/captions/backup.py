"""The dated folder that keeps the captions which a writing replaces, with a list of what was written."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...wan.errors import UserError

# Hidden from the dataset: a folder that begins with a dot is not searched for media.
PREFIX = ".captions_before_"
MANIFEST = "written.json"
EDITED = ".edited"
FORMAT = 1
KEEPING, WRITING, WRITTEN = "keeping", "writing", "written"
UNDOING, UNDONE = "undoing", "undone"
_STATES = (KEEPING, WRITING, WRITTEN, UNDOING, UNDONE)


@dataclass
class Entry:
    """A caption file in the list. Contents are named by their SHA-256."""

    before: str | None
    """What was there; None if there was no file."""
    after: list[str]
    """What was written: several where a writing was cut off and went on with other captions."""


@dataclass
class Backup:
    """One dated folder. Its list is rewritten whole before what it says is done."""

    folder: Path
    order: int
    """Rises with each writing, in nanoseconds since 1970; one writing has it in all its dataset folders."""
    state: str = KEEPING
    """keeping: no caption has changed yet; writing and undoing: work is or was cut off in the middle."""
    entries: dict[str, Entry] = field(default_factory=dict)
    """Path below the dataset folder to what became of it."""

    @property
    def unfinished(self) -> bool:
        return self.state in (KEEPING, WRITING, UNDOING)

    @property
    def begun(self) -> bool:
        return self.state != KEEPING

    @property
    def undone(self) -> bool:
        return self.state == UNDONE

    def prepare(self, contents: Mapping[Path, str]) -> None:
        """Keeps what is there, then lists what will be written: file to its new content's hash.

        What the list has already stays as it is: the first content is the one that comes back.
        """
        if self.state == KEEPING:  # nothing has changed: what is there now is the first
            self.entries.clear()
        for path, after in contents.items():
            name, now = self._name(path), read_or_none(path)
            entry = self.entries.get(name)
            if entry is None:
                self.entries[name] = Entry(None if now is None else content_hash(now), [after])
                if now is not None:
                    self._keep(self.folder / name, now)
                continue
            if now is not None and content_hash(now) not in (entry.before, *entry.after):
                self.keep_edited(path, now)
            entry.after.append(after)
        self._save(WRITING)

    def before(self) -> dict[Path, str | None]:
        """Each file, with the hash of what it held before."""
        return {self._root / name: entry.before for name, entry in self.entries.items()}

    def wrote(self, path: Path, content: bytes) -> bool:
        """Whether a file's content is one that was written, unchanged since."""
        return content_hash(content) in self.entries[self._name(path)].after

    def old(self, path: Path) -> bytes | None:
        """The content that was kept."""
        return read_or_none(self.folder / self._name(path))

    def keep_edited(self, path: Path, content: bytes) -> Path:
        """Keeps what somebody wrote into a file that is about to be replaced."""
        first = self.folder / EDITED / self._name(path)
        numbered = (first.with_name(f"{first.stem}.{n}.txt") for n in range(2, 1000))
        kept = next((each for each in (first, *numbered) if not each.exists()), first)
        return self._keep(kept, content)

    def finish(self) -> None:
        self._tidy()
        self._save(WRITTEN)

    def mark_undoing(self) -> None:
        self._save(UNDOING)

    def mark_undone(self) -> None:
        self._tidy()
        self._save(UNDONE)

    @property
    def _root(self) -> Path:
        return self.folder.parent

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    @staticmethod
    def _keep(kept: Path, content: bytes) -> Path:
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace(kept, content)
        return kept

    def _tidy(self) -> None:
        for name in self.entries:  # a killed process can have left one
            _beside(self._root / name).unlink(missing_ok=True)
            _beside(self.folder / name).unlink(missing_ok=True)

    def _save(self, state: str) -> None:
        self.state = state
        files = {n: {"before": e.before, "after": e.after} for n, e in self.entries.items()}
        content = {"format": FORMAT, "order": self.order, "state": state, "files": files}
        replace(self.folder / MANIFEST, json.dumps(content, indent=1).encode())


def new_backup(root: Path, order: int) -> Backup:
    """A new dated folder in a dataset folder."""
    folder = root / f"{PREFIX}{time.strftime('%Y%m%d-%H%M%S')}_{secrets.token_hex(2)}"
    folder.mkdir()
    backup = Backup(folder, order)
    backup._save(KEEPING)
    return backup


def backups(root: Path) -> list[Backup]:
    """The dated folders of a dataset folder that have a list, in no order.

    Raises `UserError` for a list that cannot be read.
    """
    return list(_found(root))


def next_order(newest: int) -> int:
    """The order of a new writing, whatever the clock says."""
    return max(time.time_ns(), newest + 1)


def content_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_or_none(path: Path) -> bytes | None:
    """A file's content, None where there is no file."""
    return path.read_bytes() if path.is_file() else None


def replace(path: Path, content: bytes) -> None:
    """Writes a file so that it is the old one or the new one at every moment."""
    try:
        _beside(path).write_bytes(content)
        os.replace(_beside(path), path)
    finally:
        _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    # One name for each file: so that what a killed process leaves is found again.
    return path.with_name(f".{path.name}.writing")


def _found(root: Path) -> Iterator[Backup]:
    for folder in root.glob(f"{PREFIX}*"):
        content = read_or_none(folder / MANIFEST)
        if content is None:
            _remove_stillborn(folder)
        else:
            try:
                yield _read(folder, json.loads(content))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"The list {folder.name}/{MANIFEST} cannot be read ({error}).",
                    "It says which captions were written, and is needed to go back.",
                    f"Copy the old captions out of {folder.name} by hand, then move that folder away.",
                ) from error


def _remove_stillborn(folder: Path) -> None:
    """A process killed at once leaves a folder with no list and nothing kept; others are left alone."""
    _beside(folder / MANIFEST).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _read(folder: Path, content: Any) -> Backup:  # noqa: ANN401 - JSON of any shape
    if content["format"] != FORMAT or content["state"] not in _STATES:
        raise ValueError(f"format {content['format']}, state {content['state']!r}")
    entries = {}
    for name, entry in content["files"].items():
        path = folder.parent / name
        # The folder can come from somebody else: its list must not reach beyond it.
        inside = path.is_relative_to(folder.parent) and ".." not in Path(name).parts
        if not inside or path.suffix != ".txt":
            raise ValueError(f"{name!r} is no caption file below its folder")
        entries[name] = Entry(entry["before"], [str(each) for each in entry["after"]])
    return Backup(folder, int(content["order"]), content["state"], entries)
