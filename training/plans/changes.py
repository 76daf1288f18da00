"""Plans changed by name, and two plans compared value by value."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from typing import Any, NamedTuple

from ...wan.errors import UserError
from ..data.dataset import Counts
from .budget import require_one_length, steps_for_epochs
from .plan import PARTS, TrainingPlan
from .reading import plan_json, read_plan

Values = dict[str, Any]
_NOT_TO_CHANGE = ("version", "notes")


class Difference(NamedTuple):
    """A value of two plans by its dotted name."""

    name: str
    ours: object
    theirs: object


def plan_values(plan: TrainingPlan) -> Values:
    """Every value by its dotted name (`lora.rank`), but version and notes."""
    values: Values = {}
    for name, value in asdict(plan).items():
        if name in PARTS:
            values |= {f"{name}.{inner}": of_part for inner, of_part in value.items()}
        elif name not in _NOT_TO_CHANGE:
            values[name] = value
    return values


def edited_plan(plan: TrainingPlan, changes: Mapping[str, Any]) -> TrainingPlan:
    """A plan with some of its values changed; `high.rate` names a part's value. Unknown names and impossible
    values are errors that name them."""
    check_names(changes)
    values = json.loads(plan_json(plan))
    for name, value in changes.items():
        part, _, inner = name.rpartition(".")
        (values[part] if part else values)[inner] = value
    note = f"Changed by hand: {', '.join(changes)}."
    return read_plan(json.dumps(values | {"notes": [*plan.notes, *([note] if changes else [])]}))


def check_names(names: Iterable[str]) -> None:
    """Raises `UserError` at the first name that no plan has."""
    kinds = {"": TrainingPlan, **PARTS}
    for name in names:
        part, _, inner = name.rpartition(".")
        if part not in kinds or inner not in _names(kinds[part]) or inner == "version":
            raise _unknown(name)


def plan_differences(
    ours: TrainingPlan, theirs: TrainingPlan, *, but: Collection[str] = ()
) -> list[str]:
    """`lora.rank: 16 now, 32 before` for every value that differs; `but`: values and parts that are not compared."""
    return [
        f"{name}: {mine} now, {other} before"
        for name, mine, other in differing_values(ours, theirs)
        if name.split(".")[0] not in but
    ]


def differing_values(ours: TrainingPlan, theirs: TrainingPlan) -> list[Difference]:
    """Every value that differs, by its dotted name; versions and notes are not compared."""
    mine, other = plan_values(ours), plan_values(theirs)
    return [Difference(name, mine[name], other[name]) for name in mine if mine[name] != other[name]]


def rate_changes(plan: TrainingPlan, expert: str, rate: float) -> Values:
    """What a new rate of an expert (`high` or `low`) means: with automagic the bump and the least rate that were
    equal to the old rate go with it, and the largest is never below it."""
    rates = plan.high if expert == "high" else plan.low
    changes: Values = {f"{expert}.rate": rate}
    if plan.optimizer.name == "automagic":
        for inner in ("bump", "minimum"):
            if getattr(rates, inner) == rates.rate:
                changes[f"{expert}.{inner}"] = rate
        if rates.maximum is not None and rates.maximum < rate:
            changes[f"{expert}.maximum"] = rate
    return changes


def rank_changes(plan: TrainingPlan, rank: int, alpha: float) -> Values:
    """A new rank (0: as it is) and alpha (0: in the same relation to the rank as before), for both experts."""
    changes: Values = {}
    if rank:
        changes["lora.rank"] = rank
        changes["lora.alpha"] = plan.lora.alpha * rank / plan.lora.rank
    if alpha:
        changes["lora.alpha"] = alpha
    for expert, own in (("high", plan.high), ("low", plan.low)):
        # An expert's own would go before what is asked for here.
        given = {"rank": rank, "alpha": rank or alpha}
        changes |= {
            f"{expert}.{name}": None
            for name, asked in given.items()
            if asked and getattr(own, name) is not None
        }
    return changes


def length_changes(samples: int, counts: Counts | None, *, steps: int, epochs: float) -> Values:
    """A new length of the run, in steps or, at `samples` a step, in epochs of a dataset of this size; 0 is as it
    is."""
    require_one_length(epochs, steps)
    if epochs and counts is None:
        raise UserError(
            f"epochs is {epochs:g}, and no dataset is connected.",
            "How many steps that is depends on the number of clips.",
            "Connect the dataset, or set steps.",
        )
    if epochs and counts is not None:
        return {"steps": steps_for_epochs(epochs, counts.shown, samples, 1)}
    return {"steps": steps} if steps else {}


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def _unknown(name: str) -> UserError:
    known = [own for own in _names(TrainingPlan) if own not in (*PARTS, *_NOT_TO_CHANGE)]
    known += [f"{part}.{inner}" for part, kind in PARTS.items() for inner in _names(kind)]
    near = get_close_matches(name, known, 1)
    return UserError(
        f"The plan has no value called {name!r}.",
        f"There are {', '.join(known)}.",
        f"Is {near[0]} meant? Correct the name." if near else "Correct the name.",
    )
