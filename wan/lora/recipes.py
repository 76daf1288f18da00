"""A recipe: a LoRA stack as a JSON document that another computer can read, with what it takes to find its files."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import UserError
from .stack import LoraStack, Row, parse_rows, rows_json

RECIPE_VERSION = 1
LONGEST_RECIPE = 1_000_000
"""Characters of a recipe's text; a stack of a hundred rows has about 60,000."""


@dataclass(frozen=True, kw_only=True)
class FileNote:
    """What a recipe knows of one file: enough to find it under another name, or to fetch it."""

    name: str
    """As the rows say it: a file in a loras folder with its subfolder, or a role when `choose` is set."""
    sha256: str | None = None
    """64 hex digits, of the whole file."""
    size: int | None = None
    """Bytes; there whenever `sha256` is, so that only files of this size need to be hashed."""
    kind: str | None = None
    triggers: tuple[str, ...] = ()
    source: str | None = None
    """The web address from which it came."""
    choose: str | None = None
    """What a person has to put here: then `name` is no file but a role, such as `style`."""
    half_of: str | None = None
    """The file of a row whose other half this is: it was found beside it, and no row names it."""
    side: str | None = None
    """Of a found half: high or low."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A stack with a name, a note, and a `FileNote` for each file that its rows name."""

    name: str = ""
    note: str = ""
    triggers: tuple[str, ...] = ()
    """Words of the stack; when empty, those of the files of the rows that are on."""
    rows: tuple[Row, ...] = ()
    files: tuple[FileNote, ...] = ()
    made_with: str = ""

    def notes(self) -> dict[str, FileNote]:
        """A note for every file of the rows, in their order, a bare one where the document has none; then those of
        the halves that were found."""
        known = {note.name: note for note in self.files}
        named = {name: known.get(name, FileNote(name=name)) for name in row_files(self.rows)}
        return named | {half.name: half for half in self.halves()}

    def halves(self) -> list[FileNote]:
        """The notes of files that no row names, and that are the other half of one that a row names."""
        named = row_files(self.rows)
        return [n for n in self.files if n.half_of in named and n.name not in named]

    def used(self) -> list[str]:
        """The files of the rows that are on, with the halves that were found."""
        named = row_files(tuple(row for row in self.rows if row.on))
        return named + [half.name for half in self.halves() if half.half_of in named]

    def words(self) -> tuple[str, ...]:
        """The trigger words to put into the prompt."""
        if self.triggers:
            return self.triggers
        known = self.notes()
        return tuple(dict.fromkeys(word for name in self.used() for word in known[name].triggers))

    def stack(self) -> LoraStack:
        return LoraStack(self.rows, self.words())


def row_files(rows: tuple[Row, ...]) -> list[str]:
    """Every file that the rows name, once, in their order; those of a blend too."""
    found: dict[str, None] = {}
    for entry in json.loads(rows_json(rows)):
        for place in _file_places(entry):
            found.setdefault(place["lora"])
            if place.get("lora_low") is not None:
                found.setdefault(place["lora_low"])
    return list(found)


def with_files(rows: tuple[Row, ...], names: Mapping[str, str]) -> tuple[Row, ...]:
    """The rows with other file names; a file that `names` does not hold keeps its own."""
    entries = json.loads(rows_json(rows))
    for entry in entries:
        for place in _file_places(entry):
            for key in ("lora", "lora_low"):
                if place.get(key) is not None:
                    place[key] = names.get(place[key], place[key])
    return parse_rows(json.dumps(entries))


def with_halves(rows: tuple[Row, ...], halves: Iterable[FileNote]) -> tuple[Row, ...]:
    """The rows with these halves written out where a row, or its blend, names the other one alone."""
    entries = json.loads(rows_json(rows))
    by_other = {half.half_of: half for half in halves}
    for entry in entries:
        for place in _file_places(entry):
            half = by_other.get(place["lora"])
            if half is None or place.get("lora_low") is not None or entry["route"] != "auto":
                continue
            pair = (half.name, place["lora"]) if half.side == "high" else (place["lora"], half.name)
            place["lora"], place["lora_low"] = pair
    return parse_rows(json.dumps(entries))


