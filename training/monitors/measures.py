"""Numbers by which a run is judged, expert by expert, from its steps and held-out losses alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ...wan.families import Role
from ..events import HeldOut, StepDone

LOSS_WINDOW = 100
"""An expert's own steps over which its loss is averaged: a single one tells little (a standard deviation of 95 % of
the mean was seen)."""
WINDOWS = 5
"""Growth and level are measured over a fifth of the run: 600 of the 3,070 steps by which people judged theirs."""

FEWEST_LOSSES = 5
"""Of which a loss is averaged at least, in a run that is too short for more."""
COMPARING = ("weight ratio", "rate ratio", "low outgrows high")
"""Measures that hold one expert against the other."""


@dataclass
class _Own:
    """What one expert did, step by step of its own."""

    losses: list[float] = field(default_factory=list)
    began: int | None = None
    rate: float | None = None
    weights: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[HeldOut] = field(default_factory=list)


class Record:
    """Everything measured so far in a run of `steps` steps. `in_turns`: the experts take turns all along, so that
    their growth can be compared; of two that are trained one after the other, the younger grows faster."""

    def __init__(self, steps: int, *, in_turns: bool = True) -> None:
        self.window = max(1, steps // WINDOWS)
        self.in_turns = in_turns
        self.share = 0.0
        """Of the run that is over, 0 to 1."""
        self._steps, self._now = steps, 0
        self._few = max(FEWEST_LOSSES, min(LOSS_WINDOW, steps // 10))
        self._own: dict[Role, _Own] = {}
        self._losses: list[float] = []

    def step(self, event: StepDone) -> StepDone:
        """Takes a step in; gives it back with what was measured."""
        own = self._of(event.role)
        self.share = event.step / self._steps
        self._losses.append(event.loss)
        own.losses.append(event.loss)
        own.began = event.step if own.began is None else own.began
        self._now = event.step
        own.rate = event.rate
        # Of weights that have become infinite nothing can be told, nor written as JSON.
        event = replace(event, weight=_finite(event.weight))
        if event.weight is not None:
            own.weights.append((event.step, event.weight))
        mean, std = _mean_and_std(own.losses[-LOSS_WINDOW:])
        return replace(
            event,
            weight_growth=self.growth(event.role),
            weight_ratio=self.value("weight ratio"),
            rate_ratio=self.value("rate ratio"),
            loss_mean=mean,
            loss_std=std,
        )

    def held_out(self, event: HeldOut) -> None:
        """Takes a held-out loss in."""
        self._of(event.role).held_out.append(event)

    def measured_at(self, step: int) -> set[Role]:
        """The experts whose held-out loss of this step is known."""
        return {
            role
            for role, own in self._own.items()
            if any(event.step == step for event in own.held_out)
        }

    def value(self, measure: str, role: Role = "single") -> float | None:
        """One of `MEASURES` as it is now, a finite number; None while it cannot be told."""
        return _finite(MEASURES[measure](self, role))

    def judged(self, measure: str, role: Role = "single") -> float | None:
        """`value` for a rule: what compares the experts says nothing before both have been trained for a window."""
        if measure in COMPARING and not self._both_trained():
            return None
        return self.value(measure, role)

    def _both_trained(self) -> bool:
        began = [self._of(role).began for role in ("high_noise", "low_noise")]
        return all(step is not None and self._now - step + 1 >= self.window for step in began)

    def weight(self, role: Role) -> float | None:
        """Mean |LoRA weight| after the expert's last step."""
        weights = self._of(role).weights
        return weights[-1][1] if weights else None

    def rate(self, role: Role) -> float | None:
        """Mean learning rate of the expert's last step."""
        return self._of(role).rate

    def growth(self, role: Role) -> float | None:
        """Of the weight over the last window, as a share of what it was.

        Counted in as many of the expert's own steps as a window has on average, for the experts take turns: from
        one step of the run to another, now this and now that one would have had a turn more.
        """
        weights = self._of(role).weights
        if len(weights) < 2:
            return None
        (first, _), (last, now) = weights[0], weights[-1]
        back = round(self.window * (len(weights) - 1) / (last - first))
        before = weights[-1 - back][1] if 0 < back < len(weights) else 0.0
        return now / before - 1 if before > 0 else None

    def low_outgrows_high(self) -> float | None:
        """By how much more low noise has grown over the last window than high noise."""
        high, low = self.growth("high_noise"), self.growth("low_noise")
        return None if high is None or low is None or not self.in_turns else low - high

    def held_out_rise(self, role: Role) -> float | None:
        """How far the last two held-out losses lie above the lowest before them, as a share of it."""
        losses = [event.loss for event in self._of(role).held_out]
        if len(losses) < 3 or (lowest := min(losses[:-2])) <= 0:
            return None
        return min(losses[-2:]) / lowest - 1

    def trained_fall(self, role: Role) -> float | None:
        """How far the loss on clips that are trained on has fallen since the held-out loss was lowest."""
        events = self._of(role).held_out
        if len(events) < 3:
            return None
        then = min(events[:-2], key=lambda event: event.loss).trained
        return 1 - events[-1].trained / then if then > 0 else None

    def loss_level(self) -> float | None:
        """Mean loss of all experts over the last window."""
        if len(self._losses) < self.window:
            return None
        return math.fsum(self._losses[-self.window :]) / self.window

    def loss_drift(self) -> float | None:
        """How far that level lies from the window before it, as a share."""
        before, now = self._losses[-2 * self.window : -self.window], self.loss_level()
        if now is None or len(before) < self.window:
            return None
        mean = math.fsum(before) / self.window
        return abs(now - mean) / mean if mean > 0 else None

    def loss_rise(self, role: Role) -> float | None:
        """How far the mean of an expert's last losses lies above that of its first, as a share of it; each of a tenth
        of the run's steps, 5 to 100 of its own, and the two do not overlap."""
        first, last = self._first_and_last(role)
        before = math.fsum(first)
        return math.fsum(last) / before - 1 if before > 0 else None

    def loss_rise_in_errors(self, role: Role) -> float | None:
        """The same difference in standard errors of itself, by the larger of the two spreads: of five losses one may
        look calm by chance."""
        first, last = self._first_and_last(role)
        if not first:
            return None
        (before, std), (now, other) = _mean_and_std(first), _mean_and_std(last)
        error = max(std or 0.0, other or 0.0) * math.sqrt(2 / self._few)
        # Losses that do not differ at all: any rise is certain.
        return (now - before) / error if error > 0 else math.copysign(1e9, now - before)

    def _first_and_last(self, role: Role) -> tuple[list[float], list[float]]:
        losses = self._of(role).losses
        enough = len(losses) >= 2 * self._few
        return (losses[: self._few], losses[-self._few :]) if enough else ([], [])

    def _of(self, role: Role) -> _Own:
        return self._own.setdefault(role, _Own())


Measure = Callable[[Record, Role], "float | None"]
MEASURES: Mapping[str, Measure] = {
    "weight ratio": lambda r, _: _quotient(r.weight("high_noise"), r.weight("low_noise")),
    "rate ratio": lambda r, _: _quotient(r.rate("high_noise"), r.rate("low_noise")),
    "high weight": lambda r, _: r.weight("high_noise"),
    "low outgrows high": lambda r, _: r.low_outgrows_high(),
    "held-out rise": lambda r, role: r.held_out_rise(role),
    "trained fall": lambda r, role: r.trained_fall(role),
    "loss level": lambda r, _: r.loss_level(),
    "least loss level": lambda r, _: r.loss_level(),
    "loss drift": lambda r, _: r.loss_drift(),
    "loss rise": lambda r, role: r.loss_rise(role),
    "loss rise in errors": lambda r, role: r.loss_rise_in_errors(role),
}
"""Each by its name, for the expert where it is one's own."""


def _quotient(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _mean_and_std(values: list[float]) -> tuple[float, float | None]:
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
