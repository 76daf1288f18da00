"""What can be told of a LoRA file without loading it: its hash, its trigger words, where it came from."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..version import package_version
from .files import read_metadata
from .recipes import FileNote, Recipe, row_files
from .stack import LoraStack, Row, alone
from .triggers import find_triggers

logger = logging.getLogger("tandem.recipes")

PathOf = Callable[[str], "Path | None"]
"""The file of a LoRA by its name in the host's lists; None when it is not there."""
DigestOf = Callable[[Path], str]

SIDECARS = (".civitai.info", ".metadata.json")
"""Beside FILE.safetensors as FILE.civitai.info (Civitai Helper) or FILE.metadata.json (LoRA Manager)."""
SOURCE_KEYS = ("source_url", "source", "url", "homepage", "modelspec.source")
LONGEST_ADDRESS = 500


def recipe_of(
    stack: LoraStack, path_of: PathOf, digest_of: DigestOf, *, name: str = "", note: str = ""
) -> Recipe:
    """The stack as a recipe, with a note of every file that is here.

    The rows are as a person wrote them, so that they fit a single model too; a half that was found has its note.
    """
    rows = tuple(map(alone, stack.rows))
    halves = tuple(half for row in stack.rows for half in _found_halves(row))
    recipe = Recipe(name=name, note=note, triggers=stack.triggers, rows=rows, files=halves)
    return completed(recipe, path_of, digest_of)


def _found_halves(row: Row) -> Iterator[FileNote]:
    for part in (row, row.blend):
        if part is None or part.named is None or part.lora_low is None:
            continue
        if part.named == part.lora:
            yield FileNote(name=part.lora_low, half_of=part.named, side="low")
        else:
            yield FileNote(name=part.lora, half_of=part.named, side="high")


def completed(recipe: Recipe, path_of: PathOf, digest_of: DigestOf) -> Recipe:
    """The recipe with a fresh note of every file that is here; other notes stay as they are.

    Raises `UserError` when a file of a row that is on cannot be read.
    """
    used = set(recipe.used())
    kinds, notes = kinds_by_file(recipe.rows), []
    for name, old in recipe.notes().items():
        path = None if old.choose else path_of(name)
        try:
            kind = kinds.get(old.half_of or name) or old.kind
            fresh = None if path is None else note_of(name, path, digest_of, kind=kind)
        except UserError:
            if name in used:
                raise
            fresh = None
        notes.append(_merged(old, fresh))
    return replace(recipe, files=tuple(notes), made_with=f"tandem-wan {package_version()}")


def _merged(old: FileNote, fresh: FileNote | None) -> FileNote:
    """What is known now; of the words and the source, what was known before if nothing is now."""
    if fresh is None:
        return old
    return replace(
        fresh,
        triggers=fresh.triggers or old.triggers,
        source=fresh.source or old.source,
        half_of=old.half_of,
        side=old.side,
    )


def note_of(name: str, path: Path, digest_of: DigestOf, *, kind: str | None = None) -> FileNote:
    """Hash, size, trigger words and source of one file; its own metadata go before a sidecar's."""
    metadata = read_metadata(path)
    return FileNote(
        name=name,
        sha256=digest_of(path),
        size=path.stat().st_size,
        kind=kind,
        triggers=_words(path, metadata),
        source=_source(metadata) or _sidecar_source(read_sidecar(path)),
    )


def with_words(recipe: Recipe, path_of: PathOf) -> Recipe:
    """The recipe with the trigger words of its files, where it has none of its own for any of them."""
    notes = []
    for name, note in recipe.notes().items():
        path = None if note.triggers or note.choose else path_of(name)
        words = () if path is None else _words(path, read_metadata(path))
        notes.append(replace(note, triggers=words or note.triggers))
    return replace(recipe, files=tuple(notes))


def kinds_by_file(rows: tuple[Row, ...]) -> dict[str, str]:
    """The row's word for each of its files."""
    return {name: row.kind for row in rows if row.kind for name in row_files((row,))}


def read_sidecar(path: Path) -> Mapping[str, Any]:
    """Civitai's description of the file from beside it; empty without one."""
    for suffix in SIDECARS:
        try:
            found = json.loads(path.with_suffix(suffix).read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            # Other programs write it, and a recipe is whole without it.
            logger.warning("%s is passed over: %s", path.with_suffix(suffix), error)
            continue
        if isinstance(found, dict):
            inner = found.get("civitai")  # LoRA Manager keeps Civitai's answer one level down
            return {**found, **inner} if isinstance(inner, dict) else found
    return {}


def _words(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(found.words for found in find_triggers(path, metadata).sets)


def _source(metadata: Mapping[str, str]) -> str | None:
    return next(filter(None, (_address(metadata.get(key)) for key in SOURCE_KEYS)), None)


def _sidecar_source(sidecar: Mapping[str, Any]) -> str | None:
    model, version = sidecar.get("modelId"), sidecar.get("id")
    if isinstance(model, int):
        page = f"https://civitai.com/models/{model}"
        return f"{page}?modelVersionId={version}" if isinstance(version, int) else page
    return _address(sidecar.get("downloadUrl"))


def _address(value: object) -> str | None:
    if not isinstance(value, str) or not value.startswith(("https://", "http://")):
        return None
    return value if len(value) <= LONGEST_ADDRESS and value.isprintable() else None
