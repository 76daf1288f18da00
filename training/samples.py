"""Clips as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..wan.conditions import ImageCondition


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """One clip, its caption and its conditioning, on the CPU, in float32.

    x0: (channels, frames, height, width), normalised latent.
    context: (tokens, width), text embedding.
    mask, image_latent: (4 or channels, frames, height, width), or None for text-to-video.
    """

    name: str
    x0: torch.Tensor
    context: torch.Tensor
    mask: torch.Tensor | None = None
    image_latent: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips of one shape, stacked on the device of the network."""

    x0: torch.Tensor
    context: torch.Tensor
    condition: ImageCondition | None


def stack_batch(clips: Sequence[EncodedClip], device: torch.device) -> Batch:
    """(batch, ...) tensors of `clips`, which have one shape."""
    condition = None
    if clips[0].mask is not None:
        condition = ImageCondition(
            mask=torch.stack([clip.mask for clip in clips]).to(device),
            latent=torch.stack([clip.image_latent for clip in clips]).to(device),
        )
    return Batch(
        x0=torch.stack([clip.x0 for clip in clips]).to(device),
        context=torch.stack([clip.context for clip in clips]).to(device),
        condition=condition,
    )
