"""Bytes of living tensors, counted at every operation: what an allocator would report, on a machine without one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Account(TorchDispatchMode):
    """While entered, counts the storages that operations make, each from its first tensor to its last.

    `known` are tensors that are there already: they and their views count nothing. What one operation makes and
    drops within itself is not seen.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = self.elsewhere = 0
        """Bytes alive, the most there ever were, and the bytes alive that were made within `apart`."""
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._apart = False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return out

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What is made within lies in another memory: it counts there and not here."""
        self._apart = True
        try:
            yield
        finally:
            self._apart = False

    def reset(self) -> None:
        """The peak begins anew, from what is alive."""
        self.peak = self.now

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known or key in self._alive:
            return
        size, name = storage.nbytes(), "elsewhere" if self._apart else "now"
        self._alive[key] = weakref.ref(storage, lambda _: self._forget(key, size, name))
        setattr(self, name, getattr(self, name) + size)
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, size: int, name: str) -> None:
        self._alive.pop(key, None)
        setattr(self, name, getattr(self, name) - size)
