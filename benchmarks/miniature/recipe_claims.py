"""Which of the received recipes hold on the miniature, each decided by its figures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from .recipe_outcomes import (
    Measure,
    Outcomes,
    compare,
    effect,
    held_out,
    rise,
    told,
)
from .recipe_runs import LED

HOLDS, NOT, UNTOLD, MISSING = (
    "holds",
    "does not hold",
    "cannot be told here",
    "not run yet",
)
HIGH, LOW = "high_noise", "low_noise"
HIGH_LEADS, LOW_LEADS = "by them high is to lead", "by them low is to lead"
TIE = 0.005
"""Held-out losses nearer than this, as shares of that without the LoRA, are equal."""
ERROR, PATTERN = effect("path_error_px"), effect("pattern")


@dataclass(frozen=True)
class Verdict:
    """One received recipe, whether it holds, and the figures that say so."""

    recipe: str
    verdict: str
    why: str


def missing(recipe: str) -> Verdict:
    """Of a recipe whose runs are not all there."""
    return Verdict(recipe, MISSING, "Its runs are missing.")


def decided(found: Outcomes, verdict: str, *names: str) -> str:
    """A verdict that rests on these runs; one seed of any of them decides nothing."""
    return verdict if found.has(*names, seeds=2) else UNTOLD


def all_or_none(met: Sequence[bool]) -> str:
    """HOLDS where a bar is met by all, NOT where by none."""
    return HOLDS if all(met) else UNTOLD if any(met) else NOT


def better(found: Outcomes, name: str, other: str, measure: Measure, *, less: bool) -> str:
    """Whether a run's measure is better than another's: HOLDS, NOT where it is worse, UNTOLD where they are not told
    apart."""
    if not found.has(name, other):
        return MISSING
    how = compare(found.of(name, measure), found.of(other, measure))
    if how in ("not apart", "too few"):
        return UNTOLD
    return HOLDS if (how == "below") == less else NOT


def of_leading(found: Outcomes) -> list[Verdict]:
    """High leads for motion, low leads for a look, and what the held-out losses say of both."""
    return [
        _leads(found, LEADS_MOTION),
        _leads(found, LEADS_LOOK),
        _decides(found),
        _overtrains(found),
    ]


@dataclass(frozen=True, kw_only=True)
class Leader:
    """Which expert is said to lead, for what, and by which measure."""

    what: str
    lesson: str
    leader: str
    other: str
    measure: Measure
    called: str
    less: bool
    """Whether less of the measure is better."""
    form: str


LEADS_MOTION = Leader(
    what="motion",
    lesson="loop",
    leader="high",
    other="low",
    measure=ERROR,
    called="Path error in px",
    less=True,
    form=".1f",
)
LEADS_LOOK = Leader(
    what="a look",
    lesson="striped",
    leader="low",
    other="high",
    measure=PATTERN,
    called="Pattern",
    less=False,
    form=".3f",
)


SAID = (LEADS_MOTION, LEADS_LOOK)


def _leads(found: Outcomes, said: Leader) -> Verdict:
    recipe = f"For {said.what} the {said.leader}-noise expert is to lead"
    ours, theirs, equal = (
        f"{lead} {said.lesson}" for lead in (f"{said.leader} leads", f"{said.other} leads", "equal")
    )
    verdict = better(found, ours, theirs, said.measure, less=said.less)
    if verdict == MISSING or not found.has(equal):
        return missing(recipe)
    beside = better(found, ours, equal, said.measure, less=said.less)
    than_equal = {HOLDS: "better than", NOT: "worse than"}.get(beside, "not told apart from")
    figures = [told(found.of(name, said.measure), said.form) for name in (ours, theirs, equal)]
    return Verdict(
        recipe,
        verdict,
        f"{said.called}: {figures[0]} with rates 4 to 1 for it, {figures[1]} with 1 to 4, {figures[2]} with equal "
        f"ones. Leading is {than_equal} equal rates.",
    )


def _decides(found: Outcomes) -> Verdict:
    """Where the measured effect tells who should lead, do both experts' held-out losses say the same?"""
    recipe = "A held-out loss per expert decides which is to lead"
    both = [(said, f"high leads {said.lesson}", f"low leads {said.lesson}") for said in SAID]
    if not found.has(*(name for _, *names in both for name in names)):
        return missing(recipe)
    parts, agree = [], []
    for said, high, low in both:
        losses = {
            role: (found.of(high, held_out(role)), found.of(low, held_out(role)))
            for role in (HIGH, LOW)
        }
        says = _said_by(losses)
        parts.append(
            f"{said.lesson}: when high leads {told(losses[HIGH][0])} (high) and {told(losses[LOW][0])} (low), when low "
            f"leads {told(losses[HIGH][1])} and {told(losses[LOW][1])}: {says}"
        )
        by_effect = better(found, high, low, said.measure, less=said.less)
        if by_effect in (HOLDS, NOT):
            agree.append(says == (HIGH_LEADS if by_effect == HOLDS else LOW_LEADS))
    verdict = all_or_none(agree) if agree else UNTOLD
    return Verdict(recipe, verdict, f"Lowest held-out losses, {'; '.join(parts)}.")


def _said_by(losses: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """Which expert is to lead by these held-out losses: for each expert those when high leads, and when low leads."""
    by_role = (fmean(ours) - fmean(theirs) for ours, theirs in losses.values())
    votes = {difference < 0 for difference in by_role if abs(difference) > TIE}
    if len(votes) != 1:
        return "they say nothing" if not votes else "they disagree"
    return HIGH_LEADS if votes.pop() else LOW_LEADS


def _overtrains(found: Outcomes) -> Verdict:
    recipe = "The high-noise expert overtrains more easily (others report it)"
    names = [f"{lead} {lesson}" for lesson in ("loop", "striped") for lead in LED]
    if not found.has(*names):
        return missing(recipe)
    more, parts = [], []
    for lesson in ("loop", "striped"):
        rises = {role: found.of(f"equal {lesson}", rise(role)) for role in (HIGH, LOW)}
        more += [high > low for high, low in zip(rises[HIGH], rises[LOW], strict=True)]
        parts.append(
            f"{lesson}: {told(rises[HIGH], '.0%')} (high), {told(rises[LOW], '.0%')} (low)"
        )
    return Verdict(
        recipe,
        decided(found, all_or_none(more), *names),
        "How far the held-out loss lies above its lowest at the end of the runs with equal rates, "
        + "; ".join(parts)
        + ".",
    )
