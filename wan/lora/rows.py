"""The rows of a LoRA stack as people and programs write them: JSON, checked row by row."""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..errors import UserError
from .kinds import KINDS
from .strength import parse_strength

Route = Literal["auto", "both", "high", "low"]
ROUTES: tuple[Route, ...] = ("auto", "both", "high", "low")


@dataclass(frozen=True, kw_only=True)
class Blend:
    """A second LoRA that is mixed into a row's own: the row's counts 1 - share, this one share."""

    lora: str
    lora_low: str | None = None
    """The low-noise expert's file; None when `lora` is for both."""
    share: float = 0.5
    """From 0 to 1. The row's strengths multiply both parts."""
    named: str | None = None
    """As in `Row`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One LoRA of a stack. `lora` alone follows `route`; with `lora_low`, `lora` is the high expert's."""

    lora: str
    lora_low: str | None = None
    on: bool = True
    high: float = 1.0
    """Strength on the high-noise expert, or on a single model."""
    low: float = 1.0
    """Strength on the low-noise expert."""
    route: Route = "auto"
    kind: str | None = None
    """A name of `kinds.KINDS`."""
    schedule: str | None = None
    """Factor of the strength over the run, in the syntax of `strength.py`; None is 1 all along."""
    schedule_low: str | None = None
    """The same for the low-noise expert; None is as `schedule`."""
    blend: Blend | None = None
    named: str | None = None
    """The file that was written, when the other half of its pair was found beside it. No key of a row."""


KEYS = tuple(field.name for field in fields(Row) if field.name != "named")
BLEND_KEYS = ("lora", "lora_low", "share")
ALIASES = {"lora_name": "lora", "enabled": "on"}
"""Keys of the host's own rows; `strength` there stands for `high` and `low`."""

_EXAMPLE = '[{"lora": "x_high_noise.safetensors", "lora_low": "x_low_noise.safetensors", "high": 1.0, "low": 1.0}]'


def parse_rows(text: str) -> tuple[Row, ...]:
    """The rows of a JSON list; an error names the row, counted from 1."""
    try:
        entries = json.loads(text or "[]")
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: also a number of more than 4,300 digits
        raise UserError(
            f"rows is not JSON ({error}).", "It is a list of rows.", f"For example: {_EXAMPLE}"
        ) from error
    if not isinstance(entries, list):
        raise UserError(
            f"rows is a {type(entries).__name__}.",
            "It is a list of rows.",
            f"For example: {_EXAMPLE}",
        )
    return tuple(parse_row(f"Row {number}", entry) for number, entry in enumerate(entries, 1))


def rows_json(rows: tuple[Row, ...]) -> str:
    """The rows as text that `parse_rows` reads back."""
    return json.dumps([row_entry(row) for row in rows])


def row_entry(row: Row) -> dict[str, object]:
    """A row as the JSON object that `parse_row` reads back, every key written out."""
    entry = {key: getattr(row, key) for key in KEYS}
    if row.blend is not None:
        entry["blend"] = {key: asdict(row.blend)[key] for key in BLEND_KEYS}
    return entry


def parse_row(where: str, entry: object) -> Row:
    """One row; `where` is how its errors name it, for example `Row 2`."""
    if not isinstance(entry, Mapping):
        raise UserError(
            f"{where} is {entry!r}.",
            "A row is an object with at least `lora`.",
            f"For example: {_EXAMPLE}",
        )
    values = _without_aliases(where, entry)
    if unknown := sorted(set(map(str, values)) - set(KEYS)):
        raise UserError(
            f"{where} has {', '.join(unknown)}.",
            f"A row can have {', '.join(KEYS)}.",
            "Check the spelling.",
        )
    if not _is_name(values.get("lora")):
        raise UserError(
            f"{where} names no LoRA.",
            "`lora` is the name of a file in a loras folder.",
            "Add it to the row.",
        )
    _check_types(where, values)
    _check_schedules(where, values)
    if values.get("blend") is not None:
        values["blend"] = _blend(f"{where}: blend", values["blend"])
    usual = KINDS[values["kind"]].strength if values.get("kind") else 1.0
    values |= {side: float(values.get(side, usual)) for side in ("high", "low")}
    return Row(**values)


def _without_aliases(where: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in entry.items():
        meant = ALIASES.get(key, key)
        if meant in values:
            other = next(k for k in entry if k != key and ALIASES.get(k, k) == meant)
            raise UserError(
                f"{where} has both {other} and {key}.",
                "They are two spellings of one thing.",
                f"Keep {meant}.",
            )
        values[meant] = value
    if "strength" in values:
        strength = values.pop("strength")
        values = {"high": strength, "low": strength, **values}
    return values


def _check_types(where: str, values: Mapping[str, object]) -> None:
    for name, (fits, expected) in _FITS.items():
        if name in values and not fits(values[name]):
            raise UserError(
                f"{where}: {name} is {reprlib.repr(values[name])}.",
                f"It can be {expected}.",
                "Choose one of them." if name in ("route", "kind") else "Change it in the row.",
            )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # Compared, not converted: a whole number of 400 digits is no float.
    return -sys.float_info.max <= value <= sys.float_info.max


_FITS = {
    "lora_low": (lambda value: value is None or _is_name(value), "a file name or null"),
    "on": (lambda value: isinstance(value, bool), "true or false"),
    "high": (_is_number, "a number, for example 1.0"),
    "low": (_is_number, "a number, for example 1.0"),
    "route": (lambda value: value in ROUTES, ", ".join(ROUTES)),
    "kind": (
        lambda value: value is None or (isinstance(value, str) and value in KINDS),
        f"{', '.join(KINDS)}, or null",
    ),
}


def _check_schedules(where: str, values: Mapping[str, object]) -> None:
    for name in ("schedule", "schedule_low"):
        text = values.get(name)
        if text is None:
            continue
        if not isinstance(text, str):
            raise UserError(
                f"{where}: {name} is {text!r}.",
                "It is text, or null for the same strength all along.",
                'Write it in quotes, for example "0.2@0, 1@0.5".',
            )
        try:
            parse_strength(text)
        except UserError as error:
            raise UserError(f"{where}, {name}: {error.came}", error.can_be, error.to_do) from error


def _blend(where: str, value: object) -> Blend:
    example = '{"lora": "y.safetensors", "share": 0.3}'
    if not isinstance(value, Mapping):
        raise UserError(
            f"{where} is {value!r}.",
            "It is an object: a second LoRA and its share, or null.",
            f"For example: {example}",
        )
    values: Mapping[str, Any] = value
    if unknown := sorted(set(map(str, values)) - set(BLEND_KEYS)):
        raise UserError(
            f"{where} has {', '.join(unknown)}.",
            f"A blend can have {', '.join(BLEND_KEYS)}.",
            "Check the spelling.",
        )
    if not _is_name(values.get("lora")):
        raise UserError(
            f"{where} names no LoRA.",
            "`lora` in it is the file that is mixed in.",
            f"For example: {example}",
        )
    low = values.get("lora_low")
    if low is not None and not _is_name(low):
        raise UserError(
            f"{where}: lora_low is {low!r}.", "It can be a file name or null.", "Change it."
        )
    share = values.get("share", Blend.share)
    if not _is_number(share) or not 0 <= share <= 1:
        raise UserError(
            f"{where}: share is {reprlib.repr(share)}.",
            "It is a number from 0 (the row's own LoRA alone) to 1 (the other alone).",
            f"For example: {example}",
        )
    return Blend(lora=values["lora"], lora_low=low, share=float(share))
