"""The captions that files give now, as a new reading of the dataset would find them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from ...wan.errors import UserError
from ..data.captions import Captions
from ..data.dataset import TRIGGER_SLOT, Dataset
from .files import root_of


def captions_there(dataset: Dataset, removed: Collection[Path]) -> list[str]:
    """The caption of each clip: of its `.txt`, else of a list; with the trigger in its place.

    `removed` are `.txt` files that are gone: their clips have no caption where no list has one. Others keep
    the dataset's own caption where no file has one. What cannot be read is left as it was: nothing is raised.
    """
    sources = _sources(dataset)
    trigger = dataset.trigger.strip()
    texts = []
    for clip in dataset.clips:
        own = "" if clip.path.with_suffix(".txt") in removed else clip.caption
        text = _text(sources[root_of(dataset, clip)], clip.path, own)
        texts.append(text.replace(TRIGGER_SLOT, trigger) if trigger else text)
    return texts


def _sources(dataset: Dataset) -> dict[Path, Captions | None]:
    chosen: dict[Path, list[Path]] = {}
    for clip in dataset.clips:
        chosen.setdefault(root_of(dataset, clip), []).append(clip.path)
    skipped = [each.path for each in dataset.skipped]
    # Lines without names count the files that were not used, too.
    return {
        root: _source(root, sorted({*paths, *(p for p in skipped if p.is_relative_to(root))}))
        for root, paths in chosen.items()
    }


def _source(root: Path, chosen: list[Path]) -> Captions | None:
    files = dict.fromkeys([*chosen, *_files(root, chosen)])
    try:
        return Captions(root, files, chosen)
    except (UserError, OSError):  # a list that is broken
        return None


def _files(root: Path, chosen: list[Path]) -> Iterator[Path]:
    """What is not hidden below `root`, and beside clips that lie behind links."""
    folders = {
        root,
        *(parent for path in chosen for parent in path.parents if root in parent.parents),
    }
    for inside, below, _ in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        folders.add(Path(inside))
    for folder in sorted(folders):
        if folder.is_dir():
            yield from sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != ".")


def _text(source: Captions | None, path: Path, own: str) -> str:
    beside = path.with_suffix(".txt")
    try:
        text = source.of(path) if source else _plain(beside)
    except (UserError, OSError):
        return own
    return text or ("" if beside.is_file() else own)


def _plain(path: Path) -> str:
    if not path.is_file():
        return ""
    return " ".join(path.read_text(encoding="utf-8-sig", errors="replace").split())
