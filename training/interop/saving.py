"""An export as a folder of files: all of them or none, and what was there before is kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...wan.errors import UserError


def save_files(folder: Path, files: Mapping[str, str]) -> Path | None:
    """Writes the files as `folder`; a folder of that name with other content becomes NAME.old.1, .2, ...

    Returns where the old one went, or None. The same content again changes nothing.
    """
    if _holds(folder, files):
        return None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, text in files.items():
                (beside / name).write_text(text, encoding="utf-8", newline="\n")
            # mkdtemp's folder is its maker's alone.
            beside.chmod(0o755)
            old = _put_aside(folder)
            try:
                os.replace(beside, folder)
            except OSError:
                if old:
                    os.replace(old, folder)
                raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"The plan could not be written to {folder} ({error}).",
            "It is a folder that can be written, on a disk with room.",
            "Free some room or check its permissions, or leave name empty to have the text alone.",
        ) from error
    return old


def _holds(folder: Path, files: Mapping[str, str]) -> bool:
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(files):
        return False
    return all((folder / n).read_bytes() == text.encode("utf-8") for n, text in files.items())


def _put_aside(folder: Path) -> Path | None:
    if not folder.exists():
        return None
    number = 1
    while (old := folder.with_name(f"{folder.name}.old.{number}")).exists():
        number += 1
    os.replace(folder, old)
    return old
