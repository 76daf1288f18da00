"""A plan as text and back: JSON with a version, migrations, and an error for what no plan has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from ...wan.errors import UserError
from .checks import require
from .examples import such_as
from .json_text import json_object
from .known_names import field_names, meant
from .plan import LISTS, PARTS, PLAN_VERSION, TrainingPlan


def plan_json(plan: TrainingPlan) -> str:
    """The plan as text that `read_plan` turns back into an equal plan."""
    return json.dumps(asdict(plan), indent=2)


def read_plan(text: str) -> TrainingPlan:
    """A plan from JSON, of this version or an earlier one; unknown keys and impossible values are errors that name
    them."""
    values = json_object(
        text, "The plan", "A plan is a JSON object.", "Save it again from the plan node."
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


def part_value(name: str, value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """A part of a plan, or a list of such, from what JSON holds; unknown keys and values of another kind are errors
    that name them."""
    if name in PARTS:
        return _build(PARTS[name], value, f"{name}.")
    return _build_list(LISTS[name], value, name)


def require_kind(kind: type, name: str, value: object, where: str = "") -> None:
    """Raises `UserError` where JSON holds another kind of value than a field of `kind` has."""
    annotation = next(str(f.type) for f in fields(kind) if f.name == name)
    if annotation not in _KINDS:
        return
    kinds, can_be = _KINDS[annotation]
    fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    fits = fits and _elements_fit(value, annotation)
    require(fits, where + name, repr(value), can_be + such_as(where + name))


def _build_list(kind: type, values: object, name: str) -> tuple[Any, ...]:
    can_be = f"a list of objects of settings{such_as(name)}"
    require(isinstance(values, list), name, values, can_be)
    assert isinstance(values, list)
    needed = [f.name for f in fields(kind) if f.default is MISSING]
    for number, each in enumerate(values):
        lacks = [n for n in needed if not isinstance(each, Mapping) or n not in each]
        one = f"{name}.{number}"
        require(not lacks, one, repr(each), f"an object with {', '.join(needed)}{such_as(one)}")
    return tuple(_build(kind, each, f"{name}.{number}.") for number, each in enumerate(values))


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - kind decides
    part = where.removesuffix(".")
    require(isinstance(values, Mapping), part, values, f"an object of settings{such_as(part)}")
    _require_known(kind, values, where)
    for name, value in values.items():
        require_kind(kind, name, value, where)
    kinds = {f.name: str(f.type) for f in fields(kind)}
    return kind(**{name: _as_field(value, kinds[name]) for name, value in values.items()})


def _require_known(kind: type, values: Mapping[str, Any], where: str) -> None:
    known = field_names(kind)
    if unknown := sorted(set(values) - set(known)):
        hints = "".join(meant(where + name, where, known) for name in unknown)
        raise UserError(
            f"The plan has {', '.join(where + name for name in unknown)}.",
            f"{hints}Known here: {', '.join(known)}.",
            "Correct the name, or remove it.",
        )


def _as_field(value: Any, annotation: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """JSON knows one kind of numbers and of lists: 1 and 1.0 for one value would make two runs of one plan."""
    if isinstance(value, list):
        each = "float" if annotation.startswith("tuple[float") else ""
        return tuple(_as_field(one, each) for one in value)
    return float(value) if annotation.startswith("float") and value is not None else value
