"""A few buffers on the device through which the weights of many blocks pass, always from main memory to the device.

A frozen base never changes, so nothing is brought back. Why a buffer may be refilled at all: a block under
checkpointing saves nothing in the forward pass, so its weights are free as soon as its forward pass has ended. In the
backward pass it is computed again, and autograd then saves its weights, which lie in the buffer, for the gradients of
what goes into each layer. All of that block's backward pass runs before the block below is computed again, since
autograd runs what was recorded last first. So a buffer is free as soon as another block is borrowed, and not before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from ...training.plans.estimate_memory import SWAP_BUFFERS
from ...wan.errors import UserError

ALIGNMENT = 256
"""Bytes; every weight in a buffer begins at a multiple, as the device's own allocations do."""
BUFFERS, AHEAD = SWAP_BUFFERS, SWAP_BUFFERS - 1


class Weight(NamedTuple):
    """A parameter of a block, as it lies in main memory."""

    module: nn.Module
    name: str
    value: torch.Tensor


class BlockRing:
    """Lends blocks their weights on `device`; `ahead` blocks beyond the one at work are brought meanwhile.

    `blocks` are those whose weights lie in main memory, by index. Which block comes next is guessed from the last
    two: up in a forward pass, down in a backward pass. A wrong guess costs time and nothing else.
    """

    def __init__(
        self,
        blocks: Mapping[int, nn.Module],
        device: torch.device,
        *,
        buffers: int = BUFFERS,
        ahead: int = AHEAD,
    ) -> None:
        self._weights = {index: block_weights(block) for index, block in blocks.items()}
        self._order = sorted(blocks)
        count = min(buffers, len(blocks))
        self._ahead = min(ahead, count - 1)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        size = max((buffer_bytes(weights) for weights in self._weights.values()), default=0)
        self.buffers = [_Buffer(size, device) for _ in range(count)]
        if self._stream is not None:
            # What has been computed so far may still use the memory that the buffers have been given.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._at_work: _Buffer | None = None
        self._last, self._turn = -1, itertools.count(1)
        self.bytes_moved = 0
        """From main memory to the device so far."""
        self.fills = 0

    @contextmanager
    def lend(self, index: int) -> Iterator[None]:
        """While entered, the block's modules hold its weights on the device; those of other blocks, their own."""
        weights = self._weights.get(index)
        if weights is None:
            yield
            return
        buffer = self._borrow(index)
        try:
            for weight, view in zip(weights, buffer.views[index], strict=True):
                # No `nn.Parameter` around it: that would copy the scales of a quantised tensor, before they are there.
                weight.module._parameters[weight.name] = view  # type: ignore[assignment]
            yield
        finally:
            for weight in weights:
                weight.module._parameters[weight.name] = weight.value  # type: ignore[assignment]

    def close(self) -> None:
        """Frees the buffers once everything has been copied."""
        if self._stream is not None:
            self._stream.synchronize()
        self.buffers.clear()
        self._at_work = None

    def _borrow(self, index: int) -> _Buffer:
        if self._at_work is not None:
            self._at_work.mark_free()
        buffer = self._holding(index) or self._fill(index, keep=())
        self._at_work, buffer.used = buffer, next(self._turn)
        keep = [index]
        for coming in self._coming(index)[: self._ahead]:
            keep.append(coming)
            if self._holding(coming) is None:
                self._fill(coming, keep=keep)
        self._last = index
        buffer.wait()
        return buffer

    def _coming(self, index: int) -> list[int]:
        """The blocks after this one, as far as can be told: on in the same direction, and back from the end."""
        up = [other for other in self._order if other > index]
        down = [other for other in reversed(self._order) if other < index]
        return up + down if index > self._last else down + up

    def _holding(self, index: int) -> _Buffer | None:
        return next((buffer for buffer in self.buffers if buffer.holds == index), None)

    def _fill(self, index: int, *, keep: Sequence[int]) -> _Buffer:
        """Into a buffer that holds none of `keep`, which are the block at work and those that come before this one."""
        buffer = self._free(keep)
        self.bytes_moved += buffer.fill(index, self._weights[index], self._stream)
        self.fills += 1
        return buffer

    def _free(self, keep: Sequence[int]) -> _Buffer:
        # The one whose block was at work longest ago: what was at work last is what a turn needs again.
        free = [buffer for buffer in self.buffers if buffer.holds not in keep]
        return min(free, key=lambda buffer: buffer.used)


