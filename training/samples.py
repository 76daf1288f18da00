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
    clip_vision: (tokens, width), image features of the first frame, where the model takes them.
    """

    name: str
    x0: torch.Tensor
    context: torch.Tensor
    mask: torch.Tensor | None = None
    image_latent: torch.Tensor | None = None
    clip_vision: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips of one shape, stacked on the device of the network."""

    x0: torch.Tensor
    context: torch.Tensor
    condition: ImageCondition | None


def stack_batch(clips: Sequence[EncodedClip], device: torch.device) -> Batch:
    """(batch, ...) tensors of `clips`, which have one shape."""

    def stacked(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return torch.stack(present).to(device) if present else None

    mask, latent = stacked([c.mask for c in clips]), stacked([c.image_latent for c in clips])
    condition = None
    if mask is not None and latent is not None:
        features = stacked([c.clip_vision for c in clips])
        condition = ImageCondition(mask=mask, latent=latent, clip_vision=features)
    return Batch(
        x0=torch.stack([clip.x0 for clip in clips]).to(device),
        context=torch.stack([clip.context for clip in clips]).to(device),
        condition=condition,
    )
