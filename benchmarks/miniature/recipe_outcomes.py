"""What the runs of the recipes came to: figures over the seeds, and whether two settings can be told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

APART = 1.5
"""Two settings are told apart when their means differ by more than this many times what the seeds of either do. Of two
pairs of seeds that one bell curve has drawn, one in nine would be."""
Outcome = Mapping[str, Any]
Measure = Callable[[Outcome], float]


@dataclass(frozen=True)
class Outcomes:
    """By a run's name, what each seed came to; `without` is the miniature without a LoRA."""

    by_name: Mapping[str, Sequence[Outcome]]
    without: Outcome = field(default_factory=dict)

    def has(self, *names: str, seeds: int = 1) -> bool:
        """Whether each of these runs is there with so many seeds."""
        return all(len(self.by_name.get(name, ())) >= seeds for name in names)

    def of(self, name: str, measure: Measure) -> list[float]:
        """A measure of a run, seed by seed."""
        return [measure(outcome) for outcome in self.by_name.get(name, ())]


def effect(field_name: str, step: int | None = None) -> Measure:
    """A measure of the clips that are made with the checkpoint of `step`, or of the last."""

    def measure(outcome: Outcome) -> float:
        at = max(map(int, outcome["effect"])) if step is None else step
        return outcome["effect"][str(at)][field_name]

    return measure


def known(field_name: str) -> Measure:
    """A measure of clips of known motions, asked for without the trigger."""
    return lambda outcome: outcome["known"][field_name]


def ratio(what: str) -> Measure:
    """`weight` or `rate`: the high-noise expert's over the low-noise one's after the last step."""
    return lambda outcome: outcome[f"{what}_ratio"]


def held_out(role: str, *, last: bool = False) -> Measure:
    """An expert's lowest held-out loss, or its last, as a share of the one without the LoRA."""

    def measure(outcome: Outcome) -> float:
        losses = [loss for _, loss, _ in outcome["held_out"][role]]
        return (losses[-1] if last else min(losses)) / losses[0]

    return measure


def rise(role: str) -> Measure:
    """How far an expert's last held-out loss lies above its lowest, as a share."""
    return lambda outcome: held_out(role, last=True)(outcome) / held_out(role)(outcome) - 1


def best_step(role: str) -> Measure:
    """The step of the lowest held-out loss of an expert."""
    return lambda outcome: min(outcome["held_out"][role], key=lambda point: point[1])[0]


def loss_drift(role: str) -> Measure:
    """How far an expert's mean loss over its last fifth lies from the fifth before, as a share."""
    return lambda outcome: abs(outcome["loss"][role][-1] / outcome["loss"][role][-2] - 1)


def spread(values: Sequence[float]) -> float:
    """Largest less smallest."""
    return max(values) - min(values)


def compare(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """`below`, `above`, or `not apart` by APART; `too few` where either has one seed only."""
    if min(len(ours), len(theirs)) < 2:
        return "too few"
    difference = fmean(ours) - fmean(theirs)
    if abs(difference) <= APART * max(spread(ours), spread(theirs)):
        return "not apart"
    return "below" if difference < 0 else "above"


def told(values: Sequence[float], form: str = ".2f") -> str:
    """`4.10 (4.08 to 4.12)`: the mean, and smallest and largest of the seeds; one seed's value alone is marked."""
    if not values:
        return "not run"
    mean = format(fmean(values), form)
    if len(values) == 1:
        return f"{mean} (one seed)"
    least, most = format(min(values), form), format(max(values), form)
    return mean if least == most else f"{mean} ({least} to {most})"


def progress(outcome: Outcome, step: int, start: float, name: str = "path_error_px") -> float:
    """How much of the way from `start`, without the LoRA, to the best checkpoint of the run this one has gone."""
    values = [found[name] for found in outcome["effect"].values()]
    end = min(values) if name == "path_error_px" else max(values)
    way = end - start
    return (outcome["effect"][str(step)][name] - start) / way if way else 0.0
