"""Wan's transformer as a plain torch module, for training at small sizes and on any machine.

Its state dict has the keys of Wan's own checkpoints (`layouts.transformer_layout`).
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from ..shapes import LatentSize
from .layouts import TransformerSize

EPS = 1e-6


class WanTransformer(nn.Module):
    """Predicts the velocity of a noisy latent; with 36 input channels it is an image-to-video expert."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        d = size.width
        self.size = size
        self.patch_embedding = nn.Conv3d(size.input_channels, d, (1, 2, 2), stride=(1, 2, 2))
        self.text_embedding = nn.Sequential(
            nn.Linear(size.text_width, d), nn.GELU(approximate="tanh"), nn.Linear(d, d)
        )
        self.time_embedding = nn.Sequential(nn.Linear(256, d), nn.SiLU(), nn.Linear(d, d))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        self.blocks = nn.ModuleList([Block(size) for _ in range(size.layers)])
        self.head = Head(d, 4 * size.output_channels)

    def forward(
        self,
        x_t: torch.Tensor,
        sigma: torch.Tensor,
        context: torch.Tensor,
        condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Velocity in the shape of `x_t` (batch, 16, frames, height, width).

        sigma: (batch,) in [0, 1]. context: (batch, tokens, text width). condition: the further
        input channels, mask first, then image.
        """
        x = x_t if condition is None else torch.cat([x_t, condition], dim=1)
        tokens = self.patch_embedding(x)
        grid = LatentSize(*tokens.shape[2:])
        tokens = rearrange(tokens, "b d f h w -> b (f h w) d")
        time = self.time_embedding(_sinusoids(1000 * sigma))
        modulation = rearrange(self.time_projection(time), "b (six d) -> b six 1 d", six=6)
        rotation = _rotation(grid, self.size.width // self.size.heads)
        text = self.text_embedding(context)
        for block in self.blocks:
            tokens = block(tokens, modulation, rotation, text)
        return rearrange(
            self.head(tokens, time),
            "b (f h w) (p q c) -> b c f (h p) (w q)",
            f=grid.frames,
            h=grid.height,
            p=2,
            q=2,
        )


class Block(nn.Module):
    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        d = size.width
        self.self_attn = Attention(d, size.heads)
        self.cross_attn = Attention(d, size.heads)
        self.norm3 = nn.LayerNorm(d, EPS)
        self.ffn = nn.Sequential(
            nn.Linear(d, size.ffn_width),
            nn.GELU(approximate="tanh"),
            nn.Linear(size.ffn_width, d),
        )
        self.modulation = nn.Parameter(torch.zeros(1, 6, d))

    def forward(
        self,
        x: torch.Tensor,
        modulation: torch.Tensor,
        rotation: torch.Tensor,
        text: torch.Tensor,
    ) -> torch.Tensor:
        """x: (batch, tokens, d). modulation: (batch, 6, 1, d): shift, scale and gate of two branches."""
        mix = (self.modulation.unsqueeze(2) + modulation).unbind(1)
        y = _norm(x) * (1 + mix[1]) + mix[0]
        x = x + self.self_attn(y, y, rotation) * mix[2]
        x = x + self.cross_attn(self.norm3(x), text)
        return x + self.ffn(_norm(x) * (1 + mix[4]) + mix[3]) * mix[5]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = nn.RMSNorm(width, EPS), nn.RMSNorm(width, EPS)

    def forward(
        self, x: torch.Tensor, source: torch.Tensor, rotation: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the tokens `x` take from `source`; rotated by their places when a rotation is given."""
        q, k, v = (
            rearrange(y, "b l (n d) -> b n l d", n=self.heads)
            for y in (self.norm_q(self.q(x)), self.norm_k(self.k(source)), self.v(source))
        )
        if rotation is not None:
            q, k = _rotate(q, rotation), _rotate(k, rotation)
        return self.o(rearrange(F.scaled_dot_product_attention(q, k, v), "b n l d -> b l (n d)"))


class Head(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, outputs)
        self.modulation = nn.Parameter(torch.zeros(1, 2, width))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        shift, scale = (self.modulation + time.unsqueeze(1)).chunk(2, dim=1)
        return self.head(_norm(x) * (1 + scale) + shift)


def start_quietly(network: WanTransformer, seed: int) -> None:
    """Random weights of which every branch adds little at first, and the output nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if name.endswith("modulation"):
                tensor.normal_(0, network.size.width**-0.5, generator=generator)
            elif name.endswith("bias") or name == "head.head.weight":
                tensor.zero_()
            elif tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
                if name.endswith(("_attn.o.weight", "ffn.2.weight")):
                    tensor.mul_((2 * network.size.layers) ** -0.5)


def without_image(expert: WanTransformer) -> WanTransformer:
    """The same network as a text-to-video one: without the 20 input channels of the image condition."""
    size = expert.size
    smaller = WanTransformer(
        TransformerSize(
            **{**vars(size), "input_channels": size.output_channels},
        )
    )
    weights = expert.state_dict()
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"][:, : size.output_channels]
    smaller.load_state_dict(weights)
    return smaller


def _norm(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def _sinusoids(position: torch.Tensor) -> torch.Tensor:
    """(batch, 256): cosines, then sines, of 128 wavelengths (Vaswani et al. 2017, 3.5)."""
    angle = position[:, None] * torch.pow(10_000, -torch.arange(128) / 128).to(position)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def _rotation(grid: LatentSize, width: int) -> torch.Tensor:
    """(tokens, width / 2) complex: a turn for each pair of channels, by frame, then row, then column."""
    side = 2 * (width // 6)
    angles = []
    for axis, channels in enumerate((width - 2 * side, side, side)):
        place = torch.arange(grid[axis]).view(*(-1 if i == axis else 1 for i in range(3)), 1)
        speed = torch.pow(10_000.0, -torch.arange(0, channels, 2).double() / channels)
        angles.append((place * speed).expand(*grid, channels // 2))
    angle = torch.cat(angles, dim=-1).reshape(math.prod(grid), -1).float()
    return torch.polar(torch.ones_like(angle), angle)


def _rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(rearrange(x, "b n l (d two) -> b n l d two", two=2).contiguous())
    return torch.view_as_real(pairs * rotation).flatten(-2)
