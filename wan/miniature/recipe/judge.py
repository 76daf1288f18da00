"""What a family can do, measured on scenes that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ...flow import mix
from ..captions import caption
from ..measures import Obedience, obedience
from ..sampling import Network, sample, schedule
from ..vae import CHANNELS, VideoAutoencoder, from_vae, normalised, raw, to_vae
from ..world import KNOWN_MOTIONS, SIDE_PX, Scene, draw_scenes, render
from .experts import BOUNDARY, SHIFT, Prompts, start_condition

STEPS = 16


class Scores(NamedTuple):
    """Shares of clips, and means over clips."""

    kind: float
    path: float
    path_error_px: float
    first_frame_db: float

    def __str__(self) -> str:
        return (
            f"kind {self.kind:.2f}, path {self.path:.2f}, path error {self.path_error_px:.1f} px, "
            f"first frame {self.first_frame_db:.1f} dB"
        )


def new_scenes(count: int, seed: int, motions: Sequence[str] = KNOWN_MOTIONS) -> list[Scene]:
    """Scenes whose motions take turns, so that each is asked equally often."""
    scenes = draw_scenes(count, seed=seed)
    return [replace(s, motion=motions[i % len(motions)]) for i, s in enumerate(scenes)]


def make_clips(
    experts: tuple[Network, Network],
    vae: VideoAutoencoder,
    prompts: Prompts,
    scenes: Sequence[Scene],
    *,
    seed: int,
    said: Sequence[str] | None = None,
    begin: float = 1.0,
) -> torch.Tensor:
    """(clips, frames, height, width, 3) from the first frames and captions of `scenes`.

    begin: sigma to which the true clips are noised; at 1 nothing of them is left.
    """
    said = said or [caption(scene) for scene in scenes]
    generator = torch.Generator().manual_seed(seed)
    made = []
    for first in range(0, len(scenes), 16):
        part = scenes[first : first + 16]
        true = render(part)
        starts = true.clone()
        starts[:, 1:] = 0.5
        x0 = _encoded(vae, true) if begin < 1 else 0 * _encoded(vae, starts)
        x = mix(
            x0, torch.randn(x0.shape, generator=generator), torch.full((len(part),), float(begin))
        )
        sigmas = schedule(STEPS, SHIFT)
        sigmas = torch.cat([torch.tensor([begin]), sigmas[sigmas < begin]])
        x = sample(
            experts,
            x,
            prompts(list(said[first : first + 16])),
            start_condition(_encoded(vae, starts)),
            boundary=BOUNDARY,
            sigmas=sigmas,
        )
        with torch.no_grad():
            made += [from_vae(vae.decode(raw(pair))) for pair in x.split(2)]
    return torch.cat(made)


def make_pictures(
    painter: Network, vae: VideoAutoencoder, prompts: Prompts, said: Sequence[str], *, seed: int
) -> torch.Tensor:
    """(pictures, 1, height, width, 3) from captions alone, by the text-to-video network."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(said), CHANNELS, 1, SIDE_PX // 8, SIDE_PX // 8, generator=generator)
    x0 = sample(
        (painter, painter),
        x,
        prompts(list(said)),
        None,
        boundary=BOUNDARY,
        sigmas=schedule(STEPS, SHIFT),
    )
    with torch.no_grad():
        return from_vae(vae.decode(raw(x0)))


def score(clips: torch.Tensor, scenes: Sequence[Scene]) -> tuple[Scores, list[Obedience]]:
    """How the clips follow the motions of their scenes, together and one by one."""
    each = [obedience(clip, scene.motion) for clip, scene in zip(clips, scenes, strict=True)]
    errors = (clips[:, 0] - render(scenes, frames=1)[:, 0]).square().mean(dim=(1, 2, 3))
    return Scores(
        _mean([one.kind for one in each]),
        _mean([one.path for one in each]),
        _mean([one.path_error_px for one in each]),
        (-10 * errors.log10()).mean().item(),
    ), each


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _encoded(vae: VideoAutoencoder, video: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return normalised(torch.cat([vae.encode(to_vae(pair)) for pair in video.split(2)]))
