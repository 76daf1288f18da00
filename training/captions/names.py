"""What clips are called in a report: so that two files of one name are told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path


def path_names(files: Iterable[tuple[Path, Path]]) -> dict[Path, str]:
    """Files, each with its dataset folder, to what they are called: the name alone; the path below the folder
    where two files have one name; with the folder's name before it, or the whole path, where that is not enough.
    """
    roots = dict(files)
    names = {path: path.name for path in roots}
    for longer in (_below, _with_folder, lambda path, _: path.as_posix()):
        often = Counter(names.values())
        names = {p: longer(p, roots[p]) if often[name] > 1 else name for p, name in names.items()}
    return names


def named(names: Sequence[str], shown: int) -> str:
    """The first of them."""
    return ", ".join(names[:shown]) + (" ..." if len(names) > shown else "")


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _with_folder(path: Path, root: Path) -> str:
    return f"{root.name}/{_below(path, root)}" if path.is_relative_to(root) else path.as_posix()
