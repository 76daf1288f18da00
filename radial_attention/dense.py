"""Attention under a written-out mask in double precision: slow, obvious, and what everything else is measured by."""

from __future__ import annotations

import torch

from .layout import Layout, dense_mask


def masked_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """softmax(q k^T / sqrt(width)) v in float64, pairs that the layout leaves out at minus infinity.

    q, k, v: (batch, tokens, heads, width). Memory grows with the square of the tokens.
    """
    q, k, v = (t.double().transpose(1, 2) for t in (q, k, v))
    mask = torch.from_numpy(dense_mask(layout)).to(q.device)
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~mask, -torch.inf)
    return (torch.softmax(scores, dim=-1) @ v).transpose(1, 2)
