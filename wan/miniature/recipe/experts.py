"""Trains the transformers: one base over all noise, then an expert for each side of the boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import sentencepiece
import torch
from torch.nn import functional as F

from ...families import SigmaRange
from ...flow import mix, velocity_target
from ...timesteps import draw_sigmas
from ..captions import TEMPLATES, caption, still_caption, unknown_motion
from ..transformer import WanTransformer
from ..umt5 import TextEncoder, tokenize
from ..world import Scene
from .latents import MOTIONS_EACH, LatentSet
from .stage import LossAt

BATCH = 32
BOUNDARY = 0.9
SHIFT = 5.0
"""Of the official I2V recipe (wan/configs/wan_i2v_A14B.py, sample_shift) and of the trainer's plan; the host
itself would take 8. At 5 a run spends 36 % of its draws above the boundary, where motion is decided."""

UNTOLD_HIGH, UNTOLD_LOW = 0.25, 0.5
"""Share of clips whose caption does not say the motion. The low expert then reads the motion from the
noisy clip and not from the words, so that the high expert's LoRA decides it."""
EMPTY = 0.1
"""Share of clips without any caption, for guidance."""


class Prompts(NamedTuple):
    """The frozen text encoder with its tokenizer."""

    encoder: TextEncoder
    pieces: sentencepiece.SentencePieceProcessor

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        """(prompts, 32, text width), as ComfyUI gives it to the networks: zero after the end."""
        with torch.no_grad():
            return self.encoder(tokenize(self.pieces, prompts, self.encoder.size.tokens))


def clip_loss(
    network: WanTransformer, latents: LatentSet, prompts: Prompts, within: SigmaRange
) -> LossAt:
    """Mean square error of the velocity on image-to-video clips, at noise inside `within`."""

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        del step
        index = torch.randint(len(latents.scenes), (BATCH,), generator=generator)
        sigma = draw_sigmas(within, BATCH, shift=SHIFT, generator=generator)
        untold = torch.where(sigma < BOUNDARY, UNTOLD_LOW, UNTOLD_HIGH)
        said = [
            _clip_prompt(latents.scenes[i], share, generator)
            for i, share in zip(index.tolist(), untold.tolist(), strict=True)
        ]
        condition = start_condition(latents.starts[index // MOTIONS_EACH].float())
        return _velocity_loss(
            network, latents.clips[index].float(), sigma, prompts(said), condition, generator
        )

    return loss_at


def picture_loss(network: WanTransformer, latents: LatentSet, prompts: Prompts) -> LossAt:
    """The same on first frames alone, for the text-to-image network."""

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        del step
        index = torch.randint(len(latents.starts), (2 * BATCH,), generator=generator)
        sigma = draw_sigmas(SigmaRange(0, 1), 2 * BATCH, shift=SHIFT, generator=generator)
        empty = torch.rand(2 * BATCH, generator=generator) < EMPTY
        said = [
            "" if empty[n] else still_caption(latents.scenes[i * MOTIONS_EACH])
            for n, i in enumerate(index.tolist())
        ]
        pictures = latents.starts[index, :, :1].float()
        return _velocity_loss(network, pictures, sigma, prompts(said), None, generator)

    return loss_at


def start_condition(starts: torch.Tensor) -> torch.Tensor:
    """(batch, 20, frames, height, width): the mask, 1 at the known first frame, then the image latents."""
    mask = torch.zeros_like(starts[:, :4])
    mask[:, :, 0] = 1
    return torch.cat([mask, starts], dim=1)


def _velocity_loss(
    network: Callable[..., torch.Tensor],
    x0: torch.Tensor,
    sigma: torch.Tensor,
    context: torch.Tensor,
    condition: torch.Tensor | None,
    generator: torch.Generator,
) -> torch.Tensor:
    noise = torch.randn(x0.shape, generator=generator)
    predicted = network(mix(x0, noise, sigma), sigma, context, condition)
    return F.mse_loss(predicted, velocity_target(x0, noise))


def _clip_prompt(scene: Scene, untold: float, generator: torch.Generator) -> str:
    kind, which, wordless = torch.rand(3, generator=generator).tolist()
    template = int(which * len(TEMPLATES))
    if kind < EMPTY:
        return ""
    if kind < untold:
        return caption(scene, template, "" if wordless < 0.5 else unknown_motion(generator))
    return caption(scene, template)
