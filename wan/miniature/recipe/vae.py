"""Trains the video VAE: pictures first, then whole clips, guided at first by a linear code."""

from __future__ import annotations

import functools

import torch
from einops import rearrange
from torch.nn import functional as F

from ..vae import CHANNELS, VideoAutoencoder, to_vae
from ..world import LOOKS, MOTIONS, Scene, draw_scenes, render, render_stills
from .stage import LossAt, Stage

PICTURES, CLIPS = 8, 2
"""In a batch. With one thread and a batch of 1 torch leaves its quick convolutions (twice the time)."""
NOISE = 0.02
"""Added to the latents, whose channels vary by about 1: what a sampler leaves must not show."""
GUIDE_COLOUR, LOSS_COLOUR = 3.0, 1.0
"""How many times more colour counts than brightness in the linear code, and how much it adds to the loss.

Little of a clip is coloured: 16 plain principal components hold its greys alone, and so did a VAE
that aimed at them.
"""
SCALE = 3.0
"""Deviation of the latents that the networks see, once they are folded; the noise has 1.

A real clip has a thousand times more values, so that at sigma 0.9 much of it shows through the noise.
At deviation 1 nothing of a clip this small does; at 3 sigma 0.9 hides as much as 0.75 would.
"""


def draw_everything(count: int, seed: int) -> list[Scene]:
    """The VAE sees held-out motions and looks too: it stands for one that was trained on all videos."""
    return draw_scenes(count, seed=seed, motions=tuple(MOTIONS), looks=LOOKS)


class LinearCode:
    """The best 16 numbers for a block of 4 frames of 8 x 8 pixels, by principal components.

    From a random start the encoder's latents drown in noise or carry nothing; aiming at this code
    for the first part of the run gives it latents worth decoding.
    """

    def __init__(self, seed: int, clips: int = 256) -> None:
        pixels = _coloured(to_vae(render(draw_everything(clips, seed))), GUIDE_COLOUR)
        blocks = rearrange(_blocks(pixels), "b c f h w -> (b f h w) c")
        self.mean = blocks.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((blocks - self.mean).T))
        values, vectors = values[-CHANNELS:].flip(0), vectors[:, -CHANNELS:].flip(1)
        # Between equal shares of noise (white) and equal pixels (plain): a root of the deviation.
        deviation = values.sqrt()
        self.basis = vectors / (deviation.sqrt() * deviation.sqrt().mean())

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(batch, 16, latent frames, height / 8, width / 8)."""
        blocks = _blocks(_coloured(pixels, GUIDE_COLOUR)) - self.mean.view(1, -1, 1, 1, 1)
        return torch.einsum("bcfhw,ck->bkfhw", blocks, self.basis)


def _coloured(pixels: torch.Tensor, gain: float) -> torch.Tensor:
    """Each pixel with its distance from grey `gain` times as large."""
    grey = pixels.mean(1, keepdim=True)
    return grey + gain * (pixels - grey)


def _difference(found: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Mean square over the channels, and once more over their distance from grey."""
    error = found - pixels
    colour = error - error.mean(1, keepdim=True)
    return error.square().mean() + LOSS_COLOUR * colour.square().mean()


def _blocks(pixels: torch.Tensor) -> torch.Tensor:
    """The first frame stands for four, as one latent frame does for the four after it."""
    even = torch.cat([pixels[:, :, :1].expand(-1, -1, 3, -1, -1), pixels], dim=2)
    return rearrange(even, "b c (f t) (h p) (w q) -> b (c t p q) f h w", t=4, p=8, q=8)


def vae_loss(vae: VideoAutoencoder, stage: Stage, picture_steps: int) -> LossAt:
    """Mean square of what reconstruction leaves, and while it fades the distance from the linear code."""
    code = functools.cache(lambda: LinearCode(stage.seed))

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        pixels = to_vae(_batch(step < picture_steps, generator))
        latents = vae.encode(pixels)
        noise = NOISE * torch.randn(latents.shape, generator=generator)
        guided = 0.5 * max(0.0, 1 - step / (0.6 * stage.steps))
        loss = _difference(vae.decode(latents + noise), pixels)
        return loss + guided * F.mse_loss(latents, code()(pixels)) if guided else loss

    return loss_at


def _batch(pictures: bool, generator: torch.Generator) -> torch.Tensor:
    seed = int(torch.randint(2**31, (), generator=generator))
    if pictures:
        return render_stills(draw_everything(PICTURES, seed))
    video = render(draw_everything(CLIPS, seed))
    # A tenth as an I2V condition is: the first frame, then grey.
    grey = torch.rand(CLIPS, generator=generator) < 0.1
    video[grey, 1:] = 0.5
    return video


def reconstruction_psnr(vae: VideoAutoencoder, video: torch.Tensor) -> torch.Tensor:
    """dB for each clip of `video` (clips, frames, height, width, 3) in [0, 1], two at a time."""
    errors = []
    with torch.no_grad():
        for pair in video.split(2):
            pixels = to_vae(pair)
            back = vae.decode(vae.encode(pixels)).clamp(-1, 1)
            errors.append(((back - pixels) / 2).square().mean(dim=(1, 2, 3, 4)))
    return -10 * torch.cat(errors).log10()
