"""Plans changed by name, and two plans compared value by value."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from ...wan.errors import UserError
from ..data.dataset import Counts
from .budget import require_one_length, steps_for_epochs
from .known_names import all_names, field_names, meant
from .layer_limits import broken_patterns
from .plan import LISTS, PARTS, TrainingPlan
from .reading import part_value, plan_json, read_plan, require_kind

Values = dict[str, Any]
_NOT_TO_CHANGE = ("version", "notes")
_KINDS: dict[str, type] = {"": TrainingPlan, **PARTS}
_CHANGED = "Changed by hand: "


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
    return read_plan(json.dumps(values | {"notes": _with_note(plan.notes, changes)}))


def check_names(names: Iterable[str]) -> None:
    """Raises `UserError` at the first name that no plan has."""
    for name in names:
        part, _, inner = name.rpartition(".")
        if part not in _KINDS or inner not in field_names(_KINDS[part]) or inner == "version":
            raise _unknown(name)


def check_changes(changes: Mapping[str, Any]) -> None:
    """Raises `UserError` for what can be known of changes before there is a plan: unknown names, values of another
    kind, and patterns that are no regular expressions."""
    check_names(changes)
    for name, value in changes.items():
        part, _, inner = name.rpartition(".")
        if name in PARTS or name in LISTS:
            part_value(name, value)
        else:
            require_kind(_KINDS[part], inner, value, f"{part}." if part else "")
    for name, patterns in _patterns(changes):
        for broken in broken_patterns(name, patterns):
            came, _, can_be = broken.text.partition("). ")
            raise UserError(f"{came}).", can_be, broken.fix)


def _patterns(changes: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for name, value in changes.items():
        if name == "patterns":
            yield name, [each["pattern"] for each in value]
        elif name.endswith(".targets"):
            yield name, value or []
        elif name in PARTS:
            yield f"{name}.targets", value.get("targets") or []


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


def _with_note(notes: Sequence[str], names: Iterable[str]) -> list[str]:
    """The notes, with one behind them of everything that was changed, now and before."""
    before = [note for note in notes if note.startswith(_CHANGED)]
    others = [note for note in notes if not note.startswith(_CHANGED)]
    changed = [each for note in before for each in note[len(_CHANGED) : -1].split(", ")]
    every = dict.fromkeys([*changed, *names])
    return [*others, f"{_CHANGED}{', '.join(every)}."] if every else others


def _unknown(name: str) -> UserError:
    part = name.rpartition(".")[0]
    here = field_names(PARTS[part]) if part in PARTS else ()
    hint = meant(name, f"{part}." if here else "", here)
    return UserError(
        f"The plan has no value called {name!r}.",
        f"{hint}There are {', '.join(all_names())}.",
        "Correct the name.",
    )
