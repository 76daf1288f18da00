"""Which of the received recipes hold on the miniature, each decided by its figures alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from .recipe_outcomes import (
    Measure,
    Outcomes,
    best_step,
    compare,
    effect,
    held_out,
    ratio,
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
        high_wins = [fmean(ours) < fmean(theirs) for ours, theirs in losses.values()]
        says = {2: "high is to lead", 0: "low is to lead"}.get(sum(high_wins), "they disagree")
        parts.append(
            f"{said.lesson}: when high leads {told(losses[HIGH][0])} (high) and {told(losses[LOW][0])} (low), when low "
            f"leads {told(losses[HIGH][1])} and {told(losses[LOW][1])}: {says}"
        )
        by_effect = better(found, high, low, said.measure, less=said.less)
        if by_effect in (HOLDS, NOT):
            agree.append(sum(high_wins) == (2 if by_effect == HOLDS else 0))
    verdict = all_or_none(agree) if agree else UNTOLD
    return Verdict(recipe, verdict, f"Lowest held-out losses, {'; '.join(parts)}.")


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


def of_motion(found: Outcomes, on_noise: dict[str, float]) -> list[Verdict]:
    """The two presets of motion; `on_noise`: their rate ratio when gradients are noise."""
    return [
        _rate_ratio(found),
        _from_the_bounds(found, on_noise),
        _weight_ratio(found),
        _best_motion_step(found),
        Verdict(
            "Motion: a mean high-noise weight of 0.008 to 0.010",
            UNTOLD,
            f"It is {told([o['weight'][HIGH] for o in found.by_name['motion 4x']], '.3f')} here; what a factor starts "
            "with goes with one over the root of the network's width, which is 40 times smaller here than at 14B.",
        )
        if found.has("motion 4x")
        else missing("Motion: a mean high-noise weight of 0.008 to 0.010"),
    ]


def _rate_ratio(found: Outcomes) -> Verdict:
    recipe = "Motion: the rate ratio reaches 3 to 5"
    if not found.has("motion 4x", "motion 3x"):
        return missing(recipe)
    ratios = {name: found.of(name, ratio("rate")) for name in ("motion 4x", "motion 3x")}
    inside = [3 <= value <= 5 for values in ratios.values() for value in values]
    verdict = decided(found, all_or_none(inside), *ratios)
    parts = [f"{name} ends at {told(values)}" for name, values in ratios.items()]
    return Verdict(recipe, verdict, f"{'; '.join(parts)}.")


def _from_the_bounds(found: Outcomes, on_noise: dict[str, float]) -> Verdict:
    recipe = "That ratio shows that motion needs the high-noise expert"
    noise = ", ".join(f"{name} {value:.2f}" for name, value in on_noise.items())
    why = f"Gradients that are noise alone, with the presets' own rates and steps, end at {noise}: the bounds make it"
    exchanged = "motion 4x, bounds exchanged"
    verdict = NOT if min(on_noise.values()) >= 3 else UNTOLD
    if found.has("motion 4x"):
        why += f". On clips motion 4x ends at {told(found.of('motion 4x', ratio('rate')))}"
    if found.has(exchanged):
        ratios = found.of(exchanged, ratio("rate"))
        why += f", and with the experts' bounds exchanged at {told(ratios)}"
        verdict = NOT if max(ratios) < 1 else UNTOLD
    return Verdict(recipe, verdict, f"{why}.")


def _weight_ratio(found: Outcomes) -> Verdict:
    recipe = "Motion: the weight ratio reaches 1.5"
    if not found.has("motion 4x", "motion 3x"):
        return missing(recipe)
    ratios = {name: found.of(name, ratio("weight")) for name in ("motion 4x", "motion 3x")}
    reached = [value >= 1.5 for values in ratios.values() for value in values]
    verdict = decided(found, all_or_none(reached), *ratios)
    why = "; ".join(f"{name} ends at {told(values, '.3f')}" for name, values in ratios.items())
    if found.has("high leads loop"):
        why += f"; AdamW with rates 4 to 1 at {told(found.of('high leads loop', ratio('weight')))}"
    return Verdict(recipe, verdict, f"{why}.")


def _best_motion_step(found: Outcomes) -> Verdict:
    recipe = "Motion: the best checkpoint is at 1,800 to 2,000 of 2,200"
    if not found.has("motion 4x"):
        return missing(recipe)
    steps = (1000, 1800, 2200)
    errors = {step: found.of("motion 4x", effect("path_error_px", step)) for step in steps}
    best = {role: found.of("motion 4x", best_step(role)) for role in (HIGH, LOW)}
    inside = [1800 <= step <= 2000 for values in best.values() for step in values]
    verdict = decided(found, all_or_none(inside), "motion 4x")
    parts = ", ".join(f"{step:,}: {told(values, '.1f')}" for step, values in errors.items())
    return Verdict(
        recipe,
        verdict,
        f"Path error in px at {parts}; the held-out loss is lowest at step {_steps(best[HIGH])} (high) and "
        f"{_steps(best[LOW])} (low), looked at every 200 steps.",
    )


def _steps(values: Sequence[float]) -> str:
    return " and ".join(f"{value:,.0f}" for value in values)
