"""SHA-256 of whole files, computed once: LoRAs have hundreds of MB, and stay the same."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from pathlib import Path
from typing import NamedTuple

from .recipes import write_whole

logger = logging.getLogger("tandem.recipes")

CHUNK = 1 << 20


class Stamp(NamedTuple):
    """By this a file is taken for unchanged."""

    size: int
    mtime_ns: int


def file_sha256(path: Path) -> str:
    """64 hex digits of the whole file; other threads work meanwhile."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


class Digests:
    """`digests(path)`: the file's SHA-256, remembered on disk by path, size and time of change.

    Usable from any thread. A file that changes while it is read is not remembered. Where the disk refuses, nothing
    is remembered, and the log says so.
    """

    def __init__(self, cache_path: Path) -> None:
        self.cache_path = cache_path
        self._lock = threading.Lock()

    def __call__(self, path: Path) -> str:
        key, stamp = str(path.absolute()), _stamp(path)
        known = self._read().get(key)
        if known and known[0] == stamp:
            return known[1]
        digest = file_sha256(path)
        if _stamp(path) == stamp:
            try:
                self._remember(key, stamp, digest)
            except OSError as error:
                logger.warning(
                    "%s cannot be written (%s): files are hashed anew.", self.cache_path, error
                )
        return digest

    def _remember(self, key: str, stamp: Stamp, digest: str) -> None:
        with self._lock:
            # Read anew: another process may have added to it. Files that are gone are dropped.
            kept = {k: v for k, v in self._read().items() if Path(k).exists()}
            kept[key] = (stamp, digest)
            files = {k: [*stamp, digest] for k, (stamp, digest) in sorted(kept.items())}
            write_whole(self.cache_path, json.dumps({"version": 1, "files": files}, indent=0))

    def _read(self) -> dict[str, tuple[Stamp, str]]:
        try:
            document = json.loads(self.cache_path.read_text(encoding="utf-8"))
            entries = document["files"] if document["version"] == 1 else {}
            return {k: (Stamp(size, time), digest) for k, (size, time, digest) in entries.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is begun anew: it cannot be read (%r).", self.cache_path, error)
            return {}


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return Stamp(stat.st_size, stat.st_mtime_ns)
