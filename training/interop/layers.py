"""Which layers are trained: a plan names those that are, other trainers those that are not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from ...wan.lora.adapters import DEFAULT_TARGETS
from .draft import Draft
from .names import ATTENTION

NO_FEED_FORWARD = r".*\.ffn\..*"
"""diffusion-pipe's pattern for what `ATTENTION` leaves out."""
_ALL_BUT = re.compile(r"\(\?!\(\?:(.*)\)\\Z\)\.\*", re.S)
_NUMBERED = re.compile(r"\\[1-9]|\(\?P=|\(\?\(")
"""References to groups: they would point elsewhere where patterns are joined."""
_TEXT = re.compile(r"([rR]?)(?:'([^'\n]*)'|\"([^\"\n]*)\")")


def are_patterns(patterns: Iterable[str]) -> bool:
    """Whether all can be compiled, and joined into one without a change of meaning."""
    try:
        found = [re.compile(pattern) for pattern in patterns]
        re.compile("|".join(f"(?:{pattern.pattern})" for pattern in found))
    except (re.error, RecursionError, OverflowError):
        return False
    return not any(_NUMBERED.search(pattern.pattern) for pattern in found)


def all_but(targets: Sequence[str]) -> str | None:
    """One pattern for the whole names of all other layers; None where the targets cannot be joined."""
    if targets == ATTENTION:
        return NO_FEED_FORWARD
    return f"(?!(?:{joined(targets)})\\Z).*" if are_patterns(targets) else None


def targets_without(excluded: Sequence[str], included: Sequence[str] = ()) -> list[str]:
    """The targets of a trainer that takes all linear layers of the blocks but those of a pattern, and those of the
    second patterns all the same."""
    if not excluded:
        return list(DEFAULT_TARGETS)
    if list(excluded) == [".*"]:
        return list(included)
    if list(excluded) in ([NO_FEED_FORWARD], [r".*ffn.*"]) and not included:
        return list(ATTENTION)
    if len(excluded) == 1 and not included and (found := _ALL_BUT.fullmatch(excluded[0])):
        return [found[1]]
    left = f"(?!(?:{joined(excluded)})\\Z)"
    return [*(left + target for target in DEFAULT_TARGETS), *included]


def noted_targets(
    draft: Draft, key: str, excluded: Sequence[str], included: Sequence[str] = ()
) -> list[str]:
    """The same; what is no pattern is said and left out."""
    if are_patterns([*excluded, *included]):
        targets = targets_without(excluded, included)
        if targets:
            return targets
    draft.note(f"{key} is no list of patterns that is read here: set lora.targets for the same.")
    return list(DEFAULT_TARGETS)


def list_text(patterns: Sequence[str]) -> str:
    """A list as Python and JSON both read it."""
    return json.dumps(list(patterns))


def patterns_in(text: str) -> list[str]:
    """The texts of such a list, or of one with raw strings."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return found
    return [
        single or double if raw else (single or double).replace("\\\\", "\\")
        for raw, single, double in _TEXT.findall(text)
    ]


def joined(patterns: Sequence[str]) -> str:
    """One pattern for what any of them fits."""
    return patterns[0] if len(patterns) == 1 else "|".join(f"(?:{each})" for each in patterns)