class _Buffer:
    """Room for one block."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.room = torch.empty(size, dtype=torch.uint8, device=device)
        self.holds: int | None = None
        self.used = 0
        """When its block was last at work, by the ring's count."""
        self.views: dict[int, list[torch.Tensor]] = {}
        """Every block's weights as they lie here, for those that have been here."""
        self._free: torch.cuda.Event | None = None
        self._ready: torch.cuda.Event | None = None

    def fill(self, index: int, weights: Sequence[Weight], stream: torch.cuda.Stream | None) -> int:
        """Copies the weights here; returns their bytes. With a stream, they are there after `wait`."""
        self.holds = index
        if index not in self.views:
            self.views[index] = _laid_out(self.room, weights)
        pairs = [
            pair
            for weight, view in zip(weights, self.views[index], strict=True)
            for pair in zip(_parts(view), _parts(weight.value), strict=True)
        ]
        with torch.no_grad():
            if stream is None:
                return _copy(pairs)
            if self._free is not None:
                stream.wait_event(self._free)
            with torch.cuda.stream(stream):
                moved = _copy(pairs)
                self._ready = torch.cuda.Event()
                self._ready.record(stream)
        return moved

    def wait(self) -> None:
        """What is computed from now on finds the weights here."""
        if self._ready is not None:
            torch.cuda.current_stream(self.room.device).wait_event(self._ready)

    def mark_free(self) -> None:
        """What has been computed up to now is the last that needs the weights here."""
        if self._ready is not None:
            self._free = torch.cuda.Event()
            self._free.record(torch.cuda.current_stream(self.room.device))


def block_weights(block: nn.Module) -> list[Weight]:
    """Every parameter of a block. Raises `UserError` for tensors that cannot be taken apart."""
    weights = [
        Weight(module, name, value)
        for module in block.modules()
        for name, value in module._parameters.items()
        if value is not None
    ]
    for weight in weights:
        if _is_plain(weight.value) or hasattr(weight.value, "__tensor_flatten__"):
            continue
        raise UserError(
            f"swap_blocks is on, and the model's weights are of the kind {type(weight.value).__name__}.",
            "Blocks can be swapped of plain weights and of ComfyUI's own quantised ones (fp8, comfy_quant).",
            "Set swap_blocks to 0, or load a file in bf16 or fp8 with Load Diffusion Model.",
        )
    return weights


def buffer_bytes(weights: Sequence[Weight]) -> int:
    """What they take in a buffer."""
    return sum(_aligned(part.nbytes) for weight in weights for part in _parts(weight.value))


def _laid_out(room: torch.Tensor, weights: Sequence[Weight]) -> list[torch.Tensor]:
    """Tensors like the weights, one after the other in `room`; nothing is copied."""
    start, views = 0, []
    for weight in weights:
        parts = []
        for part in _parts(weight.value):
            view = room[start : start + part.nbytes].view(part.dtype).view(part.shape)
            parts.append(view)
            start += _aligned(part.nbytes)
        views.append(_whole(weight.value, parts))
    return views


def _copy(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> int:
    for here, in_ram in pairs:
        here.copy_(in_ram, non_blocking=True)
    return sum(in_ram.nbytes for _, in_ram in pairs)


def _is_plain(tensor: torch.Tensor) -> bool:
    return type(tensor) in (torch.Tensor, nn.Parameter)


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold its numbers: itself, or those that a quantised tensor is made of."""
    if _is_plain(tensor):
        return [tensor]
    names, _ = _flattened(tensor)
    return [getattr(tensor, name) for name in names]


def _whole(like: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The opposite of `_parts`: PyTorch's own protocol for tensors that are made of others."""
    if _is_plain(like):
        return parts[0]
    names, context = _flattened(like)
    inner = dict(zip(names, parts, strict=True))
    return type(like).__tensor_unflatten__(inner, context, like.shape, like.stride())  # type: ignore[attr-defined]


def _flattened(tensor: Any) -> tuple[list[str], Any]:  # noqa: ANN401 - a subclass with the protocol
    return tensor.__tensor_flatten__()


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