def recipe_document(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values; what a file's note does not know is left out."""
    return {
        "version": RECIPE_VERSION,
        "name": recipe.name,
        "note": recipe.note,
        "triggers": list(recipe.triggers),
        "rows": json.loads(rows_json(recipe.rows)),
        "files": [_note_document(note) for note in recipe.files],
        "made_with": recipe.made_with,
    }


def recipe_text(recipe: Recipe) -> str:
    """The recipe as JSON that a person can read; half characters, which no file can hold, become `?`."""
    text = json.dumps(recipe_document(recipe), indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "replace").decode()


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Writes beside `path`, then renames: a reader sees the old recipe or the new one."""
    write_whole(path, recipe_text(recipe))


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_recipe(text: str, what: str = "The recipe") -> Recipe:
    """A recipe from its JSON text, or from a bare list of rows; `what` begins the errors.

    Raises `UserError` with the place of what is wrong: an unknown key, a type, a version of the future.
    """
    if len(text) > LONGEST_RECIPE:
        raise UserError(
            f"{what} has {len(text):,} characters.",
            f"A recipe has at most {LONGEST_RECIPE:,}.",
            "Check that it is a recipe and no other file.",
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a bare ValueError
        raise _bad(f"{what} is not JSON ({error}).", "It is one JSON object.") from error
    return recipe_from(document, what)


def recipe_from(document: object, what: str = "The recipe") -> Recipe:
    """A recipe from JSON values of any known version."""
    values = _migrated(document, what)
    _refuse_unknown(values, RECIPE_KEYS, what)
    if not isinstance(values.get("rows"), list):
        raise _bad(f"{what} has no list `rows`.", "`rows` is a list of rows, which may be empty.")
    try:
        rows = parse_rows(json.dumps(values["rows"]))
    except UserError as error:
        raise UserError(f"{what}: {error.came}", error.can_be, error.to_do) from error
    recipe = Recipe(
        name=_text(values, "name", what) or "",
        note=_text(values, "note", what) or "",
        triggers=_words(values, what),
        rows=rows,
        files=_notes(values.get("files", []), what),
        made_with=_text(values, "made_with", what) or "",
    )
    if strange := sorted({note.name for note in recipe.files} - set(recipe.notes())):
        raise _bad(
            f"{what}: files has {', '.join(strange)}, which no row names.",
            f"The rows name {', '.join(row_files(rows)) or 'no file'}.",
        )
    return recipe


def _from_rows(document: object) -> dict[str, Any]:
    """Version 0: a bare list of rows, as Tandem LoRA Stack takes it."""
    return {"version": 1, "rows": document}


MIGRATIONS: dict[int, Callable[[object], dict[str, Any]]] = {0: _from_rows}
"""By version: what makes a document one version newer."""


def _migrated(document: object, what: str) -> dict[str, Any]:
    values: Any = document
    version = 0 if isinstance(document, list) else None
    if isinstance(document, dict):
        version = document.get("version")
    if isinstance(version, bool) or not isinstance(version, int):
        came = f"{what} has no version." if version is None else f"{what}: version is {version!r}."
        raise _bad(came, f"A recipe is a JSON object with `version`: {RECIPE_VERSION} and `rows`.")
    while version in MIGRATIONS:
        values, version = MIGRATIONS[version](values), version + 1
    if version != RECIPE_VERSION:
        raise UserError(
            f"{what} has version {version}.",
            f"This Tandem reads versions 0 to {RECIPE_VERSION}.",
            "Install the newest Tandem, or ask for the recipe in an older version.",
        )
    return values


RECIPE_KEYS = ("version", *(field.name for field in fields(Recipe)))
NOTE_KEYS = tuple(field.name for field in fields(FileNote))
_DIGEST = re.compile(r"[0-9a-f]{64}")


def _notes(entries: object, what: str) -> tuple[FileNote, ...]:
    if not isinstance(entries, list):
        raise _bad(f"{what}: files is {entries!r:.80}.", "It is a list of objects with `name`.")
    notes = tuple(_note(entry, f"{what}: file {n}") for n, entry in enumerate(entries, 1))
    names = [note.name for note in notes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _bad(f"{what}: files has {', '.join(twice)} twice.", "Each file stands there once.")
    return notes


def _note(entry: object, where: str) -> FileNote:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise _bad(f"{where} has no name.", "A file is an object with `name`, as its row has it.")
    _refuse_unknown(entry, NOTE_KEYS, where)
    digest, size = _text(entry, "sha256", where), entry.get("size")
    if digest is not None and not _DIGEST.fullmatch(digest := digest.lower()):
        raise _bad(f"{where}: sha256 is {digest!r:.80}.", "It is 64 hex digits, or null.")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise _bad(f"{where}: size is {size!r:.80}.", "It is a number of bytes, or null.")
    if digest and size is None:
        raise _bad(f"{where} has sha256 but no size.", "Both are there, or neither.")
    return FileNote(
        name=entry["name"],
        sha256=digest,
        size=size,
        kind=_text(entry, "kind", where),
        triggers=_words(entry, where),
        source=_text(entry, "source", where),
        choose=_text(entry, "choose", where),
        half_of=_text(entry, "half_of", where),
        side=_side(entry, where),
    )


def _note_document(note: FileNote) -> dict[str, Any]:
    values = {field.name: getattr(note, field.name) for field in fields(FileNote)}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items() if v}


def _file_places(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a row that name files: the row itself, and its blend."""
    return [entry, *([entry["blend"]] if isinstance(entry.get("blend"), dict) else [])]


def _text(values: Mapping[str, Any], key: str, where: str) -> str | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise _bad(f"{where}: {key} is {value!r:.80}.", "It is text, or null.")
    return value


def _side(entry: Mapping[str, Any], where: str) -> str | None:
    side = _text(entry, "side", where)
    if side not in (None, "high", "low") or bool(side) is not bool(entry.get("half_of")):
        raise _bad(
            f"{where}: side is {side!r:.80}.",
            "It is high or low beside half_of, and null without it.",
        )
    return side


def _words(values: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = values.get("triggers") or []
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise _bad(f"{where}: triggers is {value!r:.80}.", "It is a list of words.")
    return tuple(dict.fromkeys(value))


def _refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    if unknown := sorted(set(values) - set(known)):
        raise _bad(f"{where} has {', '.join(unknown)[:200]}.", f"It can have {', '.join(known)}.")


def _bad(came: str, can_be: str) -> UserError:
    return UserError(came, can_be, "Correct that place, or take the recipe anew from its source.")
