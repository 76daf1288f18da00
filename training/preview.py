"""Clips sampled during training, with the LoRAs as they are: Euler steps over the experts in training.

Each sampler step is a piece of work like a micro-batch: the run can be parked, paused and stopped between two of them,
and what comes out does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch

from ..wan.expert import Expert
from ..wan.families import Role
from ..wan.flow import warp
from ..wan.lora.adapters import AdapterSet
from .plans.plan import TrainingPlan
from .samples import EncodedClip, stack_batch
from .schedule import generator_for
from .seat import Seat

STEPS, CFG = 20, 3.5
SCHEDULE_STEPS = 1000
"""Noise levels of Wan's schedule, of which a sampler takes some."""


class Sampled(Protocol):
    """An expert and the adapters on it."""

    expert: Expert
    adapters: AdapterSet


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Every `every` steps, for each of `clips` one that begins like it and follows its text.

    All begin with the noise of `seed`, so that clips of different steps, and of different texts, can be compared.
    negative: (tokens, width) embedding of what they should not show. `show(step, number, latent)` gets the number
    of the clip from 1, and the normalised latent (channels, frames, height, width) on the CPU.
    """

    every: int
    clips: Sequence[EncodedClip]
    negative: torch.Tensor
    show: Callable[[int, int, torch.Tensor], None]
    made: Callable[[int, int], bool] = lambda *_: False
    """Whether the clip of this step and number is there already: a run that goes on makes what it was cut off from."""
    steps: int = STEPS
    cfg: float = CFG
    seed: int = 7

    def __call__(
        self,
        plan: TrainingPlan,
        step: int,
        number: int,
        trainers: Mapping[Role, Sampled],
        seat: Seat,
    ) -> None:
        """Samples and shows the clip `number`, from 1."""
        with at_rest(trainers):
            latent = self._sample(plan, self.clips[number - 1], trainers, seat)
        # Whoever decodes it brings another network.
        seat.aside(lambda: self.show(step, number, latent))

    def _sample(
        self, plan: TrainingPlan, clip: EncodedClip, trainers: Mapping[Role, Sampled], seat: Seat
    ) -> torch.Tensor:
        sigmas = schedule(self.steps, plan.shift)
        x = torch.randn(clip.x0.shape, generator=generator_for(self.seed, "preview"))[None]
        given = clip.known_frames
        x[0, :, :given] = clip.x0[:, :given]
        for sigma, following in pairwise(sigmas):
            trainer = trainers[_role(plan, sigma)]
            velocity = seat.work(
                trainer.expert,
                lambda x=x, s=sigma, e=trainer.expert: self._velocity(e, clip, x, s),
            )
            velocity[:, :, :given] = 0
            x = x + (following - sigma) * velocity
        return x[0]

    @torch.no_grad()
    def _velocity(
        self, expert: Expert, clip: EncodedClip, x: torch.Tensor, sigma: float
    ) -> torch.Tensor:
        batch = stack_batch([clip], expert.device)
        level = batch.levels(torch.tensor([sigma], device=expert.device))
        x = x.to(expert.device)
        wanted = expert.velocity(x, level, batch.context, batch.condition)
        if self.cfg == 1.0:
            return wanted.cpu()
        unwanted = self.negative[None].to(expert.device)
        other = expert.velocity(x, level, unwanted, batch.condition)
        return (other + self.cfg * (wanted - other)).cpu()


def can_preview(plan: TrainingPlan) -> bool:
    """A lone expert of two covers only its part of the noise levels."""
    return plan.roles() == ("single",) or len(plan.roles()) == 2


def schedule(steps: int, shift: float) -> list[float]:
    """steps + 1 sigmas from 1 to 0, as ComfyUI's scheduler `simple` gives them."""
    taken = [int(i * SCHEDULE_STEPS / steps) / SCHEDULE_STEPS for i in range(steps)]
    return [*(warp(1 - u, shift) for u in taken), 0.0]


def _role(plan: TrainingPlan, sigma: float) -> Role:
    if plan.roles() == ("single",):
        return "single"
    return "high_noise" if sigma >= plan.boundary else "low_noise"


@contextmanager
def at_rest(trainers: Mapping[Role, Sampled]) -> Iterator[None]:
    """Without dropout."""
    adapters = [adapter for trainer in trainers.values() for adapter in trainer.adapters.values()]
    for adapter in adapters:
        adapter.eval()
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.train()
