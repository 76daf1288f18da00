"""Blocks that are computed again in the backward pass instead of keeping what they computed (Chen et al. 2016).

What a block needs for that is its input and its weights; either may wait in main memory until then.
"""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

Lend = Callable[[int], AbstractContextManager[None]]
"""lend(block): while entered, the block's weights are where it computes."""


@contextmanager
def checkpointed(
    blocks: nn.ModuleList,
    *,
    lend: Lend | None = None,
    inputs: InputsInRam | None = None,
    random: bool = True,
) -> Iterator[None]:
    """While entered, each block's activations are computed again in the backward pass instead of being kept.

    `random`: the blocks draw random numbers (dropout), which must be the same ones both times.
    """
    patched_before = [vars(block).get("forward") for block in blocks]
    for index, block in enumerate(blocks):
        forward = block.forward if lend is None else _borrowing(block.forward, index, lend)
        block.forward = _recomputing(forward, index, inputs, random)
    try:
        yield
    finally:
        for block, before in zip(blocks, patched_before, strict=True):
            del block.forward
            if before is not None:
                block.forward = before


def _borrowing(
    forward: Callable[..., torch.Tensor], index: int, lend: Lend
) -> Callable[..., torch.Tensor]:
    def with_weights(*args: Any, **kwargs: Any) -> torch.Tensor:
        with lend(index):
            return forward(*args, **kwargs)

    return with_weights


def _recomputing(
    forward: Callable[..., torch.Tensor], index: int, inputs: InputsInRam | None, random: bool
) -> Callable[..., torch.Tensor]:
    def recomputed(
        *args: Any, transformer_options: Mapping[str, Any], **kwargs: Any
    ) -> torch.Tensor:
        # The host writes the index of the block at hand into one shared dict; by the time of the backward
        # pass it names the last block, so every block keeps its own.
        options = {**transformer_options, "block_index": index}
        # Only positional arguments, which is the block's input, go through the hooks. What all blocks share
        # (modulation, rotation, text) comes by keyword and stays where it is, once.
        with inputs.hooks() if inputs is not None else nullcontext(), _forgotten_frames():
            out = checkpoint(
                forward,
                *args,
                transformer_options=options,
                use_reentrant=False,
                preserve_rng_state=random,
                **kwargs,
            )
        assert out is not None
        return out

    return recomputed


@contextmanager
def _forgotten_frames() -> Iterator[None]:
    """An exception leaves nothing of `checkpoint` behind, whoever keeps it.

    PyTorch holds the hooks of a block in a generator that ends when its frame is forgotten. As long as somebody has
    the exception, they would stay, and what is computed next would be saved for the wrong block.
    """
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all stores: what is brought back lies in the stream's own memory, which no other stream is given."""
    return torch.cuda.Stream(device)


def release_pinned() -> None:
    """Gives the system the pinned memory that nobody uses: PyTorch keeps it for ever, for tensors of the same size."""
    # It has no public name (PyTorch 2.11).
    empty = getattr(torch._C, "_host_emptyCache", None)
    if empty is not None:
        empty()


class InputsInRam:
    """Keeps what autograd saves within `hooks` in main memory, and brings it back for the backward pass.

    On a CUDA device the copies run beside the computation, through pinned memory; while one block's backward pass
    is computed, the input of the block before it is on its way. On the CPU they are plain copies.
    """

    def __init__(self, device: torch.device) -> None:
        self.bytes_kept = 0
        """Of all tensors that were put into main memory so far."""
        self._stream = _copy_stream(device) if device.type == "cuda" else None
        self._newest: weakref.ref[_Kept] | None = None

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._put_away, self._bring)

    def _put_away(self, tensor: torch.Tensor) -> torch.Tensor | _Kept:
        if not tensor.numel():
            return tensor
        self.bytes_kept += tensor.nbytes
        kept = _Kept(tensor, self._stream, self._newest)
        self._newest = weakref.ref(kept)
        return kept

    def _bring(self, kept: torch.Tensor | _Kept) -> torch.Tensor:
        return kept if isinstance(kept, torch.Tensor) else kept.take()


class _Kept:
    """One tensor in main memory, on its way there or back."""

    def __init__(
        self,
        tensor: torch.Tensor,
        stream: torch.cuda.Stream | None,
        before: weakref.ref[_Kept] | None,
    ) -> None:
        self._device, self._stream, self._before = tensor.device, stream, before
        self._back: torch.Tensor | None = None
        with torch.no_grad():
            if stream is None:
                self._in_ram = tensor.detach().clone()
                return
            stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(stream):
                self._in_ram = torch.empty(
                    tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True
                )
                self._in_ram.copy_(tensor.detach(), non_blocking=True)
            # Its memory is not given to anybody else before the copy has been made.
            tensor.record_stream(stream)

    def take(self) -> torch.Tensor:
        """The tensor where it was; the one that was kept before it starts on its way."""
        self._start()
        back, self._back = self._back, None
        assert back is not None
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            back.record_stream(current)
            if self._before is not None and (before := self._before()) is not None:
                before._start()
        return back

    def _start(self) -> None:
        if self._back is not None:
            return
        if self._stream is None:
            self._back = self._in_ram.clone()
            return
        with torch.no_grad(), torch.cuda.stream(self._stream):
            self._back = self._in_ram.to(self._device, non_blocking=True)
