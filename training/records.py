"""The files of a run that say how it stands: `job.json`, `events.jsonl`, and the lock of whoever runs it."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..wan.errors import UserError

RECORD = "job.json"
EVENTS = "events.jsonl"
LOG = "run.log"
LOCK = "run.lock"
_BESIDE = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)?")
"""What a file is called until it is whole."""
KEYS = {"id", "state", "step", "message", "identity"}


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `job.json` says, or None where no run is."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if set(record) >= KEYS and {"name", "plan"} <= set(record["identity"]):
            return record
        problem = "it has not the entries of a run's record"
    except (ValueError, TypeError) as error:
        problem = f"it is not JSON ({error})"
    raise UserError(
        f"{path} cannot be read: {problem}.",
        "It is written by Tandem, whole or not at all.",
        "Move the folder away.",
    )


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replaces `job.json` by a whole new one."""
    write_text(folder / RECORD, json.dumps(record, indent=2))


def event_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of `events.jsonl`."""
    path = folder / EVENTS
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                continue  # what a run that was killed left of its last line


def append_line(path: Path, text: str) -> None:
    """What a killed run left of its last line stays a line of its own, and costs nothing else."""
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(text.encode() + b"\n")


def write_text(path: Path, text: str) -> None:
    """Written beside and renamed: whole or not at all."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def clear_unfinished(folder: Path) -> None:
    """Removes what a killed process was writing in the folder of a run that is now this process' own."""
    for path in [*folder.glob(".*"), *folder.glob("*/.*")]:
        if path.is_file() and _BESIDE.fullmatch(path.name):
            with suppress(OSError):  # a virus scanner has it open: it is no reason not to train
                path.unlink()
