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
BUCKETS, FARTHEST = 32, 128


class TextEncoder(nn.Module):
    """The keys are those of transformers' UMT5EncoderModel (`layouts.text_encoder_layout`)."""

    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.size = size
        self.shared = nn.Embedding(size.vocabulary, size.width)
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList([_block(size) for _ in range(size.layers)])
        self.encoder.final_layer_norm = nn.RMSNorm(size.width, 1e-6)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) for token ids (batch, tokens); zero where the prompt has ended."""
        known = tokens != PAD
        x = self.shared(tokens)
        for block in self.encoder.block:
            for part in block.layer:
                x = x + part(x, known)
        return self.encoder.final_layer_norm(x) * known.unsqueeze(-1)


def _block(size: TextEncoderSize) -> nn.Module:
    block = nn.Module()
    block.layer = nn.ModuleList([_AttentionPart(size), _FeedForwardPart(size)])
    return block


class _AttentionPart(nn.Module):
    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.SelfAttention = nn.Module()
        for name in "qkvo":
            setattr(self.SelfAttention, name, nn.Linear(size.width, size.width, bias=False))
        self.SelfAttention.relative_attention_bias = nn.Embedding(BUCKETS, size.heads)
        self.layer_norm = nn.RMSNorm(size.width, 1e-6)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        layer, y = self.SelfAttention, self.layer_norm(x)
        q, k, v = (
            rearrange(part(y), "b l (n d) -> b n l d", n=self.heads)
            for part in (layer.q, layer.k, layer.v)
        )
        bias = rearrange(layer.relative_attention_bias(_distances(x.shape[1])), "q k n -> 1 n q k")
        bias = bias.masked_fill(~known[:, None, None], -torch.finfo(x.dtype).max)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return layer.o(rearrange(mixed, "b n l d -> b l (n d)"))


class _FeedForwardPart(nn.Module):
    def __init__(self, size: TextEncoderSize) -> None:
        super().__init__()
        self.DenseReluDense = nn.Module()
        for name in ("wi_0", "wi_1"):
            setattr(self.DenseReluDense, name, nn.Linear(size.width, size.ffn_width, bias=False))
        self.DenseReluDense.wo = nn.Linear(size.ffn_width, size.width, bias=False)
        self.layer_norm = nn.RMSNorm(size.width, 1e-6)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        del known
        layer, y = self.DenseReluDense, self.layer_norm(x)
        return layer.wo(F.gelu(layer.wi_0(y), approximate="tanh") * layer.wi_1(y))


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
