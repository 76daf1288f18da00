"""Clips and captions through the graph's own VAE and text encoder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from ...training.dataset import Clip
from ...training.events import ClipEncoded, Listener
from ...training.samples import EncodedClip
from ...training.turns import Turns, in_turn
from ...wan.conditions import start_frame_mask, start_frame_video
from ...wan.errors import UserError
from ...wan.shapes import LatentSize
from ...wan.video import read_clip

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from .setup import Setup


def encode_dataset(
    setup: Setup, *, turns: Turns | None = None, listen: Listener | None = None
) -> list[EncodedClip]:
    """Every clip as normalised latents, first-frame conditioning and text embedding.

    Models are used in the host's inference mode, a clip or a caption at a time, in our `turns`; the tensors
    that come back are normal ones, on the CPU.
    """
    turns, total = turns or Turns(), len(setup.dataset.clips)
    encoded: list[EncodedClip] = []
    contexts: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for item in setup.dataset.clips:
            if item.caption not in contexts:
                contexts[item.caption] = in_turn(
                    turns, partial(encode_text, setup.clip, item.caption)
                )
            context = contexts[item.caption]
            encoded.append(in_turn(turns, partial(_encode_clip, setup, item, context)))
            if listen:
                listen(ClipEncoded(name=item.path.name, done=len(encoded), total=total))
    return encoded


def encode_text(clip: CLIP, text: str) -> torch.Tensor:
    """(tokens, width) embedding, as the host's own prompt node makes it."""
    return _normal(clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0])[0]


def require_text_width(context: torch.Tensor, width: int) -> None:
    """The text encoder belongs to the model."""
    if context.shape[-1] != width:
        raise UserError(
            f"The text encoder gives embeddings of width {context.shape[-1]}.",
            f"This model takes width {width}.",
            "Load the umt5 file that belongs to the model.",
        )


def image_condition(
    pixels: torch.Tensor, vae: VAE, model: ModelPatcher
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask (4, frames, height, width) and image latent of an I2V network for (frames, h, w, 3) pixels."""
    # The VAE gives the mode of its distribution, never a sample: equal clips have equal conditions.
    video = start_frame_video(pixels[0], pixels.shape[0])
    latent = _encoded(video, vae, model)
    return start_frame_mask(LatentSize(*latent.shape[-3:]))[0], latent


def _encode_clip(setup: Setup, item: Clip, context: torch.Tensor) -> EncodedClip:
    size = setup.dataset.clip_size(item)
    pixels = read_clip(item.path, size, fps=setup.dataset.fps)
    x0 = _encoded(pixels, setup.vae, setup.any_model)
    if setup.task == "t2v":
        return EncodedClip(name=item.path.name, x0=x0, context=context)
    mask, latent = image_condition(pixels, setup.vae, setup.any_model)
    return EncodedClip(
        name=item.path.name,
        x0=x0,
        context=context,
        mask=mask,
        image_latent=latent,
        clip_vision=_image_features(setup, pixels[:1]),
    )


def _image_features(setup: Setup, first_frame: torch.Tensor) -> torch.Tensor | None:
    if setup.clip_vision is None:
        return None
    return _normal(setup.clip_vision.encode_image(first_frame).penultimate_hidden_states)[0]


def _encoded(pixels: torch.Tensor, vae: VAE, model: ModelPatcher) -> torch.Tensor:
    # Raw latents at sockets, normalised ones inside: what the network was trained on.
    return _normal(model.model.process_latent_in(vae.encode(pixels)))[0]


def _normal(tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(False):
        return tensor.float().cpu().clone()
