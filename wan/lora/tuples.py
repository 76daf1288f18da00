"""The LORA_STACK of other packs: a list of (name, model strength, text encoder strength)."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Sequence

from ..errors import UserError
from .pair_names import Side
from .rows import Route, Row
from .stack import PlacedRow

LoraTuple = tuple[str, float, float]


def rows_from_tuples(
    entries: Sequence[LoraTuple], low: Sequence[LoraTuple] | None = None
) -> tuple[Row, ...]:
    """A row for each entry, in their order.

    Without `low` each file finds its expert; with it, `entries` are for the high-noise expert alone and `low` for the
    low-noise one. The text encoder's strength has no effect on Wan, whose LoRAs leave it as it is.
    """
    if low is None:
        return _rows("lora_stack", entries, "auto")
    return _rows("lora_stack", entries, "high") + _rows("lora_stack_low", low, "low")


def tuples_from_rows(placed: Sequence[PlacedRow], side: Side) -> list[LoraTuple]:
    """The entries of one expert. A file that is mixed in becomes an entry of its own."""
    entries: list[LoraTuple] = []
    for row in placed:
        files = row.files_on(side)
        share = row.row.blend.share if row.row.blend is not None else 0.0
        for file, part in zip(files, (1 - share, share), strict=False):
            strength = row.strength(side) * part
            if strength:
                entries.append((file, strength, strength))
    return entries


def _rows(what: str, entries: object, route: Route) -> tuple[Row, ...]:
    if not isinstance(entries, (list, tuple)):
        raise UserError(
            f"{what} is a {type(entries).__name__}.",
            f"LORA_STACK is a list of {_ENTRY}.",
            "Connect a node whose output is a LORA_STACK.",
        )
    return tuple(
        _row(f"Entry {number} of {what}", entry, route)
        for number, entry in enumerate(entries, 1)
        if not _is_none(entry)
    )


_ENTRY = "(name, model strength, text encoder strength)"


def _row(where: str, entry: object, route: Route) -> Row:
    parts = tuple(entry) if isinstance(entry, (list, tuple)) else ()
    if len(parts) != 3 or not isinstance(parts[0], str) or not _is_number(parts[1]):
        raise UserError(
            f"{where} is {reprlib.repr(entry)}.",
            f"It is {_ENTRY}, with finite strengths.",
            "Use a node that gives such a LORA_STACK.",
        )
    return Row(lora=parts[0], high=float(parts[1]), low=float(parts[1]), route=route)


def _is_number(value: object) -> bool:
    """A finite one, that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # Compared, not converted: a whole number of 400 digits is no float.
    return -sys.float_info.max <= value <= sys.float_info.max


def _is_none(entry: object) -> bool:
    """The empty row of a stacker."""
    return isinstance(entry, (list, tuple)) and bool(entry) and entry[0] in (None, "", "None")
