"""An expert's alpha, phase by phase: foundation, balance, emphasis.

A received recipe (one group's runs, in which only the alphas of convolutions moved): the update of a LoRA is held
small until its direction is found. The effect jumps by the ratio of the alphas when a phase ends, so every file says
the alpha that it was trained with.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..wan.families import Role
from ..wan.lora.adapters import AdapterSet, pick_layers
from .plans.plan import TrainingPlan
from .plans.settings import AlphaPhases

STABILITY_STEPS, LOSS_STEPS = 50, 200
_MOVED = re.compile(r"(high_noise|low_noise|single): alpha \S+ -> (\S+) after ")
"""As the loop tells what `AlphaMover.after` says, behind the expert."""
FEWEST_LOSSES = 20
"""From how many steps in a phase on its loss is judged."""
SAMPLED = 65_536
"""Gradient entries whose signs are compared: a share of so many is known to 0.2 %, and they are saved in no time."""


class Fit(NamedTuple):
    """A line through losses: how far it falls from end to end as a share of their mean, and its R squared."""

    improvement: float
    r_squared: float


class AlphaMover:
    """Sets the alpha of an expert's adapters, step by step of `steps` of its own."""

    def __init__(self, settings: AlphaPhases, adapters: AdapterSet, steps: int) -> None:
        self._settings, self._steps = settings, steps
        names = pick_layers(adapters, settings.targets) if settings.targets else list(adapters)
        self._moving = [adapters[name] for name in names]
        self._factors = [factor for a in self._moving for factor in (a.down, a.up)]
        entries = sum(factor.numel() for factor in self._factors)
        self._stride = max(1, -(-entries // SAMPLED))
        self.phase = self._began = 0
        self._agreements: deque[float] = deque(maxlen=STABILITY_STEPS)
        self._losses: deque[float] = deque(maxlen=LOSS_STEPS)
        self._signs: torch.Tensor | None = None
        self._set_alpha()

    @property
    def alpha(self) -> float:
        """Of the phase at hand."""
        return self._settings.alphas[self.phase]

    def see_gradients(self) -> None:
        """Before the optimizer takes its step and the gradients are gone."""
        signs = self._sampled_signs()
        if self._signs is not None:
            self._agreements.append((signs == self._signs).float().mean().item())
        self._signs = signs

    def after(self, index: int, loss: float) -> str:
        """After the expert's own step `index` (from 0): moves on to the next phase when this one is over, and says so;
        empty otherwise."""
        self._losses.append(loss)
        if not self._is_over(index + 1):
            return ""
        before, stability, fit = self.alpha, _mean(self._agreements), fitted(self._losses)
        self.phase, self._began = self.phase + 1, index + 1
        self._losses.clear()
        self._set_alpha()
        noise = " (too noisy to tell)" if fit.r_squared < self._settings.fit else ""
        return (
            f"alpha {before:g} -> {self.alpha:g} after {index + 1} of its steps: gradients keep their sign in "
            f"{stability:.0%}, the loss improved by {fit.improvement:.1%} over {LOSS_STEPS} steps or as many as the "
            f"phase had, R squared {fit.r_squared:.3f}{noise}"
        )

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        """What a checkpoint holds of it: tensors, and values for JSON."""
        tensors = {} if self._signs is None else {"signs": self._signs}
        values = {
            "phase": self.phase,
            "began": self._began,
            "agreements": list(self._agreements),
            "losses": list(self._losses),
        }
        return tensors, values

    def restore(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, object]) -> None:
        """The same back; nothing of it where a checkpoint has none."""
        if not values:
            return
        state = dict(values)
        self.phase, self._began = int(str(state["phase"])), int(str(state["began"]))
        for kept, name in ((self._agreements, "agreements"), (self._losses, "losses")):
            numbers = state[name]
            assert isinstance(numbers, list)
            kept.clear()
            kept.extend(numbers)
        self._signs = tensors.get("signs")
        self._set_alpha()

    def _is_over(self, done: int) -> bool:
        settings = self._settings
        if self.phase >= len(settings.alphas) - 1 or len(self._losses) < FEWEST_LOSSES:
            return False
        if done - self._began < settings.least[self.phase] * self._steps:
            return False
        stable = _mean(self._agreements) >= settings.stability
        return stable and fitted(self._losses).improvement < settings.improvement

    def _set_alpha(self) -> None:
        for adapter in self._moving:
            adapter.alpha = self.alpha

    def _sampled_signs(self) -> torch.Tensor:
        """Of every so many-th gradient entry, on the CPU; an entry without a gradient counts as not positive."""
        picked, offset = [], 0
        for factor in self._factors:
            gradient = torch.zeros_like(factor) if factor.grad is None else factor.grad
            picked.append(gradient.flatten()[-offset % self._stride :: self._stride] > 0)
            offset += factor.numel()
        # One wait for the device, whatever the number of layers.
        return torch.cat(picked).cpu()


def fitted(losses: Sequence[float] | deque[float]) -> Fit:
    """The straight line through losses by least squares."""
    values = np.asarray(losses, dtype=np.float64)
    at = np.arange(len(values)) - (len(values) - 1) / 2
    around = values - values.mean()
    slope = float(at @ around / (at @ at))
    spread = float(around @ around)
    mean = float(values.mean())
    fall = -slope * (len(values) - 1) / mean if mean > 0 else 0.0
    return Fit(fall, slope * slope * float(at @ at) / spread if spread > 0 else 0.0)


def alpha_line(
    plan: TrainingPlan, lines: Iterable[Mapping[str, object]], steps: Mapping[Role, int]
) -> str:
    """`alpha: high 14, low 8`: what each expert had reached at its step, by a run's events; empty without phases."""
    if not plan.alpha_phases.alphas:
        return ""
    reached: dict[str, str] = dict.fromkeys(steps, f"{plan.alpha_phases.alphas[0]:g}")
    for line in lines:
        found = _MOVED.match(str(line.get("text", "")))
        if found and any(
            r == found[1] and int(str(line.get("step", 0))) <= at for r, at in steps.items()
        ):
            reached[found[1]] = found[2]
    names = {"high_noise": "high ", "low_noise": "low "}
    return f"alpha: {', '.join(f'{names.get(r, str())}{alpha}' for r, alpha in reached.items())}"


def _mean(values: deque[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
