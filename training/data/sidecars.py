"""The `.txt` files that lie beside films and pictures and hold their captions."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ...wan.errors import UserError
from ...wan.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .lists import folded, one_line, utf8_text

MEDIA_SUFFIXES = VIDEO_SUFFIXES + IMAGE_SUFFIXES
MAX_BYTES = 1 << 20
"""A caption is a few hundred bytes; what is larger than this is another kind of file."""


class Sidecars:
    """Owns what it saw of folders, so it is for one reading."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def of(self, media: Path) -> Path | None:
        """The file beside `media`: of exactly its name, else the only one whose name differs in capitals or in how
        letters with accents are encoded, as between systems."""
        exact = media.with_suffix(".txt")
        if exact.is_file():
            return exact
        near = self._texts(media.parent).get(folded(media.stem), [])
        return near[0] if len(near) == 1 else None

    def _texts(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._folders:
            files = list(folder.iterdir())
            texts = [path for path in files if path.suffix.lower() == ".txt" and path.is_file()]
            # What has exactly the name of a film is the caption of that one alone.
            taken = {path.stem for path in files if path.suffix.lower() in MEDIA_SUFFIXES}
            found = defaultdict(list)
            for path in texts:
                if path.suffix != ".txt" or path.stem not in taken:
                    found[folded(path.stem)].append(path)
            self._folders[folder] = found
        return self._folders[folder]


def sidecar_text(path: Path) -> str:
    """The caption in one line. Raises `UserError` when the file cannot be read, is no UTF-8, or far too large."""
    try:
        size = path.stat().st_size
        text = utf8_text(path) if size <= MAX_BYTES else ""
    except OSError as error:
        raise UserError(
            f"The caption file {path.name} cannot be read ({error.strerror or error}).",
            "It is a text file that ComfyUI may read.",
            "Allow reading it, or write it again.",
        ) from error
    if size > MAX_BYTES:
        raise UserError(
            f"The caption file {path.name} has {size >> 20} MiB.",
            f"A caption has at most {MAX_BYTES >> 20} MiB.",
            "Put the caption there in place of what is in it.",
        )
    return one_line(text)
