"""What docs/radial.md says of radial attention by arithmetic, and what is measured of the miniature's clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from ...radial_attention.estimate import Gain, gain
from ...radial_attention.grid import TokenGrid
from ...radial_attention.layout import density
from ...radial_attention.rule import RadialRule
from ...radial_attention.settings import RadialSettings
from ...wan.miniature.recipe.judge import Scores
from ...wan.shapes import PIXELS_PER_TOKEN

SIZES = {"832 x 480": (832, 480), "1280 x 720": (1280, 720)}
KIND, PATH_PX = 0.1, 1.0
"""How much worse than dense clips the sparse ones may be."""
ROUNDING = 1e-9


class Band(NamedTuple):
    """What two frames at some distances see of each other."""

    nearest: int
    furthest: int
    """Distances in latent frames."""
    tokens: int | None
    """To either side; None is the whole frame."""
    every: int
    """Only pairs whose distance is a multiple of this see each other at all."""


def bands(rule: RadialRule, frame: int, frames: int) -> list[Band]:
    """The rule over all distances of a clip of `frames` latent frames with `frame` tokens each."""
    found = [_band(rule, frame, 0, min(1, frames - 1))]
    nearest = 2
    while nearest < frames:
        found.append(_band(rule, frame, nearest, min(2 * nearest, frames) - 1))
        nearest *= 2
    return found


def _band(rule: RadialRule, frame: int, nearest: int, furthest: int) -> Band:
    kept = {d: reach for d in range(nearest, furthest + 1) if (reach := rule.reach(d, frame))}
    if not kept:
        return Band(nearest, furthest, 0, 0)
    first = min(kept)
    following = min((d for d in kept if d > first), default=first + 1)
    reach = kept[first]
    return Band(nearest, furthest, None if reach >= frame else reach, following - first)


def grid_of(width: int, height: int, frames: int) -> TokenGrid:
    """Of a clip in pixels and frames."""
    return TokenGrid((frames - 1) // 4 + 1, height // PIXELS_PER_TOKEN, width // PIXELS_PER_TOKEN)


def gain_at(settings: RadialSettings, grid: TokenGrid, steps: int) -> Gain:
    """The arithmetic of Tandem Radial Plan for a run of `steps`."""
    share = density(settings.layout(grid))
    dense = min(steps, settings.dense_first(steps) + settings.last_dense_steps)
    return gain(settings, grid, share, dense_steps=dense, steps=steps)


@dataclass(frozen=True)
class Measured:
    """A row of clips in figures."""

    scores: Scores
    away_db: float | None
    """Likeness to the dense clips of the same seeds, mean over the clips; None for those themselves."""


def likeness_db(clips: torch.Tensor, dense: torch.Tensor) -> float:
    """Mean peak signal to noise of clips (clips, frames, height, width, 3) against the dense ones."""
    errors = (clips - dense).square().mean(dim=(1, 2, 3, 4)).clamp(min=1e-10)
    return (-10 * errors.log10()).mean().item()


@dataclass(frozen=True)
class Verdict:
    """A claim with its goal and what was reached."""

    what: str
    reached: str
    met: bool


def followed(what: str, sparse: Scores, dense: Scores) -> Verdict:
    """Whether sparse clips follow what was asked as well as dense ones."""
    lost, further = dense.kind - sparse.kind, sparse.path_error_px - dense.path_error_px
    return Verdict(
        what,
        f"kind {sparse.kind:.2f} against {dense.kind:.2f}, path error {sparse.path_error_px:.1f} px against "
        f"{dense.path_error_px:.1f}",
        lost <= KIND + ROUNDING and further <= PATH_PX + ROUNDING,
    )
