"""Sampling with two experts: one noise schedule, cut where the low-noise expert takes over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import latent_preview
import torch

from ...wan.families import BOUNDARIES
from .strengths import with_whole_run
from .wan_models import model_task

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Sigmas from first to last, and how many steps start at or above the boundary."""

    sigmas: torch.Tensor
    high_steps: int
    boundary: float
    shift: float

    @property
    def steps(self) -> int:
        return max(0, len(self.sigmas) - 1)

    @property
    def low_steps(self) -> int:
        return self.steps - self.high_steps

    def report(self, *, two_experts: bool) -> str:
        """How many steps each expert takes, and where the switch lies."""
        if not two_experts:
            return f"{self.steps} steps with one model, shift {self.shift:g}"
        switch = ""
        if self.high_steps and self.low_steps:
            switch = f"; the low-noise expert takes over at sigma {self.sigmas[self.high_steps].item():.3f}"
        return (
            f"{self.high_steps} high + {self.low_steps} low of {self.steps} steps{switch} "
            f"(boundary {self.boundary:g}, shift {self.shift:g})"
        )


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to sample, as the node's sockets and widgets give it."""

    positive: Any
    negative: Any
    latent: Mapping[str, Any]
    seed: int
    cfg: float
    cfg_low: float
    sampler_name: str


def with_shift(model: ModelPatcher, shift: float) -> ModelPatcher:
    """A clone with another shift; the incoming MODEL keeps its own. 0 leaves it as it is."""
    if shift <= 0:
        return model
    clone = model.clone()
    sampling = type(
        "FlowWithShift",
        (comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST),
        {},
    )(model.model.model_config)
    sampling.set_parameters(
        shift=shift, multiplier=model.get_model_object("model_sampling").multiplier
    )
    clone.add_object_patch("model_sampling", sampling)
    return clone


def make_schedule(
    model: ModelPatcher,
    *,
    steps: int,
    scheduler: str,
    sampler_name: str,
    denoise: float,
    boundary: float,
) -> Schedule:
    """The host's own schedule for `model`; `boundary` 0 takes the model's (0.9 I2V, 0.875 T2V).

    A step is the high expert's when its sigma at the start is at or above the boundary
    (Wan-Video/Wan2.2, wan/image2video.py: t >= boundary).
    """
    sampler = comfy.samplers.KSampler(
        model,
        steps=steps,
        device=torch.device("cpu"),
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
    )
    boundary = boundary or BOUNDARIES[model_task(model)]
    return Schedule(
        sigmas=sampler.sigmas,
        high_steps=high_steps(sampler.sigmas, boundary),
        boundary=boundary,
        shift=model.get_model_object("model_sampling").shift,
    )


def high_steps(sigmas: torch.Tensor, boundary: float) -> int:
    """Steps whose sigma at the start is at or above the boundary."""
    return int((sigmas[:-1] >= boundary).sum())


def sample_pair(
    model_high: ModelPatcher, model_low: ModelPatcher | None, schedule: Schedule, request: Request
) -> dict[str, Any]:
    """A LATENT: noise is added once, then each expert takes its steps of the one schedule."""
    split = schedule.high_steps if model_low is not None else schedule.steps
    stages = [
        (model_high, request.cfg, 0, split),
        (model_low, request.cfg_low or request.cfg, split, schedule.steps),
    ]
    stages = [stage for stage in stages if stage[3] > stage[2]]
    samples = _latent_for(model_high, request.latent)
    noise = comfy.sample.prepare_noise(samples, request.seed, request.latent.get("batch_index"))
    for number, (model, cfg, first, last) in enumerate(stages):
        samples = comfy.sample.sample_custom(
            # The sampler knows its own part of the schedule; a strength follows the whole.
            with_whole_run(model, schedule.sigmas),
            # What the first expert leaves still holds its noise: the second adds none.
            noise if number == 0 else torch.zeros_like(noise),
            cfg,
            comfy.samplers.sampler_object(request.sampler_name),
            schedule.sigmas[first : last + 1],
            request.positive,
            request.negative,
            samples,
            noise_mask=request.latent.get("noise_mask"),
            callback=_callback(model, schedule.steps, first),
            disable_pbar=False,
            # Samplers that add noise on their way must not repeat the first stage's.
            seed=(request.seed + number) % 2**64,
        )
    out = dict(request.latent)
    out.pop("downscale_ratio_spacial", None)
    out.pop("downscale_ratio_temporal", None)
    return {**out, "samples": samples}


def _latent_for(model: ModelPatcher, latent: Mapping[str, Any]) -> torch.Tensor:
    return comfy.sample.fix_empty_latent_channels(
        model,
        latent["samples"],
        latent.get("downscale_ratio_spacial"),
        latent.get("downscale_ratio_temporal"),
    )


def _callback(model: ModelPatcher, steps: int, first: int) -> Callable[..., None]:
    """The host's previews and bar, counted over both stages."""
    show = latent_preview.prepare_callback(model, steps)

    def callback(step: int, x0: torch.Tensor, x: torch.Tensor, total: int) -> None:
        del total
        show(first + step, x0, x, steps)

    return callback
