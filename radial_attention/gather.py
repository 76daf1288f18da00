"""Tile by tile: the keys that a tile of queries sees are laid side by side, and PyTorch's own attention does the rest.

Exact, for any layout, on whatever PyTorch runs on, with a backward pass of its own: what is computed is what the layout
keeps, forwards and backwards. No mask is ever made.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from .layout import Layout, Spans


def gather_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """softmax(q k^T / sqrt(width)) v over the pairs of the layout.

    q, k, v: (batch, tokens, heads, width), all of the layout's tokens. Returns q's shape and dtype.
    """
    return _GatherAttention.apply(q, k, v, layout)


class _GatherAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layout: Layout,
    ) -> torch.Tensor:
        out = torch.empty_like(q)
        for tile in range(layout.tiles):
            rows = slice(*layout.queries(tile))
            keys, values = (_picked(t, layout.keys(tile)) for t in (k, v))
            out[:, rows] = _attention(q[:, rows], keys, values)
        ctx.save_for_backward(q, k, v)
        ctx.layout = layout  # type: ignore[attr-defined] - what a context is for
        return out

    @staticmethod
    def backward(  # type: ignore[override] - one gradient for the one output
        ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        q, k, v = ctx.saved_tensors  # type: ignore[attr-defined]
        layout: Layout = ctx.layout  # type: ignore[attr-defined]
        by_q = torch.empty_like(q)
        # Many tiles add to the same key: the sums are kept in single precision at least.
        exact = torch.promote_types(q.dtype, torch.float32)
        by_k, by_v = (torch.zeros_like(t, dtype=exact) for t in (k, v))
        for tile in range(layout.tiles):
            rows, spans = slice(*layout.queries(tile)), layout.keys(tile)
            parts = [q[:, rows], _picked(k, spans), _picked(v, spans)]
            of_q, of_k, of_v = _gradients(parts, grad[:, rows])
            by_q[:, rows] = of_q
            _add(by_k, spans, of_k.to(exact))
            _add(by_v, spans, of_v.to(exact))
        return by_q, by_k.to(k.dtype), by_v.to(v.dtype), None


def _gradients(inputs: list[torch.Tensor], grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of one tile's q, k and v. It is computed again rather than kept: all tiles together would be many times the
    sequence."""
    with torch.enable_grad():
        inputs = [t.detach().requires_grad_() for t in inputs]
        return torch.autograd.grad(_attention(*inputs), inputs, grad)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _picked(tensor: torch.Tensor, spans: Spans) -> torch.Tensor:
    """The tokens (dimension 1) of the spans, side by side."""
    if len(spans) == 1:
        return tensor[:, spans[0, 0] : spans[0, 1]]
    return tensor.index_select(1, _places(spans, tensor.device))


def _add(total: torch.Tensor, spans: Spans, part: torch.Tensor) -> None:
    """Adds what belongs to the tokens of the spans. Each occurs once, so the order of the sums is always the same."""
    if len(spans) == 1:
        total[:, spans[0, 0] : spans[0, 1]] += part
    else:
        total.index_add_(1, _places(spans, total.device), part)


def _places(spans: Spans, device: torch.device) -> torch.Tensor:
    lengths = spans[:, 1] - spans[:, 0]
    offsets = np.repeat(spans[:, 0] - np.r_[0, lengths.cumsum()[:-1]], lengths)
    places = offsets + np.arange(lengths.sum())
    return torch.from_numpy(places).to(device, non_blocking=True)
