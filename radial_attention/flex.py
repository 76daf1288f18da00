"""The same operator on PyTorch's compiled flex_attention, for NVIDIA and AMD cards: whole blocks, no mask inside them.

Its blocks are all of one size, so each frame is filled up to whole tiles first; only the last tile of a frame needs a
mask, which leaves the filling out. On a CPU flex_attention has no backward pass, and uncompiled it holds every score.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .plan import RadialPlan

BLOCK = 128
"""Tokens of a tile: what the kernels' backward pass needs."""


def flex_attention_over(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    plan: RadialPlan,
) -> torch.Tensor:
    """softmax(q k^T / sqrt(width)) v over the pairs of the plan; q, k, v: (batch, tokens, heads, width)."""
    filled = Filled(plan, q.device)
    q, k, v = (filled.put(t).transpose(1, 2) for t in (q, k, v))
    return filled.take(_compiled()(q, k, v, block_mask=filled.mask).transpose(1, 2))


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


class Filled:
    """The sequence with every tile as long as the others."""

    def __init__(self, plan: RadialPlan, device: torch.device) -> None:
        places, mask = _filling(plan, str(device))
        self.places, self.mask = places, mask
        self._length = plan.tiles * plan.tile

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, ...) with zeros between."""
        batch, _, *rest = tensor.shape
        filled = tensor.new_zeros(batch, self._length, *rest)
        return filled.index_copy(1, self.places, tensor)

    def take(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tokens alone."""
        return tensor.index_select(1, self.places)


@lru_cache(maxsize=8)
# Kept over runs: what sampling made in inference mode could not be saved for a backward pass later.
@torch.inference_mode(False)
def _filling(plan: RadialPlan, device: str) -> tuple[torch.Tensor, BlockMask]:
    edges = np.array([plan.queries(tile) for tile in range(plan.tiles)])
    lengths = edges[:, 1] - edges[:, 0]
    starts = np.arange(plan.tiles) * plan.tile
    places = np.concatenate(
        [start + np.arange(n) for start, n in zip(starts, lengths, strict=True)]
    )
    seen = np.zeros((plan.tiles, plan.tiles), dtype=bool)
    for tile in range(plan.tiles):
        for first, end in plan.keys(tile):
            seen[tile] |= (edges[:, 0] >= first) & (edges[:, 1] <= end)
    whole = lengths == plan.tile
    tables = [_block_lists(seen & chosen, device) for chosen in (~whole, whole)]
    mask = BlockMask.from_kv_blocks(
        *tables[0],
        *tables[1],
        BLOCK_SIZE=plan.tile,
        mask_mod=partial(_is_filled_in, torch.from_numpy(lengths).to(device), plan.tile),
    )
    return torch.from_numpy(places).to(device), mask


def _is_filled_in(
    lengths: torch.Tensor, tile: int, b: object, h: object, q: torch.Tensor, kv: torch.Tensor
) -> torch.Tensor:
    """Whether a key is one of the sequence, and no filling."""
    del b, h, q
    return kv % tile < lengths[kv // tile]


def _block_lists(seen: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 1, tiles) counts and (1, 1, tiles, tiles) numbers of the key tiles of each tile of queries."""
    counts = torch.from_numpy(seen.sum(axis=1).astype(np.int32))
    order = torch.from_numpy(np.argsort(~seen, axis=1, kind="stable").astype(np.int32))
    return counts[None, None].to(device), order[None, None].to(device)
