"""Which calls of a run see everything: steps are those of the whole schedule, of which a sampler may see a part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ...radial_attention.settings import RadialSettings, any_sparse, any_sparse_layer
from ...radial_attention.windows import parse_windows
from ...training.preview import STEPS, schedule
from ...wan.flow import unwarp
from .strengths import place_of_sigma

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class Steps(NamedTuple):
    """The sigmas of a sampler, from first to last, and the schedule that they are a part of."""

    sigmas: tuple[float, ...]
    shift: float
    before: int = 0
    """Steps of the schedule that come before them."""
    after: int = 0

    @property
    def total(self) -> int:
        """Steps of the whole schedule."""
        return self.before + len(self.sigmas) - 1 + self.after

    def number(self, sigma: float) -> int:
        """The step, from 0, whose interval holds a sigma."""
        return self.before + place_of_sigma(sigma, self.sigmas).step

    def dense(self, settings: RadialSettings, sigma: float) -> bool:
        """Whether a call at this sigma sees everything."""
        if settings.dense_window:
            windows = parse_windows(settings.dense_window)
            return any(window.holds(sigma, self.shift) for window in windows)
        number = self.number(sigma)
        last = self.total - settings.last_dense_steps
        return not settings.dense_first(self.total) <= number < last

    def num_dense(self, settings: RadialSettings) -> int:
        """How many of the sampler's steps see everything."""
        return sum(self.dense(settings, sigma) for sigma in self.sigmas[:-1])

    def any_sparse(self, settings: RadialSettings, layers: int) -> bool:
        """Whether any call of the whole schedule is sparse. Of a window only the sampler's own steps are known."""
        if not settings.dense_window:
            return any_sparse(settings, layers, range(self.total), self.total)
        some = self.before or self.after or self.num_dense(settings) < len(self.sigmas) - 1
        return any_sparse_layer(settings, layers) and bool(some)


def steps_of(sigmas: Sequence[float], shift: float) -> Steps:
    """The part that `sigmas` (falling, one more than there are steps) are of a schedule from 1 to 0.

    A sampler that begins below the top, as KSampler (Advanced) does for the second expert, is not told what came
    before. Without the shift the steps of a schedule are about equally long, so their number is known from that.
    """
    levels = [unwarp(min(max(sigma, 0.0), 1.0), shift) for sigma in sigmas]
    lengths = [begin - end for begin, end in pairwise(levels)]
    before = round((1 - levels[0]) / lengths[0]) if lengths and lengths[0] > 0 else 0
    after = round(levels[-1] / lengths[-1]) if lengths and lengths[-1] > 0 else 0
    return Steps(tuple(sigmas), shift, before, after)


def shift_of(model: ModelPatcher) -> float:
    """Of the schedule that a MODEL is sampled with; 1 where it has none."""
    return getattr(model.get_model_object("model_sampling"), "shift", 1.0)


def usual_steps(shift: float) -> Steps:
    """The schedule that a LoRA is taken to be sampled with, where only a noise level is known."""
    return Steps(tuple(schedule(STEPS, shift)), shift)
