"""Which attention the network computes with while it is in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from einops import rearrange

from ...wan.expert import Attention


def attention_override(
    attention: Attention | None, sigma: torch.Tensor
) -> Callable[..., torch.Tensor]:
    """PyTorch's attention, which always has a backward pass, or the one that was handed in for self-attention."""

    def override(
        chosen: Callable[..., torch.Tensor],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        **kwargs: Any,
    ) -> torch.Tensor:
        del chosen
        options = kwargs.get("transformer_options", {})
        grid = tuple(options.get("grid_sizes", ()))
        if attention is None or q.shape[1] != torch.Size(grid).numel() or k.shape[1] != q.shape[1]:
            return attention_pytorch(q, k, v, heads, **kwargs)
        q, k, v = (rearrange(t, "b l (n d) -> b l n d", n=heads) for t in (q, k, v))
        out = attention(q, k, v, block=options["block_index"], grid=grid, sigma=sigma)
        return rearrange(out, "b l n d -> b l (n d)")

    return override
