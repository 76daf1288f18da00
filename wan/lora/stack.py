"""A stack of LoRAs as rows of JSON: which file, how strong, for which expert."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ..errors import UserError

Route = Literal["auto", "both", "high", "low"]
ROUTES: tuple[Route, ...] = ("auto", "both", "high", "low")
# Part of the row's shape for good, but without effect until the strength schedule and blending exist.
NOT_YET = ("schedule", "schedule_low", "blend")


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
    schedule: str | None = None
    schedule_low: str | None = None
    blend: Any = None


@dataclass(frozen=True)
class LoraStack:
    """Rows in the order in which they are applied."""

    rows: tuple[Row, ...] = ()
    triggers: tuple[str, ...] = ()

    def active(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.on)

    def then(self, other: LoraStack) -> LoraStack:
        """This stack with `other` on top of it."""
        return LoraStack(
            self.rows + other.rows, tuple(dict.fromkeys(self.triggers + other.triggers))
        )


def parse_rows(text: str) -> tuple[Row, ...]:
    """The rows of a JSON list; an error names the row, counted from 1."""
    try:
        entries = json.loads(text or "[]")
    except json.JSONDecodeError as error:
        raise UserError(
            f"rows is not JSON ({error}).", "It is a list of rows.", f"For example: {_EXAMPLE}"
        ) from error
    if not isinstance(entries, list):
        raise UserError(
            f"rows is a {type(entries).__name__}.",
            "It is a list of rows.",
            f"For example: {_EXAMPLE}",
        )
    return tuple(_row(number, entry) for number, entry in enumerate(entries, 1))


def rows_json(rows: tuple[Row, ...]) -> str:
    """The rows as text that `parse_rows` reads back."""
    return json.dumps([{f.name: getattr(row, f.name) for f in fields(Row)} for row in rows])


_EXAMPLE = '[{"lora": "x_high_noise.safetensors", "lora_low": "x_low_noise.safetensors", "high": 1.0, "low": 1.0}]'


def _row(number: int, entry: object) -> Row:
    where = f"Row {number}"
    if not isinstance(entry, Mapping):
        raise UserError(
            f"{where} is {entry!r}.",
            "A row is an object with at least `lora`.",
            f"For example: {_EXAMPLE}",
        )
    known = [f.name for f in fields(Row)]
    if unknown := sorted(set(entry) - set(known)):
        raise UserError(
            f"{where} has {', '.join(unknown)}.",
            f"A row can have {', '.join(known)}.",
            "Check the spelling.",
        )
    if not isinstance(entry.get("lora"), str) or not entry["lora"].strip():
        raise UserError(
            f"{where} names no LoRA.",
            "`lora` is the name of a file in a loras folder.",
            "Add it to the row.",
        )
    for name, kinds, expected in _FIELD_TYPES:
        if name in entry and not _is(entry[name], kinds):
            raise UserError(
                f"{where}: {name} is {entry[name]!r}.",
                f"It can be {expected}.",
                "Change it in the row.",
            )
    if entry.get("route", "auto") not in ROUTES:
        raise UserError(
            f"{where}: route is {entry['route']!r}.",
            f"It can be {', '.join(ROUTES)}.",
            "Choose one of them.",
        )
    for name in NOT_YET:
        if entry.get(name) is not None:
            raise UserError(
                f"{where}: {name} is set.",
                f"{name} is reserved and has no effect in this version.",
                f"Set {name} to null.",
            )
    return _with_numbers(Row(**entry))


_FIELD_TYPES: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("lora_low", (str, type(None)), "a file name or null"),
    ("on", (bool,), "true or false"),
    ("high", (int, float), "a number, for example 1.0"),
    ("low", (int, float), "a number, for example 1.0"),
    ("kind", (str, type(None)), "a word or null"),
)


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _with_numbers(row: Row) -> Row:
    return replace(row, high=float(row.high), low=float(row.low))


# A word says something about experts when it stands before "noise", in capitals, at the end, or before a
# version; `highway`, `style_low_poly` and `high_quality` say nothing.
_SPEAKS = {
    side: re.compile(
        rf"(?i:(?<![a-z0-9]){side}(?:[_\- ]?noise(?![a-z0-9])|$|(?=[_\- .]v?\d)))"
        rf"|(?<![A-Za-z0-9])(?:{side.upper()}|{side[0].upper()}N)(?![A-Za-z0-9])"
    )
    for side in ("high", "low")
}
_MENTIONS = {
    side: re.compile(
        rf"(?i:(?<![a-z0-9]){side}(?![a-z0-9]))|(?<![A-Za-z0-9]){side[0].upper()}N(?![A-Za-z0-9])"
    )
    for side in ("high", "low")
}


def expert_in_name(name: str) -> Literal["high", "low"] | None:
    """The expert that a file name speaks of, or None when it speaks of none or of both."""
    stem = name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".safetensors", 1)[0]
    if _SPEAKS["high"].search(stem) and not _MENTIONS["low"].search(stem):
        return "high"
    if _SPEAKS["low"].search(stem) and not _MENTIONS["high"].search(stem):
        return "low"
    return None


def decide_route(row: Row, metadata_expert: object) -> tuple[Route, str]:
    """Where a row without `lora_low` goes, and the reason: route, then metadata, then the file's name."""
    if row.route != "auto":
        return row.route, f"route is {row.route}"
    if metadata_expert in ("high_noise", "low_noise"):
        return (
            "high" if metadata_expert == "high_noise" else "low"
        ), f"its metadata says {metadata_expert}"
    if side := expert_in_name(row.lora):
        return side, f"its name says {side}"
    return "both", "neither its metadata nor its name speaks of one expert"
