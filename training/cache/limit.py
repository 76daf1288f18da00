"""How much the cache may hold: who uses which entries, and which leave when room is needed."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from .files import PART, SUFFIX

IN_USE = "in_use"
STALE_S = 3600.0
"""An unfinished file of this age was left by a process that was killed."""


class Found(NamedTuple):
    """An entry on disk."""

    used: float
    size: int
    path: Path


@contextmanager
def in_use(folder: Path, keys: Iterable[str]) -> Iterator[None]:
    """No process removes these entries until the block ends, or this process does."""
    place = folder / IN_USE
    place.mkdir(parents=True, exist_ok=True)
    name = secrets.token_hex(8)
    lock, listed = FileLock(place / f"{name}.lock", thread_local=False), place / f"{name}.keys"
    # Locked before it is listed: an unlocked list is somebody's who is gone.
    with lock:
        listed.write_text("\n".join(keys), encoding="utf-8")
        try:
            yield
        finally:
            listed.unlink(missing_ok=True)
    _forget(Path(lock.lock_file))


def used_keys(folder: Path) -> set[str]:
    """Keys that living processes use; lists of those that are gone are cleared away."""
    keys: set[str] = set()
    for listed in (folder / IN_USE).glob("*.keys"):
        lock = FileLock(listed.with_suffix(".lock"))
        try:
            with lock.acquire(timeout=0):
                listed.unlink(missing_ok=True)
        except Timeout:
            with suppress(FileNotFoundError):  # its owner ended just now
                keys.update(listed.read_text(encoding="utf-8").split())
        else:
            _forget(Path(lock.lock_file))
    return keys


def entries(folder: Path) -> list[Found]:
    """Every entry, the one used longest ago first."""
    found = []
    for path in folder.glob(f"??/*{SUFFIX}"):
        with suppress(FileNotFoundError):
            stat = path.stat()
            found.append(Found(stat.st_mtime, stat.st_size, path))
    return sorted(found)


def remove_unfinished(folder: Path) -> None:
    """Clears away what killed processes were writing."""
    limit = time.time() - STALE_S
    for path in folder.glob(f"??/.*{PART}"):
        with suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()


def make_room(folder: Path, wanted: int, limit: int) -> int:
    """Removes entries that nobody uses, those used longest ago first, until all of them and `wanted` bytes are
    within `limit`; returns the bytes that are left."""
    found = entries(folder)
    total = sum(entry.size for entry in found)
    if total + wanted <= limit:
        return total
    kept = used_keys(folder)
    for entry in found:
        if total + wanted <= limit:
            break
        if entry.path.stem not in kept:
            with suppress(OSError):  # another process was quicker, or reads it just now
                entry.path.unlink()
                total -= entry.size
    return total


def touch(path: Path) -> None:
    """Used now."""
    with suppress(OSError):
        os.utime(path)


def _forget(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
