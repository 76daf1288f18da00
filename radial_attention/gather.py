"""Tile by tile: the keys that a tile of queries sees are laid side by side, and PyTorch's own attention does the rest.

Exact, for any layout, on whatever PyTorch runs on, with a backward pass of its own: what is computed is what the layout
keeps, forwards and backwards. No mask is ever made.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from .layout import Layout, Spans

SCORES = 2**26
"""Attention scores of the backward pass that are held at once."""


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
            seen = F.scaled_dot_product_attention(
                q[:, rows].transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
            )
            out[:, rows] = seen.transpose(1, 2)
        ctx.save_for_backward(q, k, v, out)
        ctx.layout = layout  # type: ignore[attr-defined] - what a context is for
        return out

    @staticmethod
    def backward(  # type: ignore[override] - one gradient for the one output
        ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out = ctx.saved_tensors  # type: ignore[attr-defined]
        layout: Layout = ctx.layout  # type: ignore[attr-defined]
        exact = torch.promote_types(q.dtype, torch.float32)
        by_q = torch.empty_like(q)
        # Many tiles add to the same key: the sums are kept in single precision at least.
        by_k, by_v = (torch.zeros_like(t, dtype=exact) for t in (k, v))
        # Of each query: what a softmax subtracts from the gradient of its scores.
        carried = (grad.to(exact) * out.to(exact)).sum(-1)
        for tile in range(layout.tiles):
            rows, spans = slice(*layout.queries(tile)), layout.keys(tile)
            keys, values = (_picked(t, spans).to(exact) for t in (k, v))
            parts = _TileBackward(
                q[:, rows].to(exact), keys, values, grad[:, rows].to(exact), carried[:, rows]
            )
            of_q, of_k, of_v = parts.gradients()
            by_q[:, rows] = of_q.to(q.dtype)
            _add(by_k, spans, of_k)
            _add(by_v, spans, of_v)
        return by_q, by_k.to(k.dtype), by_v.to(v.dtype), None


class _TileBackward:
    """The gradients of one tile of queries; q, k, v, grad: (batch, tokens, heads, width)."""

    def __init__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        grad: torch.Tensor,
        carried: torch.Tensor,
    ) -> None:
        self.q, self.k, self.v, self.grad = (t.transpose(1, 2) for t in (q, k, v, grad))
        self.carried = carried.transpose(1, 2).unsqueeze(-1)
        self.scale = q.shape[-1] ** -0.5

    def gradients(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of q, k and v: Dao et al. 2022 (FlashAttention), appendix B.4, with the softmax made again."""
        batch, heads, rows, _ = self.q.shape
        at_once = max(1, SCORES // (batch * rows * self.k.shape[2]))
        parts = [self._of(slice(h, h + at_once)) for h in range(0, heads, at_once)]
        of_q, of_k, of_v = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
        return of_q.transpose(1, 2), of_k.transpose(1, 2), of_v.transpose(1, 2)

    def _of(self, heads: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v, grad = (t[:, heads] for t in (self.q, self.k, self.v, self.grad))
        shares = torch.softmax(q @ k.mT * self.scale, dim=-1)
        scores = shares * (grad @ v.mT - self.carried[:, heads]) * self.scale
        return scores @ k, scores.mT @ q, shares.mT @ grad


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
