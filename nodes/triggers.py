"""The trigger words that the nodes which make stacks pass on."""

from __future__ import annotations

from ..wan.lora.stack import Row
from ..wan.lora.triggers import unique_sets
from .host import loras


def stack_triggers(rows: tuple[Row, ...]) -> tuple[tuple[str, ...], list[str]]:
    """The trigger sets of the rows that have an effect, in their order, and a line about each."""
    used = tuple(row for row in rows if row.on and (row.high or row.low))
    found = {file: loras.triggers_of(file) for file in loras.row_files(used)}
    sets = unique_sets(words for triggers in found.values() for words in triggers.sets)
    lines = [f"Trigger: {words.words} ({words.source})" for words in sets]
    troubles = [f"Note: {text}" for triggers in found.values() for text in triggers.troubles]
    return tuple(words.words for words in sets), lines + list(dict.fromkeys(troubles))
