"""Image-to-video conditioning: which frames are known, and what they show."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .shapes import FRAMES_PER_CELL, LatentSize


@dataclass(frozen=True, kw_only=True)
class ImageCondition:
    """What an I2V network sees beside the noisy latent.

    mask: (batch, 4, frames, height, width) in cells, 1 where a frame is known.
    latent: (batch, channels, frames, height, width), normalised latents of the known frames
        followed by grey.
    clip_vision: (batch, tokens, width) features for Wan 2.1's I2V models, or None.
    """

    mask: torch.Tensor
    latent: torch.Tensor
    clip_vision: torch.Tensor | None = None

    def channels(self) -> torch.Tensor:
        """Mask first, then image: the order of Wan's input channels 16 to 35."""
        return torch.cat([self.mask, self.latent], dim=1)


def start_frame_video(first_frame: torch.Tensor, frames: int) -> torch.Tensor:
    """(frames, height, width, 3) in [0, 1]: the start frame, then mid grey.

    Grey is 0 after the VAE's [-1, 1] scaling. The grey must be *encoded*: latents of zeros are
    another picture, which the network has never seen.
    """
    video = torch.full((frames, *first_frame.shape[-3:]), 0.5, dtype=first_frame.dtype)
    video[0] = first_frame
    return video


def start_frame_mask(size: LatentSize, *, known_cells: int = 1, batch: int = 1) -> torch.Tensor:
    """(batch, 4, frames, height, width): 1 in the first `known_cells` latent frames.

    Four channels because each latent frame stands for up to four pixel frames.
    """
    mask = torch.zeros(batch, FRAMES_PER_CELL, *size)
    mask[:, :, :known_cells] = 1.0
    return mask


def frame_sigmas(sigma: torch.Tensor, frames: int, known: int) -> torch.Tensor:
    """The noise level of every latent frame of a clip whose first `known` are given: (batch, frames), those at 0.

    sigma: (batch,), which comes back as it is where no frame is given. Wan 2.2 5B sees a start frame so: clean in the
    latent itself, each token at the noise level of its frame (Wan-Video/Wan2.2, wan/textimage2video.py).
    """
    if not known:
        return sigma
    levels = sigma[:, None].repeat(1, frames)
    levels[:, :known] = 0
    return levels
