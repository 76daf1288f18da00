"""What a config's visible keys say, before it is a plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...wan.errors import UserError
from ...wan.families import A14B, BOUNDARIES, SINGLE, Role
from ..data.dataset import Counts
from ..plans.checks import LONGEST_RUN
from ..plans.limits import OPTIMUM_EPOCHS
from .documents import Document
from .experts import OWN, own_values

Values = dict[str, Any]
"""Plan values by dotted name (`lora.rank`), as JSON holds them."""


@dataclass
class Draft:
    """Values that were found, by whom, and what was not carried over."""

    trainer: str
    documents: list[Document]
    values: Values = field(default_factory=dict)
    parts: list[Values] = field(default_factory=list)
    """Dataset settings, one for each folder and size."""
    epochs: float | None = None
    """The budget, where it is counted so; of each run."""
    notes: list[str] = field(default_factory=list)
    """What is done otherwise here."""
    ignored: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Adds a line, once."""
        if text not in self.notes:
            self.notes.append(text)

    def leave(self, ignored: list[str], unknown: list[str]) -> None:
        """Adds keys that no plan has, each once."""
        self.ignored += [line for line in ignored if line not in self.ignored]
        self.unknown += [line for line in unknown if line not in self.unknown]

    def images_only(self) -> bool:
        return bool(self.parts) and all(
            part.get("frames") == 1 or part.get("media") == "image" for part in self.parts
        )


@dataclass
class RunDraft:
    """One training run of a trainer that has a run for each expert."""

    role: Role
    where: str
    values: Values
    """What both experts share."""
    rates: Values
    """An expert's own: `rate`, `bump`, `minimum`, `maximum`, `schedule`, `warmup` and `cycles`."""
    steps: int | None = None
    epochs: float | None = None
    save_steps: int | None = None
    save_epochs: float | None = None


def given_counts(parts: Iterable[Mapping[str, Any]], clips: int) -> Counts | None:
    """How much an epoch shows of `clips` files: each folder is taken to hold as many as any other, and
    a folder that is read at several sizes counts for each."""
    parts = list(parts)
    if clips <= 0:
        return None
    folders = {part.get("folder") for part in parts if not part.get("regularisation")}
    repeats = sum(float(part.get("repeats", 1)) for part in parts if not part.get("regularisation"))
    return Counts(clips, clips * repeats / len(folders) if folders else float(clips), 0.0)


def merge_runs(draft: Draft, runs: list[RunDraft], counts: Counts | None) -> None:
    """The runs of both experts, or of one, as values of one plan."""
    runs = sorted(runs, key=lambda run: run.role != "high_noise")
    if len({run.role for run in runs}) != len(runs) or len(runs) > 2:
        raise UserError(
            f"There are {len(runs)} {draft.trainer} runs of the same kind: {', '.join(r.where for r in runs[:4])}.",
            "A plan is one run of a single model, or one for each of two experts.",
            "Paste the config of one training.",
        )
    for run in runs:
        _common(draft, run)
    roles = {run.role for run in runs}
    if "single" in roles:
        draft.values.setdefault("family", SINGLE)
    else:
        draft.values["family"] = A14B
    draft.values["train"] = (
        "both" if len(roles) == 2 or "single" in roles else next(iter(roles)).removesuffix("_noise")
    )
    _budget(draft, runs, counts)


def _common(draft: Draft, run: RunDraft) -> None:
    """What both share, and where this run's expert differs from the run before."""
    for name, value in run.values.items():
        if draft.values.setdefault(name, value) != value and name not in OWN:
            draft.note(
                f"{name} is {value} in {run.where}, and a plan has one: {draft.values[name]} is taken."
            )
    for expert in _experts(run):
        draft.values |= own_values(expert, run.values, draft.values)


def _experts(run: RunDraft) -> tuple[str, ...]:
    return ("high", "low") if run.role == "single" else (run.role.removesuffix("_noise"),)


def _rates(draft: Draft, run: RunDraft, steps: int) -> None:
    rates = dict(run.rates)
    warmup = rates.get("warmup", 0)
    # Below 1 it is a share of the run, as musubi-tuner reads it.
    rates["warmup"] = int(warmup * steps) if 0 < warmup < 1 else int(warmup)
    for expert in _experts(run):
        draft.values |= {f"{expert}.{name}": value for name, value in rates.items()}


def _budget(draft: Draft, runs: list[RunDraft], counts: Counts | None) -> None:
    samples = draft.values.get("batch", 1) * draft.values.get("accumulate", 1)
    steps = [_steps(draft, run, counts, samples) for run in runs]
    draft.values["steps"] = sum(steps)
    for run, of_run in zip(runs, steps, strict=True):
        _rates(draft, run, of_run)
    if len(runs) == 2:
        _shares(draft.values, *steps)
    saves = [
        found
        for run, of_run in zip(runs, steps, strict=True)
        if (found := _save_steps(draft, run, of_run, counts, samples))
    ]
    if len(saves) == len(runs):
        draft.values["save_every"] = sum(saves)
    if len(runs) == 1 and runs[0].role != "single":
        draft.note(
            f"This is the {runs[0].role.removesuffix('_noise')} expert's run alone; paste both configs for both."
        )


def _shares(values: Values, high: int, low: int) -> None:
    """What two runs come to: as a share where experts take turns, and as phases where they follow one another."""
    values["high_share"] = min(max(high / (high + low), 1e-6), 1 - 1e-6)
    values["phases"] = [{"train": "high", "steps": high}, {"train": "low", "steps": low}]


def _save_steps(
    draft: Draft, run: RunDraft, steps: int, counts: Counts | None, samples: int
) -> int | None:
    if run.save_steps:
        return run.save_steps
    if run.save_epochs and counts:
        return max(1, round(min(run.save_epochs * counts.shown / samples, LONGEST_RUN)))
    if run.save_epochs:
        draft.note("Saving is counted in epochs, and the number of clips is not known.")
        return max(1, min(100, steps))
    return None


def _steps(draft: Draft, run: RunDraft, counts: Counts | None, samples: int) -> int:
    if run.epochs is not None and run.steps is None:
        draft.epochs = run.epochs
    if run.epochs is not None and counts is not None:
        by_epochs = run.epochs * counts.shown / samples
        if run.steps is not None and run.steps <= by_epochs:
            return run.steps
        if by_epochs > LONGEST_RUN:
            raise _too_long(run, by_epochs)
        return max(1, math.ceil(by_epochs))
    if run.steps is not None:
        return run.steps
    if run.epochs is not None:
        raise needs_clips(run.epochs, run.where)
    raise UserError(
        f"{run.where} says neither steps nor epochs.",
        "A run has a length.",
        "Paste the whole config.",
    )


def _too_long(run: RunDraft, steps: float) -> UserError:
    return UserError(
        f"{run.where} trains for {run.epochs:g} epochs, which are {steps:.3g} steps here.",
        f"A plan has at most {LONGEST_RUN:,}.",
        "Correct the epochs, the repeats or clips.",
    )


def needs_clips(epochs: float, where: str) -> UserError:
    """Steps cannot be told from epochs alone."""
    factor = epochs / OPTIMUM_EPOCHS
    return UserError(
        f"{where} trains for {epochs:g} epochs, {factor:g} times the {OPTIMUM_EPOCHS} that are usual for an effect, "
        "and how many steps that is depends on the number of clips.",
        "The number of clips is above 0, or a dataset is connected.",
        "Set clips to the number of files in the dataset's folder, for example 16.",
    )


def default_boundary(values: Values) -> float:
    return BOUNDARIES["t2v" if values.get("task") == "t2v" else "i2v"]
