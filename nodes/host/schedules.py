"""The host's noise schedules without a MODEL."""

from __future__ import annotations

import comfy.model_sampling
import comfy.samplers
import torch


def flow_sigmas(*, steps: int, shift: float, scheduler: str) -> torch.Tensor:
    """The sigmas that a Wan model with this shift is sampled at, from 1 to 0: one more than steps.

    Some schedulers drop steps that fall together, so count what comes.
    """
    sampling = comfy.model_sampling.ModelSamplingDiscreteFlow()
    sampling.set_parameters(shift=shift)
    return comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
