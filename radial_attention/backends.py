"""One signature over several ways to compute the same, and which of them a machine gets."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .dense import masked_attention
from .errors import BackendError
from .flex import BLOCK, flex_attention_over
from .gather import gather_attention
from .layout import Layout
from .plan import RadialPlan

AUTO, GATHER, FLEX, REFERENCE = "auto", "gather", "flex", "dense reference"
BACKENDS = (AUTO, GATHER, FLEX, REFERENCE)
TILES = {FLEX: BLOCK}
"""Tokens of a tile that a backend needs; the others take any."""
NOT_FOR_TRAINING = {
    REFERENCE: "it is there to compare with, and keeps every pair of tokens in double precision"
}


class Backend(NamedTuple):
    """A way to compute, and why it was taken."""

    name: str
    why: str

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout
    ) -> torch.Tensor:
        """q, k, v: (batch, tokens, heads, width)."""
        if self.name == FLEX:
            assert isinstance(layout, RadialPlan), "chosen for such layouts only"
            return flex_attention_over(q, k, v, layout)
        if self.name == REFERENCE:
            return masked_attention(q, k, v, layout).to(q.dtype)
        return gather_attention(q, k, v, layout)


def choose_backend(
    wanted: str,
    device: torch.device,
    *,
    training: bool = False,
    reference: bool = False,
    tile: int = 0,
) -> Backend:
    """The backend asked for, or the best one for the device. `reference`: the layout is the published one, whose blocks
    do not begin with the frames. tile: tokens of a tile where a person has set them, or 0. Raises `BackendError` where
    the one asked for cannot run."""
    if wanted not in BACKENDS:
        raise BackendError(f"backend is {wanted!r}; it can be {', '.join(BACKENDS)}")
    if training and wanted in NOT_FOR_TRAINING:
        raise BackendError(
            f"backend {wanted} cannot train: {NOT_FOR_TRAINING[wanted]}; take auto or gather"
        )
    missing = _flex_lacks(device, reference, tile)
    if wanted == FLEX and missing:
        raise BackendError(f"backend flex cannot run: {missing}; take auto or gather")
    if wanted != AUTO:
        return Backend(wanted, "asked for")
    if not missing:
        return Backend(FLEX, "compiled blocks on a GPU")
    passes = "forwards and backwards" if training else "exact"
    return Backend(GATHER, f"{passes} on any device ({missing})")


def _flex_lacks(device: torch.device, reference: bool, tile: int) -> str:
    if device.type != "cuda":
        return f"compiled flex_attention needs a GPU, and this is {device.type}"
    if reference:
        return "the published layout has blocks that flex_attention would have to mask"
    if tile and tile != BLOCK:
        return f"its tiles have {BLOCK} tokens, and tile is {tile}"
    try:
        import triton
    except ImportError:
        return "compiled flex_attention needs Triton, which is not installed (triton-windows on Windows)"
    del triton
    return ""
