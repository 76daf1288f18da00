"""What names of folders say: kohya's `10_mermaid`, how often each file in it is shown in an epoch; `regularisation`,
that its files keep what the model knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .dataset import Clip

# kohya-ss/sd-scripts, library/train_util.py: "<repeats>_<concept>". A leading 0 (01_intro) or a year (2024_summer)
# is how people number folders, so neither is read.
_KOHYA = re.compile(r"([1-9]\d{0,2})_.*")
REGULARISATION = ("regularisation", "regularization")


def folder_repeats(path: Path, root: Path) -> int:
    """What the innermost folder of kohya's form from `root` down to `path` says; 1 without one."""
    folder = _kohya_folder(path, root)
    match = _KOHYA.fullmatch(folder.name) if folder else None
    return int(match[1]) if match else 1


def in_regularisation(path: Path, root: Path) -> bool:
    """Whether a folder below `root`, down to `path`, is called regularisation, in either spelling."""
    return any(part.lower() in REGULARISATION for part in path.relative_to(root).parts[:-1])


def repeat_notes(root: Path, clips: Sequence[Clip]) -> list[str]:
    """A line for each such folder, and what that means."""
    folders = {folder for clip in clips if (folder := _kohya_folder(clip.path, root))}
    if not folders:
        return []
    notes = [
        f"{folder.name}: kohya's form; each clip in it is shown {folder_repeats(folder / 'x', root)} times an epoch"
        for folder in sorted(folders)
    ]
    if len({clip.repeats for clip in clips}) == 1:
        notes.append(
            f"All clips in {root.name} have the same repeats: alone that changes nothing in how often a clip is seen "
            "in a run of fixed steps; beside another dataset it is their weight"
        )
    else:
        notes.append("Repeats are weights: a clip with twice the repeats is seen twice as often")
    return notes


def _kohya_folder(path: Path, root: Path) -> Path | None:
    inside = path.relative_to(root).parts[:-1]
    folders = [root.joinpath(*inside[:n]) for n in range(len(inside), -1, -1)]
    return next((folder for folder in folders if _KOHYA.fullmatch(folder.name)), None)
