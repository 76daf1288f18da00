"""The clips that the experts learn from, as the VAE's latents; made in parts, each kept in a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from ...lora.files import write_safetensors
from ..vae import CHANNELS, VideoAutoencoder, fold_scale, normalised, to_vae
from ..world import KNOWN_MOTIONS, Scene, draw_scenes, render
from .vae import SCALE

logger = logging.getLogger("tandem.miniature")

PART, MOTIONS_EACH = 100, 3
"""First frames in a part, and clips that begin with each: the words alone then tell what follows."""


class LatentSet(NamedTuple):
    """Normalised latents; the clip i begins with the first frame i // MOTIONS_EACH."""

    scenes: list[Scene]
    clips: torch.Tensor
    """(clips, 16, 5, 8, 8) float16."""
    starts: torch.Tensor
    """(first frames, 16, 5, 8, 8) float16: each first frame, then grey."""


def fold(vae: VideoAutoencoder, seed: int, clips: int = 128) -> None:
    """Sets the scale of the VAE's latents, measured on clips such as the experts learn from."""
    with torch.no_grad():
        video = render(draw_scenes(clips, seed=seed))
        latents = torch.cat([vae.encode(to_vae(pair)) for pair in video.split(2)])
        values = latents.transpose(0, 1).reshape(CHANNELS, -1)
    fold_scale(vae, values.mean(1), values.std(1), SCALE)


def scenes_of(first_frames: int, seed: int) -> list[Scene]:
    """MOTIONS_EACH clips of each of so many first frames, with motions that differ."""
    generator = torch.Generator().manual_seed(seed + 1)
    scenes = []
    for scene in draw_scenes(first_frames, seed=seed):
        order = torch.randperm(len(KNOWN_MOTIONS), generator=generator)[:MOTIONS_EACH]
        scenes += [replace(scene, motion=KNOWN_MOTIONS[i]) for i in order.tolist()]
    return scenes


def make_latents(vae: VideoAutoencoder, folder: Path, parts: int, seed: int) -> LatentSet:
    """Encodes what is not in `folder` yet, and reads the whole set."""
    found = [_part(vae, folder, seed + 10 * number, parts) for number in range(parts)]
    scenes = [scene for n in range(parts) for scene in scenes_of(PART, seed + 10 * n)]
    return LatentSet(
        scenes,
        torch.cat([part["clips"] for part in found]),
        torch.cat([part["starts"] for part in found]),
    )


def _part(vae: VideoAutoencoder, folder: Path, seed: int, parts: int) -> dict[str, torch.Tensor]:
    path = folder / f"part_{seed}.safetensors"
    if not path.exists():
        clips = torch.cat(list(_encoded(vae, scenes_of(PART, seed), grey=False)))
        firsts = scenes_of(PART, seed)[::MOTIONS_EACH]
        starts = torch.cat(list(_encoded(vae, firsts, grey=True)))
        write_safetensors(path, {"clips": clips, "starts": starts}, {})
        logger.info("latents: %s of %d parts", path.name, parts)
    return load_file(path)


def _encoded(vae: VideoAutoencoder, scenes: list[Scene], *, grey: bool) -> Iterator[torch.Tensor]:
    for begin in range(0, len(scenes), 4):
        video = render(scenes[begin : begin + 4])
        if grey:
            video[:, 1:] = 0.5
        with torch.no_grad():
            # Convolutions may hand back another order in memory, which no file takes.
            yield normalised(vae.encode(to_vae(video))).half().contiguous()
