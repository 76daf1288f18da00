"""Previews of a run as files: decoded by the graph's VAE, written beside the checkpoints."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from comfy_api.latest import InputImpl, Types
from PIL import Image

from ...training.cache.latent_cache import LatentCache
from ...training.events import Finding, PreviewMade
from ...training.job import Job
from ...training.plots import save_picture
from ...training.preview import Preview, can_preview
from ...training.preview_files import preview_file
from ...training.samples import EncodedClip, Samples
from ...training.turns import Turns, in_turn
from .encode import text_context
from .setup import Setup

NEGATIVE = "blurry, still, low quality"


@dataclass(frozen=True, kw_only=True)
class PreviewWishes:
    """What a person wants to see of a run while it goes on."""

    every: int = 0
    """Steps between previews; 0 makes none."""
    clips: int = 1
    """How many of the dataset's clips: those held out first."""
    prompts: tuple[str, ...] = ()
    """Each one more preview, which begins like the first of those clips."""


NO_PREVIEWS = PreviewWishes()


@dataclass(frozen=True, kw_only=True)
class _Shot:
    """One preview: what it begins like, and what it follows where that is not the clip's own caption."""

    clip: EncodedClip
    fps: float
    prompt: str = ""


def preview_of(
    setup: Setup,
    job: Job,
    clips: Samples,
    cache: LatentCache,
    turns: Turns,
    wishes: PreviewWishes,
    *,
    held_out: Sequence[int] = (),
) -> Preview | None:
    """Previews of the first clips that teach, those at the places `held_out` before the others, then of the prompts;
    None where none are wanted, and for a lone expert of two."""
    if wishes.every <= 0:
        return None
    if not can_preview(setup.plan):
        text = "No previews: one expert alone covers only its part of the noise levels."
        job.listen(Finding(step=job.step, kind="warning", text=text))
        return None

    def embedded(text: str) -> torch.Tensor:
        with torch.inference_mode():
            return in_turn(turns, partial(text_context, setup.clip, text, cache))

    dataset = setup.dataset
    shots = [
        _Shot(clip=clips[i], fps=dataset.clip_fps(dataset.clips[i]))
        for i in preview_places(setup, held_out)[: max(1, wishes.clips)]
    ]
    for prompt in wishes.prompts:
        asked = replace(shots[0].clip, context=embedded(prompt))
        shots.append(_Shot(clip=asked, fps=shots[0].fps, prompt=prompt))

    def show(step: int, number: int, latent: torch.Tensor) -> None:
        with torch.inference_mode():
            pixels = _decoded(setup, latent)
        _write(job, step, number, shots[number - 1], pixels)

    return Preview(
        every=wishes.every,
        clips=[shot.clip for shot in shots],
        negative=embedded(NEGATIVE),
        show=show,
        made=lambda step, number: any(
            preview_file(job.folder, step, number, still=still).is_file() for still in (True, False)
        ),
    )


def preview_places(setup: Setup, held_out: Sequence[int]) -> list[int]:
    """The dataset's clips in the order in which they are previewed: what the run has not seen says most."""
    clips = setup.dataset.clips
    teaching = [i for i, clip in enumerate(clips) if not clip.regularisation]
    return sorted(teaching or range(len(clips)), key=lambda place: place not in held_out)


def _decoded(setup: Setup, latent: torch.Tensor) -> torch.Tensor:
    """(frames, height, width, 3) in [0, 1]."""
    raw = setup.any_model.model.process_latent_out(latent[None])
    return setup.vae.decode(raw)[0].cpu()


def _write(job: Job, step: int, number: int, shot: _Shot, pixels: torch.Tensor) -> None:
    still = len(pixels) == 1
    target = preview_file(job.folder, step, number, still=still)
    target.parent.mkdir(exist_ok=True)
    if still:
        save_picture(_picture(pixels[0]), target)
    else:
        _write_film(pixels, shot.fps, target)
    job.listen(
        PreviewMade(
            step=step, file=str(target), number=number, clip=shot.clip.name, prompt=shot.prompt
        )
    )


def _picture(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray((pixels.float().clamp(0, 1) * 255).round().byte().numpy())


def _write_film(pixels: torch.Tensor, fps: float, target: Path) -> None:
    beside = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.mp4")
    rate = Fraction(fps).limit_denominator(1000)
    try:
        components = Types.VideoComponents(images=pixels, frame_rate=rate)
        InputImpl.VideoFromComponents(components).save_to(str(beside))
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
