"""The caption of each clip, from wherever its folder has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...wan.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .lists import LIST_NAME, LIST_SUFFIXES, CaptionList, MediaNames, folded, read_list
from .sidecars import Sidecars, sidecar_text

SHOWN_NAMES = 5
SHOWN_LETTERS = 120


class Captions:
    """Captions by file: the `.txt` beside it, else `captions.txt`, JSON lines, JSON, the nearest folder first.

    Raises `UserError` when a file that lists captions cannot be read and a chosen clip has no other caption.
    """

    def __init__(self, folder: Path, files: Iterable[Path], chosen: Sequence[Path]) -> None:
        """`files` are all files below `folder`, `chosen` those that will be read."""
        files = list(files)
        names = MediaNames(folder, (path for path in files if is_media(path)))
        self._sidecars = Sidecars()
        self._lists = [read_list(path, names, chosen) for path in caption_lists(files)]
        self._texts: dict[Path, tuple[str, str]] = {}
        self._differing: dict[tuple[str, str], list[str]] = {}
        for found in self._lists:
            for path, text in found.texts.items():
                name = found.path.relative_to(folder).as_posix()
                kept, source = self._texts.setdefault(path, (text, name))
                if kept != text:
                    self._differ(path, source, name)
        self._refuse(chosen)

    def of(self, path: Path) -> str:
        """One line; empty without a caption. Raises `UserError` when the file beside it cannot be read."""
        listed, source = self._texts.get(path, ("", ""))
        sidecar = self._sidecars.of(path)
        if sidecar is None:
            return listed
        text = sidecar_text(sidecar)
        if source and text != listed:
            self._differ(path, ".txt", source)
        return text

    def notes(self) -> list[str]:
        """What a person should know; complete when every clip has been asked for."""
        notes = [note for found in self._lists for note in _notes(found)]
        for (used, left), names in self._differing.items():
            beside = "the .txt beside it" if used == ".txt" else used
            notes.append(f"Captions in {beside} are used, not the others in {left}: {some(names)}")
        return notes

    def _differ(self, path: Path, used: str, left: str) -> None:
        self._differing.setdefault((used, left), []).append(path.name)

    def _refuse(self, chosen: Sequence[Path]) -> None:
        for found in self._lists:
            if found.refusal and any(
                found.path.parent in path.parents and not self._has_caption(path) for path in chosen
            ):
                raise found.refusal

    def _has_caption(self, path: Path) -> bool:
        return path in self._texts or self._sidecars.of(path) is not None


def is_media(path: Path) -> bool:
    """Whether the name is that of a film or a picture."""
    return path.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES


def caption_lists(files: Sequence[Path]) -> list[Path]:
    """Those of `files` that list captions, in the order in which they count."""
    beside = {(path.parent, folded(path.stem)) for path in files if is_media(path)}

    def is_list(path: Path) -> bool:
        # What has the name of a clip is that clip's own.
        named = path.name.lower() == LIST_NAME or path.suffix.lower() in LIST_SUFFIXES
        return named and (path.parent, folded(path.stem)) not in beside and path.is_file()

    def order(path: Path) -> tuple[int, int, Path]:
        kinds = (".txt", *LIST_SUFFIXES)
        return -len(path.parts), kinds.index(path.suffix.lower()), path

    return sorted(filter(is_list, files), key=order)


def some(names: Sequence[str]) -> str:
    """A few names, and how many there are beside."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(map(cut_short, names[:SHOWN_NAMES])) + more


def cut_short(name: str) -> str:
    """A name for a line of a report: in one line, and not endless."""
    line = " ".join(name.split())
    return line if len(line) <= SHOWN_LETTERS else f"{line[: SHOWN_LETTERS - 3]}..."


def _notes(found: CaptionList) -> list[str]:
    name, notes = found.path.name, list(found.notes)
    if found.refusal:
        notes.append(f"Not used, every clip has another caption: {found.refusal}")
    if found.missing:
        notes.append(f"{name} names files that are not there: {some(found.missing)}")
    if found.outside:
        notes.append(
            f"{name} names files outside the dataset folder, which are left alone: {some(found.outside)}"
        )
    if found.twice:
        notes.append(f"{name} has several captions, the first is used, for: {some(found.twice)}")
    return notes
