"""Which attention the network computes with while it is in training."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from einops import rearrange

from ...wan.expert import Attention


def attention_override(
    attention: Attention | None, sigma: torch.Tensor, text: Collection[int] = ()
) -> Callable[..., torch.Tensor]:
    """PyTorch's attention, which always has a backward pass, or the one that was handed in for self-attention.

    text: lengths that cross-attention looks at. A video of as many tokens has two attentions of one shape, which
    cannot be told apart: both are PyTorch's.
    """

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
        tokens = torch.Size(grid).numel()
        own = q.shape[1] == k.shape[1] == tokens and tokens not in text
        if attention is None or not own:
            return attention_pytorch(q, k, v, heads, **kwargs)
        q, k, v = (rearrange(t, "b l (n d) -> b l n d", n=heads) for t in (q, k, v))
        out = attention(q, k, v, block=options["block_index"], grid=grid, sigma=sigma)
        return rearrange(out, "b l n d -> b l (n d)")

    return override
