"""Files that hold the LoRAs of both experts of Wan 2.2, apart by a word in their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple, TypeVar

from ..families import Role
from .files import tandem_metadata
from .header import LoraHeader
from .names import LEAKS, WRAPPERS

Side = Literal["high", "low"]
Value = TypeVar("Value")

# Words that always speak of an expert: ai-toolkit's two, diffusers' and DiffSynth's second one.
SIDES: dict[str, Side] = {"transformer_1": "high", "transformer_2": "low", "dit2": "low"}
# diffusers' and DiffSynth's word for the first expert, or for an only model: it is the high-noise expert where the
# word on the right stands in the same file.
FIRST_OF = {"transformer": "transformer_2", "dit": "dit2"}

_SIDES_IN_ORDER: tuple[Side, Side] = ("high", "low")
_ROLES: dict[Side | None, Role] = {"high": "high_noise", "low": "low_noise"}


class Evidence(NamedTuple):
    """What a file itself says of the expert that it is for."""

    metadata: object = None
    """As Tandem's trainer writes it; anything in a file from elsewhere."""
    keys: Role | None = None
    """The one expert that every key of the file is for, when the keys name one."""


def evidence_in(header: LoraHeader) -> Evidence:
    """What a file's metadata and keys say, without its weights."""
    return Evidence(tandem_metadata(header.metadata).get("expert"), expert_in_keys(header.tensors))


def expert_in_keys(named: Mapping[str, object]) -> Role | None:
    """The expert that the keys name; None when they name none, or both."""
    sides = list(split_experts(named))
    return _ROLES.get(sides[0]) if len(sides) == 1 else None


def split_experts(named: Mapping[str, Value]) -> dict[Side | None, dict[str, Value]]:
    """What the keys are for: {"high": ..., "low": ...}, one of them, or {None: everything} for a single model.

    Keys stay as they are. A key that speaks of no expert in a file that otherwise does comes with each.
    """
    words = {key: _wrapper_words(key) for key in named}
    present = {word for found in words.values() for word in found}
    sides = {key: _side(found, present) for key, found in words.items()}
    speaking: list[Side | None] = [side for side in _SIDES_IN_ORDER if side in sides.values()]
    parts: dict[Side | None, dict[str, Value]] = {}
    for side in speaking or [None]:
        own = (side, None)
        parts[side] = {key: value for key, value in named.items() if sides[key] in own}
    return parts


def split_header(header: LoraHeader) -> dict[Side | None, LoraHeader]:
    """The header of each expert's part of a file."""
    parts = split_experts(header.tensors)
    return {side: replace(header, tensors=tensors) for side, tensors in parts.items()}


def _wrapper_words(key: str) -> list[str]:
    words = []
    for word in key.split("."):
        if word not in WRAPPERS and word not in LEAKS:
            break
        words.append(word)
    return words


def _side(words: list[str], present: set[str]) -> Side | None:
    for word in words:
        if word in SIDES:
            return SIDES[word]
    first = any(FIRST_OF.get(word) in present for word in words)
    return "high" if first else None
