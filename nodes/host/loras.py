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
from ...wan.lora.experts import Evidence, evidence_in
from ...wan.lora.files import lora_header, read_metadata
from ...wan.lora.pairing import PairFinder
from ...wan.lora.recognise import require_lora
from ...wan.lora.stack import LoraStack, PlacedRow, Row, alone, place_rows, with_pairs
from ...wan.lora.triggers import SIDECARS, Triggers, find_triggers
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
    return _metadata(*_version(name))


def evidence_of(name: str) -> Evidence:
    """What a LoRA itself says of the expert that it is for.

    Raises `UserError` when it cannot be read or holds no LoRA.
    """
    found = _checked(*_version(name))
    if isinstance(found, UserError):
        raise UserError(found.came, found.can_be, found.to_do)
    return found


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
    return place_rows(rows, evidence_of)


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
    """The listed name of a file that holds a LoRA, as far as its header tells."""
    listed = listed_name(name)
    evidence_of(listed)
    return listed


def _version(name: str) -> tuple[Path, int, int]:
    """The file, and what changes when it does."""
    path = lora_path(name)
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


def _stat(name: str) -> tuple[object, ...]:
    """Changes with the file, and with what other programs leave beside it, which holds its trigger words."""
    path = lora_path(name)
    stat = path.stat()
    beside = (path.with_suffix(suffix) for suffix in SIDECARS)
    return name, stat.st_mtime_ns, stat.st_size, *(_changed(file) for file in beside)


def _changed(path: Path) -> int:
    """When a file was written last, in ns; 0 while there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@lru_cache(maxsize=10_000)
def _metadata(path: Path, changed_ns: int, size: int) -> Mapping[str, str]:
    del changed_ns, size  # They make a changed file another key.
    return read_metadata(path)


@lru_cache(maxsize=10_000)
def _checked(path: Path, changed_ns: int, size: int) -> Evidence | UserError:
    """The refusal is kept like an answer: a PyTorch file is not read anew at every check."""
    del changed_ns, size
    try:
        header = lora_header(path)
        require_lora(header, path.name)
    except UserError as error:
        if isinstance(error.__cause__, OSError):
            raise  # The disk's fault, which may pass without a change of the file.
        # A new one: the error's own traceback holds what was read.
        return UserError(error.came, error.can_be, error.to_do)
    return evidence_in(header)


def _neighbour_metadata(name: str) -> Mapping[str, str]:
    """A file that cannot be read is no one's other half; it is an error only in a row of its own."""
    try:
        return metadata_of(name)
    except UserError:
        return {}
