"""The picture of the recipes: every seed a dot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .recipe_outcomes import Measure, Outcomes, effect
from .recipe_runs import LED
from .recipe_stages import EFFECT, STEADY, errors_by_epoch, looks_by_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HIGH_COLOUR, LOW_COLOUR, GREY = "#d1495b", "#2e86ab", "#8d99ae"
COMPARED = {
    "equal loop": "the same\nrates",
    "8-bit kahan loop": "8-bit\nKahan bf16",
    "bf16 alone loop": "bf16\nalone",
    "sequential loop": "one after\nthe other",
    "half and half loop": "half\nand half",
}


def draw(found: Outcomes, on_noise: Mapping[str, float], target: Path) -> None:
    """Six panels; what was not run is left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.6, 7.0), dpi=100, layout="constrained")
    panels: list[Axes] = list(figure.subplots(2, 3).flat)
    error, pattern = effect("path_error_px"), effect("pattern")
    bare = found.without.get("effect", {})
    no_error = bare.get("loop", {}).get("path_error_px")
    _led(panels[0], found, "loop", error, "motion: path error, px (less is better)", no_error)
    no_pattern = bare.get("striped", {}).get("pattern")
    _led(panels[1], found, "striped", pattern, "look: pattern (more is better)", no_pattern)
    _rates(panels[2], found, on_noise)
    epochs = errors_by_epoch(found) if found.has(EFFECT) else {}
    _by_length(panels[3], epochs, "epochs", "video effect: path error, px", no_error)
    per_image = looks_by_steps(found) if found.has(STEADY) else {}
    _by_length(panels[4], per_image, "steps per image", "image style: share of pictures in it", 0.0)
    rows = {label: found.of(name, error) for name, label in COMPARED.items()}
    _dots(panels[5], rows, "one thing changed: path error, px", no_error)
    for panel in panels:
        panel.grid(visible=True, alpha=0.25)
        panel.set_ylim(bottom=0)
    figure.savefig(target)


def _led(
    panel: Axes, found: Outcomes, lesson: str, measure: Measure, title: str, bare: float | None
) -> None:
    rows = {name.replace(" ", "\n"): found.of(f"{name} {lesson}", measure) for name in LED}
    _dots(panel, rows, title, bare)


def _dots(panel: Axes, rows: Mapping[str, Sequence[float]], title: str, bare: float | None) -> None:
    for place, values in enumerate(rows.values()):
        panel.plot([place] * len(values), values, "o", color=LOW_COLOUR, markersize=8, alpha=0.8)
    panel.set_xticks(range(len(rows)), list(rows), fontsize=8)
    panel.set_xlim(-0.5, len(rows) - 0.5)
    panel.set_title(title, fontsize=10)
    _without(panel, bare)


def _without(panel: Axes, bare: float | None) -> None:
    if bare is not None:
        panel.axhline(bare, color=GREY, linestyle="--", linewidth=1, label="without the LoRA")
        panel.legend(fontsize=7)


def _rates(panel: Axes, found: Outcomes, on_noise: Mapping[str, float]) -> None:
    colours = {
        "motion 4x": HIGH_COLOUR,
        "motion 3x": LOW_COLOUR,
        "motion 4x, bounds exchanged": GREY,
    }
    for name, colour in colours.items():
        for seed, outcome in enumerate(found.by_name.get(name, ())):
            ratios = outcome["rate_ratios"]
            total = sum(outcome["steps"].values())
            steps = [total * place / len(ratios) for place in range(len(ratios))]
            points = [(s, r) for s, r in zip(steps, ratios, strict=True) if r is not None]
            label = name if seed == 0 else None
            panel.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.3)
    for name, value in on_noise.items():
        panel.axhline(value, color=colours[name], linestyle=":", label=f"{name} on noise")
    panel.set_title("automagic: rate ratio, high over low", fontsize=10)
    panel.set_xlabel("step")
    panel.legend(fontsize=7)


def _by_length(
    panel: Axes,
    values: Mapping[int, Sequence[float]],
    axis: str,
    title: str,
    bare: float | None,
) -> None:
    for seed in range(len(next(iter(values.values()), ()))):
        each = [of_seeds[seed] for of_seeds in values.values()]
        panel.plot(list(values), each, "o-", color=LOW_COLOUR, alpha=0.8)
    panel.set_xlabel(axis)
    panel.set_title(title, fontsize=10)
    _without(panel, bare)
