"""Caption files beside their clips: written whole, with a way back to those that were there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...wan.errors import UserError
from ..data.dataset import Clip, Dataset
from .backup import Backup, backups, content_hash, new_backup, next_order, read_or_none, replace


class CaptionFile(NamedTuple):
    """A caption file of a dataset."""

    path: Path
    root: Path
    """The dataset folder that it belongs to; its old caption is kept there."""
    text: str
    """What is to stand in it."""
    clip: Clip
    """The first clip that it belongs to."""

    @property
    def content(self) -> bytes:
        return f"{self.text}\n".encode()


class Written(NamedTuple):
    """What a writing did."""

    kept: tuple[Path, ...]
    """The folders with what was there before, one for each dataset folder; empty where nothing changed."""
    changed: int
    """Files that had another caption."""
    created: int
    same: int
    finished: bool
    """It went on where an earlier writing had been cut off."""


class Undone(NamedTuple):
    """What going back did."""

    folders: tuple[Path, ...]
    """The dated folders whose captions are back; empty where there is no writing to undo."""
    restored: tuple[Path, ...]
    removed: tuple[Path, ...]
    """Files that the writing had made where there was none."""
    edited: tuple[Path, ...]
    """Files that the writing had made and somebody has edited since: they stay."""
    replaced: tuple[Path, ...]
    """Where edited captions lie that the old ones took the place of."""
    lost: tuple[Path, ...]
    """Files whose old caption is gone from the dated folder or was changed there: they stay as they are."""


def caption_files(dataset: Dataset, captions: Sequence[str]) -> list[CaptionFile]:
    """The `.txt` file of each clip with its caption, each once; regularisation clips are left out.

    Raises `UserError` for clips that share a file and have different captions.
    """
    files: dict[Path, CaptionFile] = {}
    for clip, text in zip(dataset.clips, captions, strict=True):
        if clip.regularisation:
            continue
        path = clip.path.with_suffix(".txt")
        first = files.setdefault(path, CaptionFile(path, root_of(dataset, clip), text, clip))
        if first.text != text:
            raise UserError(
                f"{first.clip.name} and {clip.name} share {path.name}, and have the captions "
                f"{first.text!r} and {text!r}.",
                "All clips of one file name have one caption.",
                "Give them one row in the table, or rename one of the files.",
            )
    return list(files.values())


def root_of(dataset: Dataset, clip: Clip) -> Path:
    """The dataset folder in which a clip lies."""
    root = clip.root or dataset.folder
    return root if clip.path.is_relative_to(root) else clip.path.parent


def write_captions(dataset: Dataset, captions: Sequence[str]) -> Written:
    """Writes each caption beside its clip, whole or not at all; files that are right already stay untouched.

    What was there goes first to a dated folder in each dataset folder, under the same relative names, with a
    list of what is written; so a writing that is cut off loses nothing. The next one goes on with that list,
    and `undo_captions` then brings back what was there before the first.
    Raises `UserError` when a file cannot be written; what is written until then stays.
    """
    files = caption_files(dataset, captions)
    try:
        return _write(files)
    except OSError as error:
        raise _unwritable(error) from error


def undo_captions(dataset: Dataset) -> Undone:
    """Takes the newest writing back, in every dataset folder that it was for; again takes the one before it.

    Raises `UserError` when a file cannot be written; calling it again goes on.
    """
    try:
        return _undo({root_of(dataset, clip) for clip in dataset.clips} | {dataset.folder})
    except OSError as error:
        raise _unwritable(error) from error


def _write(files: list[CaptionFile]) -> Written:
    by_root: dict[Path, list[CaptionFile]] = {}
    for file in files:
        by_root.setdefault(file.root, []).append(file)
    found = {file.path: read_or_none(file.path) for file in files}
    changed = {file.path for file in files if found[file.path] != file.content}
    begun = _begun(by_root)
    if not changed and not begun:
        return Written((), 0, 0, len(files), finished=False)
    order = next(iter(begun.values())).order if begun else next_order(_newest(by_root))
    work: list[tuple[Backup, list[CaptionFile]]] = []
    # All folders are prepared before the first caption changes: so undo knows of all of them.
    for root, of_root in by_root.items():
        wanted = [file for file in of_root if file.path in changed]
        if root in begun or wanted:
            backup = begun.get(root) or new_backup(root, order)
            backup.prepare({file.path: content_hash(file.content) for file in wanted})
            work.append((backup, wanted))
    for _, wanted in work:
        for file in wanted:
            replace(file.path, file.content)
    for backup, _ in work:
        backup.finish()
    created = sum(found[path] is None for path in changed)
    kept = tuple(backup.folder for backup, _ in work)
    same = len(files) - len(changed)
    return Written(kept, len(changed) - created, created, same, finished=bool(begun))


def _begun(roots: Iterable[Path]) -> dict[Path, Backup]:
    """The backups of a writing that was cut off, also those of it that were finished."""
    every = {root: backups(root) for root in roots}
    orders = {backup.order for found in every.values() for backup in found if backup.unfinished}
    if not orders:
        return {}
    newest = max(orders)
    return {
        root: backup
        for root, found in every.items()
        for backup in found
        if backup.order == newest and not backup.undone
    }


def _newest(roots: Iterable[Path]) -> int:
    return max((backup.order for root in roots for backup in backups(root)), default=0)


def _undo(roots: set[Path]) -> Undone:
    every = [b for root in sorted(roots) for b in backups(root) if b.begun and not b.undone]
    newest = max((backup.order for backup in every), default=0)
    done: dict[str, list[Path]] = {key: [] for key in Undone._fields}
    for backup in (each for each in every if each.order == newest):
        done["folders"].append(backup.folder)
        backup.mark_undoing()
        for path, before in backup.before().items():
            _take_back(backup, path, before, done)
        backup.mark_undone()
    return Undone(**{key: tuple(paths) for key, paths in done.items()})


def _take_back(
    backup: Backup, path: Path, before: str | None, done: Mapping[str, list[Path]]
) -> None:
    now = read_or_none(path)
    ours = now is None or backup.wrote(path, now)
    if now is not None and content_hash(now) == before:
        return
    if before is None:
        if now is not None:
            done["removed" if ours else "edited"].append(path)
        if ours:
            path.unlink(missing_ok=True)
        return
    old = backup.old(path)
    if old is None or content_hash(old) != before:
        done["lost"].append(path)
        return
    if now is not None and not ours:
        done["replaced"].append(backup.keep_edited(path, now))
    replace(path, old)
    done["restored"].append(path)


def _unwritable(error: OSError) -> UserError:
    name = Path(error.filename).name if isinstance(error.filename, str) else "A caption file"
    return UserError(
        f"{name} could not be written: {error.strerror or error}.",
        "Captions are written beside their clips, and the old ones kept in a folder there.",
        "Make room or allow writing, then write again: it goes on where it stopped, and undo brings back all.",
    )
