"""A strength schedule over one run of two experts: which step has which strength, as numbers and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..families import Role
from .strength import (
    Kind,
    StrengthSchedule,
    keyframe_text,
    number_text,
    rounded,
    schedule_curve,
)


@dataclass(frozen=True, kw_only=True)
class StrengthRun:
    """A LoRA's strength on both experts at every step of one run."""

    sigmas: tuple[float, ...]
    """Noise at the start of each step, and at the end of the last."""
    high_steps: int
    """How many of the first steps are the high-noise expert's; all of them for a single model."""
    high: tuple[float, ...]
    low: tuple[float, ...]
    """Strengths of every step on each expert, also of the steps that the other one takes."""
    boundary: float
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def role(self, step: int) -> Role:
        """Who takes a step, counted from 0. A boundary of 0 means a single model."""
        if self.boundary == 0:
            return "single"
        return "high_noise" if step < self.high_steps else "low_noise"

    def strength(self, step: int) -> float:
        """What the LoRA has at that step, on the expert that takes it."""
        return (self.low if self.role(step) == "low_noise" else self.high)[step]

    def text(self) -> str:
        """A line for each step, and what a person should know."""
        lines = ["step   sigma  expert  strength"]
        for step in range(self.steps):
            expert = self.role(step).removesuffix("_noise")
            lines.append(
                f"{step + 1:4d}  {self.sigmas[step]:6.3f}  {expert:<6}  {self.strength(step):8.3f}"
            )
        return "\n".join([self._headline(), *lines, *self.notes])

    def _headline(self) -> str:
        if self.boundary == 0:
            return f"{self.steps} steps with one model"
        high, low = self.high_steps, self.steps - self.high_steps
        headline = f"{high} high + {low} low of {self.steps} steps, boundary {self.boundary:g}"
        if high and low:
            headline += f": the low-noise expert takes over at step {high + 1}, sigma {self.sigmas[high]:.3f}"
        return headline


def strength_run(
    high: StrengthSchedule,
    low: StrengthSchedule,
    sigmas: Sequence[float],
    *,
    boundary: float,
    strengths: tuple[float, float] = (1.0, 1.0),
) -> StrengthRun:
    """The schedules of both experts on a run with these sigmas (one more than steps), times a row's strengths.

    A step that begins at sigma >= `boundary` is the high-noise expert's; 0 gives all to a single model.
    """
    curves = [
        tuple(factor * strength for factor in schedule_curve(schedule, sigmas))
        for schedule, strength in zip((high, low), strengths, strict=True)
    ]
    named = {"": high} if high == low or not boundary else {"high: ": high, "low: ": low}
    notes = [name + note for name, s in named.items() for note in schedule_notes(s, sigmas)]
    return StrengthRun(
        sigmas=tuple(sigmas),
        high_steps=sum(rounded(sigma) >= boundary for sigma in sigmas[:-1]),
        high=curves[0],
        low=curves[1],
        boundary=boundary,
        notes=tuple(notes),
    )


def schedule_notes(schedule: StrengthSchedule, sigmas: Sequence[float]) -> list[str]:
    """What a person should know of this schedule on this run: values that hold on, or that no step reaches."""
    steps, last = len(sigmas) - 1, schedule.keyframes[-1]
    if schedule.constant is not None:
        return []
    if steps == 1 and schedule.kind == "fraction":
        return ["The run has one step, which is place 0."]
    if schedule.is_list and last.place < steps:
        return [
            f"The list has {len(schedule.keyframes)} values and the run {steps} steps: the last value, "
            f"{number_text(last.value)}, holds from step {last.place:g} on."
        ]
    return [
        f"No step reaches {keyframe_text(schedule.kind, keyframe)}: {_end_of_run(schedule.kind, sigmas)}."
        for keyframe in schedule.keyframes
        if _is_beyond(schedule.kind, keyframe.place, sigmas)
    ]


def _is_beyond(kind: Kind, place: float, sigmas: Sequence[float]) -> bool:
    if kind == "sigma":
        return place < rounded(sigmas[-2])
    return kind == "step" and place > len(sigmas) - 1


def _end_of_run(kind: Kind, sigmas: Sequence[float]) -> str:
    if kind == "sigma":
        return f"the last one begins at sigma {sigmas[-2]:.3f}"
    return f"the run has {len(sigmas) - 1}"
