"""Previews of a run as files: decoded by the graph's VAE, written beside the checkpoints."""

from __future__ import annotations

import os
import secrets
from fractions import Fraction
from functools import partial

import torch
from comfy_api.latest import InputImpl, Types

from ...training.cache.latent_cache import LatentCache
from ...training.events import Finding, PreviewMade
from ...training.job import Job
from ...training.preview import Preview, can_preview
from ...training.samples import Samples
from ...training.turns import Turns, in_turn
from .encode import text_context
from .setup import Setup

NEGATIVE = "blurry, still, low quality"


def preview_of(
    setup: Setup, job: Job, clips: Samples, cache: LatentCache, turns: Turns, every: int
) -> Preview | None:
    """A preview of the first clip that teaches, every `every` steps; None for 0 and for a lone expert of two."""
    if every <= 0:
        return None
    if not can_preview(setup.plan):
        text = "No previews: one expert alone covers only its part of the noise levels."
        job.listen(Finding(step=job.step, kind="warning", text=text))
        return None
    with torch.inference_mode():
        negative = in_turn(turns, partial(text_context, setup.clip, NEGATIVE, cache))
    teaching = [i for i, clip in enumerate(setup.dataset.clips) if not clip.regularisation]
    index = teaching[0] if teaching else 0
    fps = setup.dataset.clip_fps(setup.dataset.clips[index])

    def show(step: int, latent: torch.Tensor) -> None:
        with torch.inference_mode():
            pixels = in_turn(turns, partial(_decoded, setup, latent))
        _write(job, step, pixels, fps)

    return Preview(every=every, clip=clips[index], negative=negative, show=show)


def _decoded(setup: Setup, latent: torch.Tensor) -> torch.Tensor:
    """(frames, height, width, 3) in [0, 1]."""
    raw = setup.any_model.model.process_latent_out(latent[None])
    return setup.vae.decode(raw)[0].cpu()


def _write(job: Job, step: int, pixels: torch.Tensor, fps: float) -> None:
    folder = job.folder / "previews"
    folder.mkdir(exist_ok=True)
    target = folder / f"step_{step:06d}.mp4"
    beside = folder / f".{target.stem}.{secrets.token_hex(4)}.mp4"
    rate = Fraction(fps).limit_denominator(1000)
    try:
        components = Types.VideoComponents(images=pixels, frame_rate=rate)
        InputImpl.VideoFromComponents(components).save_to(str(beside))
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    job.listen(PreviewMade(step=step, file=str(target)))
