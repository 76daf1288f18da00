"""One layer's tensors, by their shapes: the changes that they make, or why they make none."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal, NamedTuple

from .parts import Part
from .sizes import Shape, is_other_task, other_model
from .update_kinds import DIFFERENCE, KINDS, Kind, magnitude_axis

Cause = Literal[
    "no such layer",
    "half a pair",
    "shape",
    "layer named twice",
    "unknown kind of key",
    "unknown format",
    "not a number",
]
Parameter = Literal["weight", "bias", "modulation"]

# The parameter of a layer that a part changes; alpha and magnitude go with the weight.
_PARAMETER: dict[Part, Parameter] = {
    "bias difference": "bias",
    "up bias": "bias",
    "modulation difference": "modulation",
}
_DIFFERENCES: frozenset[Part] = frozenset(
    ("weight difference", "bias difference", "modulation difference", "up bias")
)
_SCALING: frozenset[Part] = frozenset(("alpha", "magnitude"))


class Fault(NamedTuple):
    """Why some tensors change nothing."""

    cause: Cause
    detail: str = ""
    expected: bool = False
    """Harmless: a LoRA that leaves this over works as its author meant it."""


class Change(NamedTuple):
    """What some tensors of a file do to one parameter of the network."""

    target: str
    kind: str
    """LoRA, LoKr, LoHa, DoRA (LoRA), ..., or difference."""
    keys: Mapping[Part, str]
    shape: Shape
    """Of the parameter."""
    rank: int | None
    alpha: float | None


def by_parameter(keys: Mapping[Part, str]) -> dict[Parameter, dict[Part, str]]:
    """The keys of one layer, apart for each of its parameters, the weight first."""
    if not _PARAMETER.keys() & keys.keys():
        return {"weight": dict(keys)}
    split: dict[Parameter, dict[Part, str]] = {}
    for part, key in keys.items():
        split.setdefault(_PARAMETER.get(part, "weight"), {})[part] = key
    return dict(sorted(split.items(), key=lambda item: item[0] != "weight"))


def change_of(
    target: str,
    keys: Mapping[Part, str],
    shapes: Mapping[Part, Shape],
    parameters: Mapping[str, Shape],
) -> Change | Fault:
    """What the tensors of one parameter do to `target`, which the network has; alpha is not looked at."""
    made: set[Part] = set(shapes) - _SCALING
    if made and made <= _DIFFERENCES:
        return _difference(target, keys, shapes, parameters)
    kind = next((kind for kind in KINDS if made in kind.alternatives), None)
    if kind is None:
        return _incomplete(frozenset(made))
    rank = kind.rank(shapes)
    weight = kind.makes(shapes) if rank is None or rank > 0 else None
    if weight is None:
        found = ", ".join(str(shape) for part, shape in shapes.items() if part in made)
        return Fault("shape", f"the factors {found} do not fit together")
    expected = parameters[target]
    if weight != (expected[0], prod(expected[1:])) or len(expected) < 2:
        return _misfit(target, weight, parameters)
    name = kind.name
    if "magnitude" in shapes:
        if magnitude_axis(shapes["magnitude"], expected) is None:
            return Fault(
                "shape", f"a magnitude of {shapes['magnitude']} for a weight of {expected}"
            )
        name = f"DoRA ({name})"
    return Change(target, name, keys, expected, rank, None)


def _difference(
    target: str,
    keys: Mapping[Part, str],
    shapes: Mapping[Part, Shape],
    parameters: Mapping[str, Shape],
) -> Change | Fault:
    stored = [shape for part, shape in shapes.items() if part in _DIFFERENCES]
    if len(stored) > 1:
        return Fault("layer named twice", "two differences of one parameter")
    if "magnitude" in shapes:
        return Fault("half a pair", "a magnitude without the LoRA that it belongs to")
    if _without_ones(stored[0]) != _without_ones(parameters[target]):
        return _misfit(target, stored[0], parameters)
    return Change(target, DIFFERENCE, keys, parameters[target], None, None)


def _without_ones(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


def _incomplete(made: frozenset[Part]) -> Fault:
    kind = next((kind for kind in KINDS if made <= kind.parts), None)
    if kind is None:
        return Fault("layer named twice", "two kinds of change of one weight")
    if not made:
        return Fault("half a pair", "alpha or magnitude without factors")
    return Fault("half a pair", _lacking(kind, made))


def _lacking(kind: Kind, made: frozenset[Part]) -> str:
    if kind.name == "LoRA":
        return "lora_A and lora_B (down and up) come together"
    missing = min((alternative - made for alternative in kind.alternatives), key=len)
    return f"a {kind.name} without its {', '.join(sorted(missing))}"


def _misfit(target: str, theirs: Shape, parameters: Mapping[str, Shape]) -> Fault:
    ours = parameters[target]
    models = other_model(target, theirs, parameters) if theirs and len(ours) > 1 else None
    detail = f"{theirs} in the file, {ours} in the model"
    return Fault(
        "shape",
        f"{models}; {detail}" if models else detail,
        expected=len(theirs) > 1 and len(ours) > 1 and is_other_task(target, theirs, parameters),
    )
