"""A stack of LoRAs: rows, the other halves of their pairs, and the expert that each file goes to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from .experts import Evidence
from .kinds import KINDS
from .pair_names import Side
from .pairing import SIDE_OF, PairFinder, Pairing
from .rows import ROUTES, Blend, Route, Row, parse_rows, rows_json

__all__ = [
    "ROUTES",
    "Blend",
    "LoraStack",
    "PlacedRow",
    "Route",
    "Row",
    "alone",
    "decide_route",
    "expert_in_name",
    "parse_rows",
    "place_rows",
    "rows_json",
    "with_pairs",
]

RowOrBlend = TypeVar("RowOrBlend", Row, Blend)


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


def with_pairs(
    rows: tuple[Row, ...], finder: PairFinder
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows with the other halves of their pairs, and what was found, in words.

    A row that is on, with `lora` alone and route auto, takes the other half when it is certain. When the other half
    has a row of its own, each goes to its own expert; so it does when that row is off and names the half alone, for
    then a person has switched the half off. When it is not certain nothing is taken, and the note names the
    candidates. The same rows come out however often this is done.
    """
    written = [alone(row) for row in rows]
    named_in = _named_in(written)
    result, notes = [], []
    for at, row in enumerate(written):
        if row.on and row.route == "auto" and row.lora_low is None:
            pairing = finder.find(row.lora)
            row, note = _paired(row, pairing, named_in)
            notes += [f"Row {at + 1}: {note}"] if note else []
        if row.on and row.blend is not None and row.blend.lora_low is None and row.route == "auto":
            pairing = finder.find(row.blend.lora)
            if pairing.verdict == "pair":
                notes.append(f"Row {at + 1}, blend: {_taken(row.blend.lora, pairing)}")
                row = replace(row, blend=_both_halves(row.blend, pairing))
        result.append(row)
    return tuple(result), tuple(notes)


def alone(row: Row) -> Row:
    """The row as it was written: without the half that was found, for a single model."""
    blend = row.blend
    if blend is not None and blend.named is not None:
        blend = replace(blend, lora=blend.named, lora_low=None, named=None)
    if row.named is None:
        return replace(row, blend=blend)
    return replace(row, lora=row.named, lora_low=None, named=None, blend=blend)


def _named_in(rows: Sequence[Row]) -> dict[str, str]:
    """The row that decides about a file, in words; a pair that is off decides nothing about its halves."""
    off = {
        row.lora: f"row {number}, which is off"
        for number, row in enumerate(rows, 1)
        if not row.on and row.lora_low is None
    }
    on = {
        file: f"row {number}"
        for number, row in enumerate(rows, 1)
        if row.on
        for file in _files(row)
    }
    return off | on


def _paired(row: Row, pairing: Pairing, named_in: Mapping[str, str]) -> tuple[Row, str]:
    """`named_in` is the row that decides about a file, in words."""
    if pairing.verdict == "ask":
        candidates = " or ".join(pairing.candidates)
        return row, (
            f"{row.lora} may belong with {candidates} ({pairing.reason}), and was taken alone. Set lora_low to take a "
            "pair, or route if it stands alone."
        )
    if pairing.verdict == "none":
        return row, ""
    partner, side = pairing.partner(row.lora), pairing.side(row.lora)
    if partner in named_in:
        return replace(row, route=side), (
            f"{row.lora} goes to the {side}-noise expert alone: its other half {partner} is in {named_in[partner]}."
        )
    return _both_halves(row, pairing), _taken(row.lora, pairing)


def _both_halves(written: RowOrBlend, pairing: Pairing) -> RowOrBlend:
    return replace(written, lora=pairing.high, lora_low=pairing.low, named=written.lora)


def _taken(file: str, pairing: Pairing) -> str:
    side = "low" if pairing.side(file) == "high" else "high"
    return f"{file} takes its other half {pairing.partner(file)} ({side} noise): {pairing.reason}."


def _files(row: Row | Blend) -> tuple[str, ...]:
    return (row.lora,) if row.lora_low is None else (row.lora, row.lora_low)


@dataclass(frozen=True)
class PlacedRow:
    """A row that is on, and the files that it puts on each expert."""

    number: int
    """Its place in the stack, from 1."""
    row: Row
    files: Mapping[Side, str]
    """The row's own file by expert; an expert that it leaves out, or where its strength is 0, is missing."""
    reason: str
    """Why these experts."""

    def strength(self, side: Side) -> float:
        """The row's strength on an expert."""
        return self.row.high if side == "high" else self.row.low

    def files_on(self, side: Side) -> tuple[str, ...]:
        """Every file on an expert, with the one that is mixed in."""
        if side not in self.files:
            return ()
        blend = self.row.blend
        if blend is None:
            return (self.files[side],)
        mixed = blend.lora_low if side == "low" and blend.lora_low is not None else blend.lora
        return self.files[side], mixed


def place_rows(
    rows: tuple[Row, ...], evidence_of: Callable[[str], Evidence]
) -> tuple[PlacedRow, ...]:
    """Where the rows that are on go on a pair of experts; `evidence_of` gives what a file says of itself."""
    placed = []
    for number, row in enumerate(rows, 1):
        if not row.on:
            continue
        route, reason = row.route, "the row names a pair"
        if row.lora_low is None:
            route, reason = decide_route(row, evidence_of(row.lora))
        elif row.named is not None:
            reason = "its pair was found"
        halves: dict[Side, str] = {"high": row.lora, "low": row.lora_low or row.lora}
        strengths: dict[Side, float] = {"high": row.high, "low": row.low}
        files: dict[Side, str] = {
            side: file
            for side, file in halves.items()
            if route in ("auto", "both", side) and strengths[side] != 0
        }
        placed.append(PlacedRow(number, row, files, reason))
    return tuple(placed)


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


def decide_route(row: Row, evidence: Evidence) -> tuple[Route, str]:
    """Where a row without `lora_low` goes, and why: route, then keys, metadata, the file's name, then its kind."""
    if row.route != "auto":
        return row.route, f"route is {row.route}"
    if evidence.keys is not None:
        return SIDE_OF[evidence.keys], f"its keys are for {evidence.keys}"
    if isinstance(evidence.metadata, str) and evidence.metadata in SIDE_OF:
        return SIDE_OF[evidence.metadata], f"its metadata says {evidence.metadata}"
    if side := expert_in_name(row.lora):
        return side, f"its name says {side}"
    if row.kind is not None and KINDS[row.kind].route == "low":
        return "low", f"{row.kind} goes to low noise, and neither metadata nor name says otherwise"
    return "both", "neither its metadata nor its name speaks of one expert"
