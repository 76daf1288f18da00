"""The loss of each expert on clips that it is not trained on: the same clips, noise and sigmas every time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import torch
from torch.nn import functional as F

from ...wan.errors import UserError
from ...wan.expert import Expert
from ...wan.families import Role, sigma_range
from ...wan.flow import mix, unwarp, velocity_target, warp
from ...wan.lora.adapters import AdapterSet
from ..events import Finding, HeldOut, Listener
from ..plans.plan import TrainingPlan
from ..preview import at_rest
from ..samples import EncodedClip, Samples, stack_batch
from ..schedule import generator_for
from ..seat import Seat

POINTS = 8
"""Noise levels at which each expert is measured, at least; each clip has two or more of them."""
FROM_CLIPS, ONE_IN = 10, 10
"""From how many clips on one in ten is well spent on this."""


class Watched(Protocol):
    """An expert and the adapters on it."""

    expert: Expert
    adapters: AdapterSet


def advised_held_out(clips: int) -> int:
    """A tenth of the clips; none of fewer than ten, where each is needed."""
    return max(1, clips // ONE_IN) if clips >= FROM_CLIPS else 0


def pick_held_out(files: Sequence[Hashable], count: int, seed: int) -> tuple[int, ...]:
    """`count` of the clips, by place; `files` says for each which file it comes from. Equal seeds pick equal clips.

    A clip that is alone in its file goes first: the neighbours of the others would be trained on.
    """
    if not 0 <= count <= len(files) // 2:
        raise UserError(
            f"The plan holds out {count} of {len(files)} clips.",
            "At least as many clips are trained on as are held out.",
            f"Set held_out to {advised_held_out(len(files))} on the plan.",
        )
    order = torch.randperm(len(files), generator=generator_for(seed, "held out")).tolist()
    parts = Counter(files)
    order.sort(key=lambda place: parts[files[place]] > 1)
    return tuple(sorted(order[:count]))


class Part:
    """Some of the clips of a run, as `Samples`."""

    def __init__(self, samples: Samples, places: Sequence[int]) -> None:
        self._samples, self._places = samples, places
        self.shapes: Sequence[tuple[int, ...]] = [samples.shapes[i] for i in places]
        self.repeats: Sequence[float] = [samples.repeats[i] for i in places]
        self.views: Sequence[int] = [samples.views[i] for i in places]
        self.empty_context: torch.Tensor | None = samples.empty_context

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> EncodedClip:
        return self._samples[self._places[index]]

    def load(self, index: int, view: int) -> EncodedClip:
        """The clip in one of its views."""
        return self._samples.load(self._places[index], view)


def divided(samples: Samples, held: Sequence[int]) -> tuple[Part, Part]:
    """The clips to train on, and those that are held out."""
    rest = [place for place in range(len(samples)) if place not in set(held)]
    return Part(samples, rest), Part(samples, held)


def sigma_grid(plan: TrainingPlan, role: Role, clips: int) -> list[list[float]]:
    """The noise levels of each clip: together the middles of equally likely parts of the expert's range, and each
    clip's own spread over all of it."""
    within = sigma_range(role, plan.boundary)
    low, high = unwarp(within.low, plan.shift), unwarp(within.high, plan.shift)
    points = max(2, -(-POINTS // clips))
    return [
        [
            warp(low + (high - low) * (point + (clip + 0.5) / clips) / points, plan.shift)
            for point in range(points)
        ]
        for clip in range(clips)
    ]


def _no_number(step: int, role: Role, held: float, trained: float) -> Finding:
    who = role.replace("_", "-")
    text = (
        f"The held-out loss of the {who} expert is no number (step {step:,}): {held} on clips that are held out, "
        f"{trained} on clips that are trained on. This checkpoint is not compared with the others; look for a broken "
        "clip, or lower the rate."
    )
    return Finding(step=step, kind="warning", text=text, rule="held-out loss")


class HeldOutLoss:
    """Measures every expert on the clips held out, and on as many of those that it is trained on.

    A forward pass of one clip at one sigma is a piece of work like a micro-batch: the run can be parked and stopped
    between two of them. Nothing is drawn from the run's own random numbers.
    """

    def __init__(self, plan: TrainingPlan, held: Samples, trained: Samples) -> None:
        self._plan, self._held = plan, held
        count = len(held)
        # Spread over the dataset, whose clips may be sorted.
        self._trained = Part(trained, [i * len(trained) // count for i in range(count)])

    def due(self, step: int) -> bool:
        """Before the first step, before each checkpoint, and at the end."""
        return step % self._plan.save_every == 0 or step == self._plan.steps

    def __call__(
        self,
        step: int,
        trainers: Mapping[Role, Watched],
        seat: Seat,
        listen: Listener,
    ) -> None:
        """Tells `HeldOut` of each of these experts; of one whose loss is no number, a warning instead."""
        for role, trainer in trainers.items():
            with at_rest(trainers):
                held, trained = (
                    self._loss(clips, trainer.expert, role, seat)
                    for clips in (self._held, self._trained)
                )
            if math.isfinite(held) and math.isfinite(trained):
                listen(HeldOut(step=step, role=role, loss=held, trained=trained))
            else:
                listen(_no_number(step, role, held, trained))

    def _loss(self, clips: Samples, expert: Expert, role: Role, seat: Seat) -> float:
        losses = [
            seat.work(expert, lambda c=clip, p=point, s=sigma: self._one(clips[c], expert, c, p, s))
            for clip, sigmas in enumerate(sigma_grid(self._plan, role, len(clips)))
            for point, sigma in enumerate(sigmas)
        ]
        return sum(losses) / len(losses)

    @torch.no_grad()
    def _one(
        self, clip: EncodedClip, expert: Expert, number: int, point: int, sigma: float
    ) -> float:
        batch = stack_batch([clip], expert.device)
        generator = generator_for(self._plan.seed, "held out noise", expert.role, number, point)
        noise = torch.randn(batch.x0.shape, generator=generator).to(expert.device)
        levels = batch.levels(torch.tensor([sigma], device=expert.device))
        velocity = expert.velocity(
            mix(batch.x0, noise, levels), levels, batch.context, batch.condition
        )
        target = velocity_target(batch.x0, noise)
        return F.mse_loss(batch.learnt(velocity), batch.learnt(target)).item()
