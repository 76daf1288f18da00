"""The LoRAs of the host's lists: how they are spelt there, what they say of themselves, which two are a pair."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import comfy.model_management
import folder_paths

from ...wan.errors import UserError
from ...wan.families import Role
from ...wan.lora.files import read_metadata, tandem_metadata
from ...wan.lora.pairing import PairFinder
from ...wan.lora.stack import LoraStack, PlacedRow, Row, alone, place_rows, with_pairs
from ...wan.lora.triggers import Triggers, find_triggers
from .places import lora_names, lora_path

GIB = 2**30


def listed_name(name: str) -> str:
    """The name as the host's list spells it: another system's `\\` or `/` between folders is the same file.

    Raises `UserError` when no LoRA is called so.
    """
    if folder_paths.get_full_path("loras", name) is not None:
        return name
    wanted = name.replace("\\", "/")
    for listed in lora_names():
        if listed.replace("\\", "/") == wanted:
            return listed
    lora_path(name)  # Raises, and says which names are near.
    return name


def listed_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows with the host's spelling of every file of a row that is on; a file that is not there is an error."""
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(_listed(row) if row.on else row)
        except UserError as error:
            raise UserError(f"Row {number}: {error.came}", error.can_be, error.to_do) from error
    return tuple(found)


def row_files(rows: Iterable[Row]) -> tuple[str, ...]:
    """Every file of the rows that are on, once, in their order; those that are mixed in too."""
    files: dict[str, None] = {}
    for row in rows:
        for part in (row, row.blend) if row.on else ():
            if part is not None:
                files.update(dict.fromkeys(f for f in (part.lora, part.lora_low) if f is not None))
    return tuple(files)


def metadata_of(name: str) -> Mapping[str, str]:
    """The metadata of a LoRA; read again when the file has changed."""
    path = lora_path(name)
    stat = path.stat()
    return _metadata(path, stat.st_mtime_ns, stat.st_size)


def expert_of(name: str) -> object:
    """The expert that a LoRA was trained for, when Tandem trained it."""
    return tandem_metadata(metadata_of(name)).get("expert")


def triggers_of(name: str) -> Triggers:
    """The trigger words of a LoRA."""
    return find_triggers(lora_path(name), metadata_of(name))


def paired(rows: tuple[Row, ...]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows with the other halves of their pairs among the host's LoRAs, and notes of what was found."""
    return with_pairs(rows, PairFinder(lora_names(), _neighbour_metadata))


def for_models(stack: LoraStack, roles: Collection[Role]) -> tuple[LoraStack, tuple[str, ...]]:
    """The stack with its pairs for two experts, and as it was written for a single model; and notes."""
    if "single" in roles:
        return LoraStack(tuple(map(alone, stack.rows)), stack.triggers), ()
    rows, notes = paired(stack.rows)
    return LoraStack(rows, stack.triggers), notes


def placed(rows: tuple[Row, ...]) -> tuple[PlacedRow, ...]:
    """Where each row goes on a pair of experts."""
    return place_rows(rows, expert_of)


def sizes_of(rows: tuple[Row, ...]) -> dict[str, int]:
    """Bytes of each file of the rows that are on."""
    return {file: lora_path(file).stat().st_size for file in row_files(rows)}


def state_of(rows: tuple[Row, ...]) -> tuple[object, ...]:
    """Changes when a file of the rows does, or when its other half comes or goes. A missing file is a state too."""
    try:
        return tuple(map(_stat, row_files(paired(listed_rows(rows))[0])))
    except UserError as error:
        return (str(error),)


def state_of_all() -> tuple[object, ...]:
    """Changes when any LoRA does: for names that come over a link and are not known yet."""
    return tuple(map(_stat, lora_names()))


def card_gib() -> float | None:
    """Memory of the card that models run on, in GiB; None without a card."""
    device = comfy.model_management.get_torch_device()
    if device.type == "cpu":
        return None
    return comfy.model_management.get_total_memory(device) / GIB


def _listed(row: Row) -> Row:
    blend = row.blend
    if blend is not None:
        blend = replace(blend, lora=_readable(blend.lora), lora_low=_low(blend.lora_low))
    return replace(row, lora=_readable(row.lora), lora_low=_low(row.lora_low), blend=blend)


def _low(name: str | None) -> str | None:
    return None if name is None else _readable(name)


def _readable(name: str) -> str:
    """The listed name of a file whose header can be read."""
    listed = listed_name(name)
    metadata_of(listed)
    return listed


def _stat(name: str) -> tuple[str, int, int]:
    stat = lora_path(name).stat()
    return name, stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=10_000)
def _metadata(path: Path, changed_ns: int, size: int) -> Mapping[str, str]:
    del changed_ns, size  # They make a changed file another key.
    return read_metadata(path)


def _neighbour_metadata(name: str) -> Mapping[str, str]:
    """A file that cannot be read is no one's other half; it is an error only in a row of its own."""
    try:
        return metadata_of(name)
    except UserError:
        return {}
