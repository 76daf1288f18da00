"""Rows as flat inputs of a node, `loras.0.lora_name`, `loras.0.strength`: each one can be a link of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from ..errors import UserError
from .rows import ALIASES, BLEND_KEYS, KEYS, Row, parse_row

_KEY = re.compile(r"loras\.(\d+)\.([^.]+)(?:\.([^.]+))?")
NO_FILE = ("", "none")
"""What a row's file list shows for an empty row, in small letters."""
LINKED = "the file of a link"


def flat_rows(inputs: Mapping[str, object], *, links_open: bool = False) -> tuple[Row, ...]:
    """The rows of inputs `loras.N.FIELD`, by N; numbers may be left out, and a row without a file is skipped.

    FIELD is a row's key, or the host's `lora_name`, `strength` and `enabled`. None is a field that is not given.
    With `links_open`, as when a prompt is queued, None is a link whose value is not there yet: its row is checked as
    far as it is known, and left out of the result if the link is to the file.

    Raises `UserError` with the input and the fix.
    """
    rows = []
    for number, entry in _entries(inputs).items():
        if _is_empty(entry.get("lora")):
            continue
        values = _with_placeholders(entry) if links_open else entry
        row = parse_row(f"Row loras.{number}", _given(f"Row loras.{number}", values))
        if links_open and _has_open_file(entry.get("blend")):
            row = replace(row, blend=None)
        if not (links_open and _has_open_file(entry)):
            rows.append(row)
    return tuple(rows)


def _entries(inputs: Mapping[str, object]) -> dict[int, dict[str, object]]:
    entries: dict[int, dict[str, object]] = {}
    blends: dict[int, dict[str, object]] = {}
    for key, value in inputs.items():
        if key.startswith("$$"):
            continue  # The front end's own widgets.
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError(
                f"There is an input {key!r}.",
                f"A row's inputs are loras.N.FIELD, where FIELD is one of {_FIELDS}.",
                "Check the spelling; the other inputs are rows and stack.",
            )
        where, entry = f"Row loras.{match[1]}", entries.setdefault(int(match[1]), {})
        if not match[3]:
            _put(where, entry, match[2], value)
        elif match[2] == "blend":
            _put(f"{where}, blend", blends.setdefault(int(match[1]), {}), match[3], value)
        else:
            raise UserError(
                f"{where} has {match[2]}.{match[3]}.",
                f"A row can have {_FIELDS}.",
                "Check the spelling.",
            )
    for number, parts in blends.items():
        whole = entries[number].get("blend")
        entries[number]["blend"] = _one_blend(f"Row loras.{number}", whole, parts)
    return dict(sorted(entries.items()))


def _one_blend(where: str, whole: object, parts: dict[str, object]) -> object:
    """The blend of a row, which is one input or an input for each of its fields."""
    if whole is None or whole == "":
        return parts
    if given := [key for key, value in parts.items() if value is not None and value != ""]:
        raise UserError(
            f"{where} has blend and blend.{given[0]}.",
            "A blend is one input, loras.N.blend, or an input for each of its fields.",
            f"Put {given[0]} into blend, or give every field as an input of its own.",
        )
    return whole


def _put(where: str, entry: dict[str, object], key: str, value: object) -> None:
    field = ALIASES.get(key, key)
    if field in entry:
        raise UserError(
            f"{where} gives {field} twice, the second time as {key}.",
            f"{key} and {field} are one thing.",
            f"Keep {field}.",
        )
    entry[field] = value


def _with_placeholders(entry: Mapping[str, object]) -> dict[str, object]:
    values = dict(entry)
    if _has_open_file(values):
        values["lora"] = LINKED
    blend = values.get("blend")
    if isinstance(blend, Mapping) and _has_open_file(blend):
        values["blend"] = {**blend, "lora": LINKED}
    return values


def _has_open_file(fields: object) -> bool:
    """A link to the file of a row or a blend has not come yet."""
    return isinstance(fields, Mapping) and "lora" in fields and fields["lora"] is None


_FIELDS = ", ".join((*KEYS, *ALIASES, "strength", *(f"blend.{key}" for key in BLEND_KEYS)))
_NUMBERS = ("high", "low", "strength")


def _given(where: str, entry: Mapping[str, object]) -> dict[str, object]:
    """The fields that are there, as the types that a row has: a widget gives text for nothing, a link any type."""
    values: dict[str, object] = {}
    for field, value in entry.items():
        if value is None or (value == "" and field not in ("lora", *_NUMBERS)):
            continue
        if field in _NUMBERS:
            values[field] = _number(value)
        elif field == "on" and isinstance(value, int):
            values[field] = bool(value)
        elif field == "blend":
            values[field] = _blend(where, value)
        else:
            values[field] = value
    return values


def _number(value: object) -> object:
    """Text that is a number as a number, as the host takes it; anything else as it is, for the row's own check."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _blend(where: str, value: object) -> object:
    if isinstance(value, Mapping):
        given = {k: _number(v) if k == "share" else v for k, v in value.items() if v is not None}
        return {k: v for k, v in given.items() if not (k == "lora_low" and v == "")}
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: blend is not JSON ({error}).",
            "As one input it is the JSON object of a second LoRA and its share.",
            'For example: {"lora": "y.safetensors", "share": 0.3}',
        ) from error


def _is_empty(lora: object) -> bool:
    """A row whose file list shows no file."""
    return isinstance(lora, str) and lora.strip().lower() in NO_FILE
