"""The two presets of motion: their ratios, where those come from, and what they teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .recipe_claims import (
    ERROR,
    HIGH,
    LOW,
    NOT,
    UNTOLD,
    Verdict,
    all_or_none,
    decided,
    missing,
)
from .recipe_outcomes import Outcomes, best_step, effect, ratio, told

PRESETS = ("motion 4x", "motion 3x")
FOUR, EXCHANGED, GENTLE = "motion 4x", "motion 4x, bounds exchanged", "motion 4x, rates times 5"


def of_motion(found: Outcomes, on_noise: Mapping[str, float]) -> list[Verdict]:
    """All of them; `on_noise`: each preset's rate ratio when gradients are noise."""
    return [
        *(_rate_ratio(found, name) for name in PRESETS),
        _from_the_bounds(found, on_noise),
        *(_weight_ratio(found, name) for name in PRESETS),
        _teaches(found),
        _best_motion_step(found),
        _high_weight(found),
    ]


def _rate_ratio(found: Outcomes, name: str) -> Verdict:
    recipe = f"{name.capitalize()}: the rate ratio reaches 3 to 5"
    if not found.has(name):
        return missing(recipe)
    ratios = found.of(name, ratio("rate"))
    verdict = decided(found, all_or_none([3 <= value <= 5 for value in ratios]), name)
    return Verdict(recipe, verdict, f"It ends at {told(ratios)}.")


def _from_the_bounds(found: Outcomes, on_noise: Mapping[str, float]) -> Verdict:
    recipe = "That ratio shows that motion needs the high-noise expert"
    noise = ", ".join(f"{name} {value:.2f}" for name, value in on_noise.items())
    why = f"Gradients that are noise alone, with the presets' own rates and steps, end at {noise}"
    verdict = NOT if min(on_noise.values()) >= 3 else UNTOLD
    why += ": the bounds make it" if verdict == NOT else ""
    if found.has(FOUR):
        why += f". On clips motion 4x ends at {told(found.of(FOUR, ratio('rate')))}"
    if found.has(EXCHANGED):
        ratios = found.of(EXCHANGED, ratio("rate"))
        why += (
            f", and with the experts' bounds exchanged at {told(ratios)}; path error in px "
            f"{told(found.of(FOUR, ERROR), '.1f')}, and exchanged {told(found.of(EXCHANGED, ERROR), '.1f')}"
        )
        verdict = NOT if max(ratios) < 1 else UNTOLD
    return Verdict(recipe, verdict, f"{why}.")


def _weight_ratio(found: Outcomes, name: str) -> Verdict:
    recipe = f"{name.capitalize()}: the weight ratio reaches 1.5"
    if not found.has(name):
        return missing(recipe)
    ratios = found.of(name, ratio("weight"))
    verdict = decided(found, all_or_none([value >= 1.5 for value in ratios]), name)
    why = f"It ends at {told(ratios, '.4f')}"
    if found.has("high leads loop"):
        why += f"; AdamW with rates 4 to 1 at {told(found.of('high leads loop', ratio('weight')))}"
    return Verdict(recipe, verdict, f"{why}.")


def _teaches(found: Outcomes) -> Verdict:
    recipe = "The presets of motion teach a motion"
    if not found.has(*PRESETS) or not found.without:
        return missing(recipe)
    start = found.without["effect"]["loop"]["path_error_px"]
    errors = {name: found.of(name, ERROR) for name in PRESETS}
    taught = [value <= start / 2 for values in errors.values() for value in values]
    verdict = decided(found, all_or_none(taught), *PRESETS)
    shown = {name: found.of(name, effect("kind")) for name in (*PRESETS, GENTLE)}
    parts = [
        f"{name} {told(found.of(name, ERROR), '.1f')}, kind {told(kinds)}"
        for name, kinds in shown.items()
        if kinds
    ]
    why = f"Path error in px: {'; '.join(parts)}; without the LoRA {start:.1f}, of which half is asked for"
    if found.has("high leads loop"):
        why += f"; AdamW with rates 4 to 1 {told(found.of('high leads loop', ERROR), '.1f')}"
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


def _high_weight(found: Outcomes) -> Verdict:
    recipe = "Motion: a mean high-noise weight of 0.008 to 0.010"
    if not found.has(FOUR):
        return missing(recipe)
    weights = [outcome["weight"][HIGH] for outcome in found.by_name[FOUR]]
    return Verdict(
        recipe,
        UNTOLD,
        f"It is {told(weights, '.3f')} here; what a factor starts with goes with one over the root of the network's "
        "width, which is 40 times smaller here than at 14B.",
    )
