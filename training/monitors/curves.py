"""What a run has measured, read back from its events: every step once, however often it was cut off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...wan.families import Role
from ..events import HeldOut, StepDone

Points = list[tuple[int, float]]
Line = Mapping[str, Any]
_KINDS: Mapping[str, type[StepDone] | type[HeldOut]] = {"StepDone": StepDone, "HeldOut": HeldOut}


def measured(lines: Iterable[Line], up_to: int | None = None) -> list[StepDone | HeldOut]:
    """The steps and held-out losses of a run's events, in order. When it went on from an earlier checkpoint, what
    came after that is forgotten: those steps were made again, or will be. Lines of an earlier version lack fields."""
    kept: list[StepDone | HeldOut] = []
    for line in lines:
        name = line.get("event", "")
        if name == "StateChanged":
            _forget(kept, line["step"] + 1)
        elif name == "StepDone":
            _forget(kept, line["step"])
        if name in _KINDS and math.isfinite(line["loss"]):
            kept.append(_event(line))
    return [event for event in _last_of_each(kept) if up_to is None or event.step <= up_to]


@dataclass(frozen=True)
class Measured:
    """(step, value) by expert: what the pictures of a run show."""

    weights: dict[Role, Points] = field(default_factory=dict)
    rates: dict[Role, Points] = field(default_factory=dict)
    held_out: dict[Role, Points] = field(default_factory=dict)
    trained: dict[Role, Points] = field(default_factory=dict)
    weight_ratio: Points = field(default_factory=list)
    rate_ratio: Points = field(default_factory=list)
    grad_norms: dict[Role, Points] = field(default_factory=dict)
    ranks: dict[Role, Points] = field(default_factory=dict)
    """How many directions each LoRA uses, at its checkpoints."""


def curves_of(events: Iterable[StepDone | HeldOut]) -> Measured:
    """The events as curves; a measure that is None leaves no point."""
    curves = Measured()
    for event in events:
        if isinstance(event, HeldOut):
            curves.held_out.setdefault(event.role, []).append((event.step, event.loss))
            curves.trained.setdefault(event.role, []).append((event.step, event.trained))
            continue
        curves.rates.setdefault(event.role, []).append((event.step, event.rate))
        curves.grad_norms.setdefault(event.role, []).append((event.step, event.grad_norm))
        if event.weight is not None:
            curves.weights.setdefault(event.role, []).append((event.step, event.weight))
        if event.weight_ratio is not None:
            curves.weight_ratio.append((event.step, event.weight_ratio))
        if event.rate_ratio is not None:
            curves.rate_ratio.append((event.step, event.rate_ratio))
    return curves


def _forget(kept: list[StepDone | HeldOut], step: int) -> None:
    while kept and kept[-1].step >= step:
        kept.pop()


def _last_of_each(events: list[StepDone | HeldOut]) -> Iterator[StepDone | HeldOut]:
    """A held-out loss that was measured again, because the run was killed before its checkpoint, counts once."""
    again = {(e.step, e.role): i for i, e in enumerate(events) if isinstance(e, HeldOut)}
    for index, event in enumerate(events):
        if isinstance(event, StepDone) or again[event.step, event.role] == index:
            yield event


def _event(line: Line) -> StepDone | HeldOut:
    kind = _KINDS[line["event"]]
    known = {f.name for f in fields(kind)}
    return kind(**{name: value for name, value in line.items() if name in known})
