"""Recipes that name a length: what a run shows by epochs or by steps per image, and where it should end."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean

from .recipe_claims import (
    HIGH,
    HOLDS,
    LOW,
    NOT,
    UNTOLD,
    Verdict,
    all_or_none,
    decided,
    missing,
)
from .recipe_outcomes import Outcomes, best_step, compare, effect, loss_drift, progress, told
from .recipe_runs import EPOCHS, GENERAL_LOOKS, PER_IMAGE, PICTURES, STEPS_AN_EPOCH

EFFECT, GENERAL = "video effect", "general video"
STAGES = ((5, "first signs", 0.1), (10, "visible", 0.3), (15, "strong", 0.6))
"""Epoch, its name, and the share of the way to the best checkpoint that we call so."""
SETTLED = 0.25
"""A loss that moves by a smaller share than this between the last fifths of a run has settled, as the monitors say."""


def of_effect(found: Outcomes) -> list[Verdict]:
    """The video effect by epochs."""
    if not found.has(EFFECT) or not found.without:
        return [
            missing(f"Video effect: {what}")
            for what in (
                "first signs at 5 epochs, visible at 10, strong at 15",
                "stop at 20",
                "loss settles",
            )
        ]
    return [_stages(found), _stop(found), _settles(found)]


def errors_by_epoch(found: Outcomes) -> dict[int, list[float]]:
    """Path error in px of every seed, by epoch."""
    return {
        epoch: found.of(EFFECT, effect("path_error_px", epoch * STEPS_AN_EPOCH)) for epoch in EPOCHS
    }


def _stages(found: Outcomes) -> Verdict:
    start = found.without["effect"]["loop"]["path_error_px"]
    ways = {
        epoch: [progress(o, epoch * STEPS_AN_EPOCH, start) for o in found.by_name[EFFECT]]
        for epoch in EPOCHS
    }
    reached = [min(ways[epoch]) >= least for epoch, _, least in STAGES]
    told_ways = ", ".join(
        f"{epoch}: {told(ways[epoch], '.0%')} and {told(errors, '.1f')}"
        for epoch, errors in errors_by_epoch(found).items()
    )
    bars = ", ".join(f"{least:.0%} for {name}" for _, name, least in STAGES)
    return Verdict(
        "Video effect: first signs at 5 epochs, visible at 10, strong at 15",
        decided(found, all_or_none(reached), EFFECT),
        f"Share of the way to the best of the judged checkpoints, and path error in px, by epochs: {told_ways}; "
        f"without the LoRA {start:.1f}. Asked for: {bars} (our words in numbers).",
    )


def _stop(found: Outcomes) -> Verdict:
    errors = errors_by_epoch(found)
    how = compare(errors[50], errors[20])
    best = {
        role: [step / STEPS_AN_EPOCH for step in found.of(EFFECT, best_step(role))]
        for role in (HIGH, LOW)
    }
    early = [epoch <= 25 for values in best.values() for epoch in values]
    verdict = NOT if how == "below" else HOLDS if how == "above" or all(early) else UNTOLD
    verdict = decided(found, verdict, EFFECT)
    return Verdict(
        "Video effect: stop at 20 epochs, never above 50",
        verdict,
        f"Path error in px: {told(errors[20], '.1f')} at 20 epochs, {told(errors[50], '.1f')} at 50; the held-out loss "
        f"is lowest at epoch {told(best[HIGH], '.0f')} (high) and {told(best[LOW], '.0f')} (low).",
    )


def _settles(found: Outcomes) -> Verdict:
    drifts = {role: found.of(EFFECT, loss_drift(role)) for role in (HIGH, LOW)}
    ends = {role: [o["loss"][role][-1] for o in found.by_name[EFFECT]] for role in (HIGH, LOW)}
    settled = all(drift < SETTLED for values in drifts.values() for drift in values)
    return Verdict(
        "Video effect: the loss settles (around 0.015 to 0.025)",
        decided(found, HOLDS if settled else NOT, EFFECT),
        f"From the fourth fifth to the last it moves by {told(drifts[HIGH], '.0%')} (high) and "
        f"{told(drifts[LOW], '.0%')} (low). Its level, {told(ends[HIGH])} and {told(ends[LOW])}, says nothing: the "
        "miniature's latents are three times as large as those of 14B.",
    )


def of_general(found: Outcomes) -> Verdict:
    """General video by its thirds."""
    recipe = "General video: better at 2,000 steps than at 1,000, and at 3,000 than at 2,000"
    if not found.has(GENERAL):
        return missing(recipe)
    last = max(map(int, found.by_name[GENERAL][0]["effect"]))
    errors = [found.of(GENERAL, effect("path_error_px", step)) for step in (*GENERAL_LOOKS, last)]
    falls = [
        later < earlier
        for before, after in pairwise(errors)
        for earlier, later in zip(before, after, strict=True)
    ]
    parts = ", ".join(
        f"{step}: {told(values, '.1f')}"
        for step, values in zip((*GENERAL_LOOKS, last), errors, strict=True)
    )
    return Verdict(
        recipe,
        decided(found, all_or_none(falls), GENERAL),
        f"Path error in px by step, three tenths of the recipe's: {parts}.",
    )


IN_STYLE = 0.8
"""Share of new pictures in the style that we call enough."""
STYLE, STEADY, STRONG = "image style", "image style, steady rate", "image style, 4e-4"


def looks_by_steps(found: Outcomes) -> dict[int, list[float]]:
    """Share of pictures in the style, of every seed, by steps per image at a rate that does not fall."""
    return {count: found.of(STEADY, effect("look", PICTURES * count)) for count in PER_IMAGE}


def of_images(found: Outcomes) -> list[Verdict]:
    """Image style by steps per image, and its schedule and rate."""
    return [_per_image(found), _restarts(found), _stronger(found)]


def _per_image(found: Outcomes) -> Verdict:
    recipe = "Image style: 40 steps per image, 30 to 60"
    if not found.has(STEADY, STYLE) or not found.without:
        return missing(recipe)
    looks = looks_by_steps(found)
    best = [step / PICTURES for step in found.of(STYLE, best_step("single"))]
    kept = {count: found.of(STEADY, effect("known", PICTURES * count)) for count in PER_IMAGE}
    # Its length is wrong if it is too short, or if less shows the style and the held-out loss was lowest before.
    enough, too_long = fmean(looks[40]) >= IN_STYLE, (fmean(looks[20]) >= IN_STYLE, max(best) < 30)
    verdict = NOT if not enough or all(too_long) else UNTOLD if any(too_long) else HOLDS
    verdict = decided(found, verdict, STEADY, STYLE)
    parts = ", ".join(f"{count}: {told(values)}" for count, values in looks.items())
    usual = found.without["effect"]["pictures"]["known"]
    taken = ": the style takes them over" if fmean(kept[40]) < usual / 2 else ""
    lost = ", ".join(f"{count}: {told(values)}" for count, values in kept.items())
    return Verdict(
        recipe,
        verdict,
        f"Share of new pictures in the style by steps per image: {parts}. The held-out loss is lowest at "
        f"{told(best, '.0f')} steps per image. Known looks, asked for without the trigger, are right in {lost} "
        f"({usual:.2f} without the LoRA){taken}.",
    )


def _restarts(found: Outcomes) -> Verdict:
    recipe = "Image style: cosine with restarts"
    if not found.has(STEADY, STYLE):
        return missing(recipe)
    step = PICTURES * 40
    ours, steady = (found.of(name, effect("pattern", step)) for name in (STYLE, STEADY))
    how = compare(ours, steady)
    kept, kept_steady = (found.of(name, effect("known", step)) for name in (STYLE, STEADY))
    return Verdict(
        recipe,
        {"above": HOLDS, "below": NOT}.get(how, UNTOLD),
        f"Pattern after {step} steps {told(ours, '.3f')} with it, {told(steady, '.3f')} at a steady rate; known looks "
        f"right {told(kept)} against {told(kept_steady)}.",
    )


def _stronger(found: Outcomes) -> Verdict:
    recipe = "Image style: 4e-4 if the style is weak"
    if not found.has(STRONG, STYLE):
        return missing(recipe)
    ours, usual = (found.of(name, effect("pattern")) for name in (STRONG, STYLE))
    how = compare(ours, usual)
    return Verdict(
        recipe,
        {"above": HOLDS, "below": NOT}.get(how, UNTOLD),
        f"Pattern {told(ours, '.3f')} at 4e-4, {told(usual, '.3f')} at 1e-4; colour right in "
        f"{told(found.of(STRONG, effect('colour')))} against {told(found.of(STYLE, effect('colour')))}.",
    )
