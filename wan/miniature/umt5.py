"""A UMT5 encoder as a plain torch module, and prompts as tokens, in the way ComfyUI runs them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import sentencepiece
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from .layouts import TextEncoderSize

PAD, END = 0, 1
EPS = 1e-6
BUCKETS, FARTHEST = 32, 128


class TextEncoder(nn.Module):
    """The keys are those of transformers' UMT5EncoderModel (`layouts.text_encoder_layout`)."""

    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.size = size
        self.shared = nn.Embedding(size.vocabulary, size.width)
        self.encoder = _Stack(size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) for token ids (batch, tokens); zero where the prompt has ended."""
        known = tokens != PAD
        return self.encoder(self.shared(tokens), known) * known.unsqueeze(-1)


class _Stack(nn.Module):
    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.block = nn.ModuleList([_Block(size) for _ in range(size.layers)])
        self.final_layer_norm = nn.RMSNorm(size.width, EPS)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        for block in self.block:
            x = block(x, known)
        return self.final_layer_norm(x)


class _Block(nn.Module):
    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_AttentionLayer(size), _FeedForwardLayer(size)])

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        x = x + self.layer[0](x, known)
        return x + self.layer[1](x)


class _AttentionLayer(nn.Module):
    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.SelfAttention = _Attention(size)
        self.layer_norm = nn.RMSNorm(size.width, EPS)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return self.SelfAttention(self.layer_norm(x), known)


class _Attention(nn.Module):
    """Unscaled, with a bias by distance of its own in every layer: that is UMT5's difference from T5."""

    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.q, self.k, self.v, self.o = (
            nn.Linear(size.width, size.width, bias=False) for _ in range(4)
        )
        self.relative_attention_bias = nn.Embedding(BUCKETS, size.heads)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            rearrange(part(x), "b l (n d) -> b n l d", n=self.heads)
            for part in (self.q, self.k, self.v)
        )
        bias = rearrange(self.relative_attention_bias(_distances(x.shape[1])), "q k n -> 1 n q k")
        bias = bias.masked_fill(~known[:, None, None], -torch.finfo(x.dtype).max)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.o(rearrange(mixed, "b n l d -> b l (n d)"))


class _FeedForwardLayer(nn.Module):
    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.DenseReluDense = _Gated(size)
        self.layer_norm = nn.RMSNorm(size.width, EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.DenseReluDense(self.layer_norm(x))


class _Gated(nn.Module):
    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.wi_0, self.wi_1 = (nn.Linear(size.width, size.ffn_width, bias=False) for _ in range(2))
        self.wo = nn.Linear(size.ffn_width, size.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


def _distances(tokens: int) -> torch.Tensor:
    """(tokens, tokens): the bucket of each distance, near ones alone, far ones by their logarithm.

    As in Raffel et al. 2020, 2.1: half of the buckets for each direction.
    """
    place = torch.arange(tokens)
    distance = place[None] - place[:, None]
    half, exact = BUCKETS // 2, BUCKETS // 4
    far = exact + (
        (distance.abs().clamp(min=1) / exact).log() / math.log(FARTHEST / exact) * (half - exact)
    ).long().clamp(max=half - 1 - exact)
    near = torch.where(distance.abs() < exact, distance.abs(), far)
    return near + half * (distance > 0)


def tokenize(
    pieces: sentencepiece.SentencePieceProcessor, prompts: Sequence[str], tokens: int
) -> torch.Tensor:
    """(prompts, tokens) ids: the prompt, its end, then padding.

    ComfyUI pads a short prompt to `tokens` and never cuts a long one; a batch holds short ones only.
    """
    batch = torch.full((len(prompts), tokens), PAD)
    for row, ids in zip(batch, pieces.encode(list(prompts)), strict=True):
        assert len(ids) < tokens, f"{len(ids)} tokens and an end do not fit into {tokens}"
        row[: len(ids) + 1] = torch.tensor([*ids, END])
    return batch
