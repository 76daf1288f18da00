"""A plan as text and back: JSON with a version, migrations, and an error for what no plan has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from difflib import get_close_matches
from typing import Any

from ...wan.errors import UserError
from .checks import require
from .plan import LISTS, PARTS, PLAN_VERSION, TrainingPlan


def plan_json(plan: TrainingPlan) -> str:
    """The plan as text that `read_plan` turns back into an equal plan."""
    return json.dumps(asdict(plan), indent=2)


def read_plan(text: str) -> TrainingPlan:
    """A plan from JSON, of this version or an earlier one; unknown keys and impossible values are errors that name
    them."""
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"The plan is not JSON ({error}).",
            "A plan is a JSON object.",
            "Save it again from the plan node.",
        ) from error
    if not isinstance(values, dict):
        raise UserError(
            f"The plan is {str(values)[:80]!r}.",
            "A plan is a JSON object.",
            "Save it again from the plan node.",
        )
    values = _migrated(values)
    for name, kind in PARTS.items():
        if name in values:
            values[name] = _build(kind, values[name], f"{name}.")
    for name, kind in LISTS.items():
        if name in values:
            values[name] = _build_list(kind, values[name], name)
    return _build(TrainingPlan, values, "")


Values = dict[str, Any]
_MIGRATIONS: dict[int, Callable[[Values], Values]] = {}
"""Version n to a function that turns the values of version n into those of n + 1. A new key with a default needs
none: a plan without it has the default. A key that was renamed, or means something else, needs one."""


def _migrated(values: Values) -> Values:
    version = values.get("version")
    known = isinstance(version, int) and not isinstance(version, bool)
    while known and version in _MIGRATIONS and version < PLAN_VERSION:
        values, version = _MIGRATIONS[version](values), version + 1
    if not known or version != PLAN_VERSION:
        raise UserError(
            f"The plan has version {version}.",
            f"This version of Tandem reads version {PLAN_VERSION}"
            + (f" and, from before it, {sorted(_MIGRATIONS)}." if _MIGRATIONS else "."),
            "Make the plan again, or install the version that wrote it.",
        )
    return values | {"version": PLAN_VERSION}


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number or null"),
    "int | None": ((int, type(None)), "a whole number or null"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "text"),
    "str | None": ((str, type(None)), "text or null"),
    "tuple[str, ...]": ((list,), "a list of texts"),
    "tuple[str, ...] | None": ((list, type(None)), "a list of texts or null"),
    "tuple[float, ...]": ((list,), "a list of numbers"),
}
"""What JSON can hold for a field, by its annotation."""


def _elements_fit(value: object, annotation: str) -> bool:
    if not isinstance(value, list):
        return True
    kinds = (int, float) if "float" in annotation else (str,)
    return all(isinstance(each, kinds) and not isinstance(each, bool) for each in value)


def _build_list(kind: type, values: object, name: str) -> tuple[Any, ...]:
    require(isinstance(values, list), name, values, "a list of objects of settings")
    assert isinstance(values, list)
    needed = [f.name for f in fields(kind) if f.default is MISSING]
    for number, each in enumerate(values):
        lacks = [n for n in needed if not isinstance(each, Mapping) or n not in each]
        require(not lacks, f"{name}.{number}", each, f"an object with {', '.join(needed)}")
    return tuple(_build(kind, each, f"{name}.{number}.") for number, each in enumerate(values))


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - kind decides
    require(isinstance(values, Mapping), where.removesuffix("."), values, "an object of settings")
    known = [f.name for f in fields(kind)]
    if unknown := sorted(set(values) - set(known)):
        near = [n for name in unknown for n in get_close_matches(name, known, 1)]
        meant = f"Is {', '.join(where + n for n in near)} meant? " if near else ""
        raise UserError(
            f"The plan has {', '.join(where + name for name in unknown)}.",
            f"Known here: {', '.join(known)}.",
            f"{meant}Check the spelling or remove it.",
        )
    for f in fields(kind):
        if f.name in values and str(f.type) in _KINDS:
            kinds, can_be = _KINDS[str(f.type)]
            value = values[f.name]
            fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
            fits = fits and _elements_fit(value, str(f.type))
            require(fits, where + f.name, repr(value), can_be)
    kinds = {f.name: str(f.type) for f in fields(kind)}
    return kind(**{name: _as_field(value, kinds[name]) for name, value in values.items()})


def _as_field(value: Any, annotation: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """JSON knows one kind of numbers and of lists: 1 and 1.0 for one value would make two runs of one plan."""
    if isinstance(value, list):
        each = "float" if annotation.startswith("tuple[float") else ""
        return tuple(_as_field(one, each) for one in value)
    return float(value) if annotation.startswith("float") and value is not None else value
