"""How much the cache may hold: who uses which entries, and which leave when room is needed."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from .files import PART, SUFFIX

IN_USE = "in_use"
KEYS, LOCK = ".keys", ".lock"
FOLDER_LOCK = "cache.lock"
FOLDER_S = 120.0
"""How long to wait for who makes room: to remove a hundred thousand files takes some seconds."""
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
    lock, listed = FileLock(place / f"{name}{LOCK}", thread_local=False), place / f"{name}{KEYS}"
    try:
        # Who makes room holds the folder until it is done: what this run finds from here on stays.
        with _held(folder):
            # Locked before it is listed: an unlocked list is somebody's who is gone.
            lock.acquire()
            beside = place / f"{name}{PART}"
            beside.write_text("\n".join(keys), encoding="utf-8")
            os.replace(beside, listed)
        yield
    finally:
        for path in (listed, place / f"{name}{PART}"):
            _forget(path)
        lock.release()
        _forget(Path(lock.lock_file))


def used_keys(folder: Path) -> set[str]:
    """Keys that living processes use; what those left that are gone is cleared away."""
    with _held(folder):
        return _living(folder / IN_USE)


def _held(folder: Path) -> FileLock:
    """While it is held, no run begins to use entries and nobody removes any."""
    return FileLock(folder / FOLDER_LOCK, timeout=FOLDER_S)


def _living(place: Path) -> set[str]:
    """The same, for who holds the folder: nobody is registering just now."""
    keys: set[str] = set()
    # A process that was killed while it registered has left a lock without a list, or a list half written.
    for name in {path.stem for path in place.glob("*.*")}:
        lock, listed = FileLock(place / f"{name}{LOCK}"), place / f"{name}{KEYS}"
        try:
            with lock.acquire(timeout=0):
                _forget(listed)
                _forget(place / f"{name}{PART}")
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


def make_room(folder: Path, wanted: int, limit: int, *, keep: Collection[str] = ()) -> int:
    """Removes entries that nobody uses, those used longest ago first, until all of them and `wanted` bytes are
    within `limit`; returns the bytes that are left. Those of `keep` stay as well."""
    total = sum(entry.size for entry in entries(folder))
    if total + wanted <= limit:
        return total
    with _held(folder):
        found, kept = entries(folder), _living(folder / IN_USE).union(keep)
        total = sum(entry.size for entry in found)
        for entry in found:
            if total + wanted <= limit:
                break
            if entry.path.stem not in kept:
                with suppress(OSError):  # another process reads it just now
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
