"""Where in a run a model call stands, so that a strength can follow its schedule.

A sampler calls the model with a sigma, at times between two of the schedule's. A call belongs to the step whose
interval holds that sigma: from its start, which counts, down to its end, which is the next step's start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import torch

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

SIGMAS_KEY = "tandem_sigmas"
"""Entry of `transformer_options`: the sigmas of a whole run, of which the host's sampler sees a part."""

# Samplers go through logarithms and back: a few units in the last place of float32.
SAME_SIGMA = 1e-5


class Place(NamedTuple):
    """A step of a run, counted from 0, and the sigma at its start."""

    step: int
    steps: int
    sigma: float


START = Place(0, 1, 1.0)
"""Before anything is known of a run."""


class _TransformerOptions(TypedDict, total=False):
    tandem_sigmas: torch.Tensor
    sample_sigmas: torch.Tensor


def with_whole_run(model: ModelPatcher, sigmas: torch.Tensor) -> ModelPatcher:
    """A clone that knows the sigmas of the whole run, for a sampler that takes only some of its steps.

    The host tells a model the sigmas of the sampler at hand. Where a run is cut in two, steps and parts of the run
    would count from the cut.
    """
    clone = model.clone()
    clone.model_options["transformer_options"][SIGMAS_KEY] = sigmas.detach().cpu()
    return clone


def place_of_call(timestep: torch.Tensor, model_options: Mapping[str, object]) -> Place:
    """The step to which a model call belongs, from what a `PREDICT_NOISE` wrapper is given."""
    options = model_options.get("transformer_options")
    sigma = float(timestep.max())
    if not isinstance(options, Mapping):
        return Place(0, 1, sigma)
    sigmas = options.get(SIGMAS_KEY, options.get("sample_sigmas"))
    if not isinstance(sigmas, torch.Tensor) or len(sigmas) < 2:
        return Place(0, 1, sigma)
    return place_of_sigma(sigma, sigmas.tolist())


def place_of_sigma(sigma: float, sigmas: Sequence[float]) -> Place:
    """The step of `sigmas` (falling, one more than there are steps) whose interval holds `sigma`."""
    steps = len(sigmas) - 1
    begun = sum(start >= sigma - SAME_SIGMA * abs(sigma) for start in sigmas[:-1])
    step = min(max(begun - 1, 0), steps - 1)
    return Place(step, steps, sigmas[step])
