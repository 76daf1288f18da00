"""Recipes that two runs decide, which differ in one thing."""

from __future__ import annotations

from statistics import fmean

from .recipe_claims import (
    ERROR,
    HIGH,
    HOLDS,
    LOW,
    MISSING,
    NOT,
    PATTERN,
    UNTOLD,
    Verdict,
    better,
    decided,
    missing,
)
from .recipe_outcomes import Measure, Outcomes, compare, effect, held_out, known, told

EQUAL = 0.1
"""Effects that differ by a smaller share than this, and are not told apart, are called equal."""
KEPT = 0.8
"""Share of known motions that have to be left."""


def of_character(found: Outcomes) -> Verdict:
    """The character preset against itself with the rates exchanged."""
    recipe = "Character: low noise leads, 2 to 1"
    names = ("character", "character, high leads")
    verdict = better(found, *names, PATTERN, less=False)
    if not found.has(*names):
        return missing(recipe)
    ours, theirs = (told(found.of(name, PATTERN), ".3f") for name in names)
    looks = [told(found.of(name, effect("look"))) for name in names]
    return Verdict(
        recipe,
        UNTOLD if verdict == MISSING else verdict,
        f"Pattern {ours}, with the rates exchanged {theirs}; without the LoRA "
        f"{_without(found, 'striped', 'pattern', '.3f')}. "
        f"Share of frames with the look {looks[0]} against {looks[1]}. 800 steps of one clip.",
    )


def _without(found: Outcomes, lesson: str, measure: str, form: str) -> str:
    return format(found.without["effect"][lesson][measure], form) if found.without else "not run"


def of_the_others(found: Outcomes) -> list[Verdict]:
    """Optimizers, orders and shares: each against the same run with one thing changed."""
    known_kind = known("kind")
    return [
        _same(
            found,
            "8-bit AdamW with Kahan summation on bfloat16 does what AdamW on float32 does",
            "8-bit kahan loop",
            "equal loop",
            beside=("Without Kahan summation, on bfloat16", "bf16 alone loop"),
        ),
        _no_worse(
            found,
            "General video: alpha = rank / 2",
            "general video",
            "general video, alpha = rank",
        ),
        _against(found, "Interleaved is better than sequential", "equal loop", "sequential loop"),
        _against(
            found,
            "A share matched to the shift is better than half and half",
            "equal loop",
            "half and half loop",
        ),
        _forgetting(found, known_kind),
    ]


def _same(
    found: Outcomes, recipe: str, name: str, other: str, *, beside: tuple[str, str]
) -> Verdict:
    if not found.has(name, other):
        return missing(recipe)
    ours, theirs = found.of(name, ERROR), found.of(other, ERROR)
    how = compare(ours, theirs)
    equal = abs(fmean(ours) / fmean(theirs) - 1) <= EQUAL
    verdict = HOLDS if how == "not apart" and equal else NOT if how == "above" else UNTOLD
    why = (
        f"Path error in px: {_errors(found, name)} against {_errors(found, other)}; held-out {_shares(found, name)} "
        f"against {_shares(found, other)}"
    )
    words, third = beside
    if found.has(third):
        why += f". {words}: {_errors(found, third)} px, {_shares(found, third)}"
    return Verdict(recipe, verdict, f"{why}.")


def _no_worse(found: Outcomes, recipe: str, name: str, other: str) -> Verdict:
    if not found.has(name, other):
        return missing(recipe)
    worse = better(found, name, other, ERROR, less=True)
    why = (
        f"Path error in px: {_errors(found, name)} against {_errors(found, other)} with alpha = rank; held-out "
        f"{_shares(found, name)} against {_shares(found, other)}"
    )
    return Verdict(recipe, worse, f"{why}.")


def _against(found: Outcomes, recipe: str, name: str, other: str) -> Verdict:
    verdict = better(found, name, other, ERROR, less=True)
    if verdict == MISSING:
        return missing(recipe)
    why = (
        f"Path error in px: {_errors(found, name)} against {_errors(found, other)}; held-out "
        f"{_shares(found, name)} against {_shares(found, other)}; steps of the experts "
        f"{_split(found, name)} against {_split(found, other)}"
    )
    return Verdict(recipe, verdict, f"{why}.")


def _forgetting(found: Outcomes, measure: Measure) -> Verdict:
    recipe = "With clips of what is known among the others, it is kept"
    names = [
        f"{lead} {lesson}"
        for lesson in ("loop", "striped")
        for lead in ("high leads", "equal", "low leads")
    ]
    if not found.has(*names):
        return missing(recipe)
    kinds = [value for name in names for value in found.of(name, measure)]
    least = min(kinds)
    return Verdict(
        recipe,
        decided(found, HOLDS if least >= KEPT else NOT, *names),
        f"12 of the 40 clips show known motions: of these {told(kinds)} are still made in their own words, over "
        f"{len(kinds)} runs. The pictures of image style had none: see there.",
    )


def _errors(found: Outcomes, name: str) -> str:
    return told(found.of(name, ERROR), ".1f")


def _shares(found: Outcomes, name: str) -> str:
    high, low = (told(found.of(name, held_out(role))) for role in (HIGH, LOW))
    return f"{high} high, {low} low"


def _split(found: Outcomes, name: str) -> str:
    steps = found.by_name[name][0]["steps"]
    return f"{steps[HIGH]} and {steps[LOW]}"
