"""Latents, first-frame conditioning and text embeddings on disk: what was computed once is never computed again.

An entry's name is a digest of all that it depends on, so there is nothing to invalidate: other content, another
model or another setting is another entry. The folder can be deleted whenever nothing trains.
"""

from __future__ import annotations

import errno
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from ...wan.errors import UserError
from .files import BadEntry, entry_path, read_entry, write_entry
from .limit import entries, in_use, make_room, remove_unfinished, touch

logger = logging.getLogger("tandem.training")

GIB = 1 << 30
LIMIT_GIB = 100.0
"""What the folder holds at most. A run's own entries stay, however many they are."""
MEMORY_BYTES = 512 << 20
"""Entries that a run keeps in memory: a small dataset whole, a part of a large one."""
ROOM_BYTES = 64 << 20
"""What is freed on a full disk for a run that has yet to say which entries it uses."""
FULL = (errno.ENOSPC, errno.EDQUOT)
_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# Clips and captions as Tandem's trainer encoded them. This folder can be deleted when nothing trains:
# what is needed again is computed again.
"""


class LatentCache:
    """A folder of entries: one tensor each, by key."""

    def __init__(self, folder: Path, *, limit_gib: float = LIMIT_GIB) -> None:
        self.folder, self.limit = folder, int(limit_gib * GIB)
        self._total = 0
        """Bytes of all entries, as far as this process knows."""
        self._look_at = -1
        """Total at which the folder is looked through again: it takes a while when there are many entries."""

    @contextmanager
    def use(self, keys: Iterable[str]) -> Iterator[None]:
        """While the block lasts nobody removes these entries. Enter it before the first is looked for.

        Raises `UserError` when the folder cannot be written.
        """
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                _tag(self.folder)
                remove_unfinished(self.folder)
                self._register(held, list(keys))
            except OSError as error:
                raise _unwritable(self.folder, error) from error
            yield

    def _register(self, held: ExitStack, keys: list[str]) -> None:
        """A run that finds all it needs takes no room but for this list."""
        try:
            held.enter_context(in_use(self.folder, keys))
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._say_full()
            total = sum(entry.size for entry in entries(self.folder))
            self._total = make_room(self.folder, ROOM_BYTES, total, keep=keys)
            held.enter_context(in_use(self.folder, keys))

    def _say_full(self) -> None:
        logger.warning("The disk of %s is full: entries that no run uses are removed.", self.folder)

    def verified(self, key: str) -> torch.Tensor | None:
        """The entry, compared with its checksum; None if there is none, or it is broken: that one is removed.

        None as well when it cannot be read just now, because too many files are open for example: it stays.
        """
        path = entry_path(self.folder, key)
        try:
            tensor = read_entry(path, key, verify=True)
        except FileNotFoundError:
            return None
        except BadEntry as error:
            logger.warning("%s is made again: %s.", path, error)
            with suppress(OSError):
                path.unlink()
            return None
        except OSError as error:
            logger.warning("%s cannot be read and is made again: %s.", path, error)
            return None
        touch(path)
        return tensor

    def read(self, key: str) -> torch.Tensor:
        """The entry. Raises `UserError` when it has gone or was cut off since the run looked for it."""
        path = entry_path(self.folder, key)
        try:
            tensor = read_entry(path, key, verify=False)
        except (BadEntry, OSError) as error:
            raise UserError(
                f"{path} cannot be read any more ({error}).",
                "The clips of a run stay in the cache until it ends.",
                "Queue the run again: it goes on where it is, and what is missing is encoded again.",
            ) from error
        touch(path)
        return tensor

    def write(self, key: str, tensor: torch.Tensor, about: str) -> None:
        """Puts an entry there, and takes others away when there is no room.

        Raises `UserError` when the disk is full even so, or the folder cannot be written. Who calls sees to it
        that all values are finite: others are never found again.
        """
        path = entry_path(self.folder, key)
        wanted = tensor.numel() * tensor.element_size()
        if self._total + wanted > self._look_at:
            self._total = make_room(self.folder, wanted, self.limit)
            self._look_at = max(self.limit, self._total + self._total // 8)
        try:
            self._total += self._written(path, key, tensor, about)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _written(self, path: Path, key: str, tensor: torch.Tensor, about: str) -> int:
        try:
            return write_entry(path, tensor, key=key, about=about)
        except OSError as error:
            if error.errno not in FULL:
                raise
        # The disk has less room than the limit says: all that no run uses makes place.
        self._say_full()
        self._total = make_room(self.folder, 0, 0)
        return write_entry(path, tensor, key=key, about=about)


class EntryReader:
    """Entries as they are asked for; the last ones stay in memory, at most `memory_bytes` of them."""

    def __init__(self, cache: LatentCache, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._cache, self._limit = cache, memory_bytes
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._bytes = 0

    def __call__(self, key: str) -> torch.Tensor:
        """The tensor, shared with others who ask for it: not to be written to."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        tensor = self._kept[key] = self._cache.read(key)
        self._bytes += tensor.nbytes
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return tensor


def _tag(folder: Path) -> None:
    """Programs that make backups leave a folder out that has this file; without it the cache works as well."""
    path = folder / "CACHEDIR.TAG"
    if not path.exists():
        with suppress(OSError):
            path.write_text(_TAG, encoding="utf-8")


def _unwritable(folder: Path, error: OSError) -> UserError:
    if error.errno in FULL:
        return UserError(
            f"The disk of {folder} is full.",
            "A run keeps its encoded clips there: about 17 MB for 81 frames of 832 x 480 in each view.",
            "Free some space and queue the run again: what is encoded already is kept.",
        )
    return UserError(
        f"{folder} cannot be written ({error}).",
        "A run keeps its encoded clips there.",
        "Make the folder writable, or delete it if something else has its name.",
    )
