"""What becomes of a caption, so that a person sees it at a glance."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Literal, NamedTuple

ALIKE = 0.5
"""Captions that share fewer of their words are shown whole, one after the other (ours)."""


class Change(NamedTuple):
    """What a new caption is to the one that is there."""

    kind: Literal["new", "same", "changed"]
    text: str
    """Of a changed caption: its words, with `[old -> new]`, `[+new]` and `[-old]`. Else empty."""


def caption_change(old: str, new: str) -> Change:
    """`old` is empty where there is none."""
    if not old:
        return Change("new", "")
    return (
        Change("same", "") if old == new else Change("changed", _marked(old.split(), new.split()))
    )


def _marked(old: list[str], new: list[str]) -> str:
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if matcher.ratio() < ALIKE:
        return f"[{' '.join(old)} -> {' '.join(new)}]"
    marked = []
    for kind, a, b, c, d in matcher.get_opcodes():
        before, after = " ".join(old[a:b]), " ".join(new[c:d])
        forms = {"equal": before, "replace": f"[{before} -> {after}]"}
        marked.append(forms.get(kind, f"[-{before}]" if before else f"[+{after}]"))
    return " ".join(marked)
