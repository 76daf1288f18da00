"""The picture of a plan: whose turn it is at each step, where checkpoints are, and how often a clip is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..training.expert_turns import role_at, spans
from ..training.plans.budget import expert_budgets, looks, repeats_per_clip
from ..training.plans.limits import GOOD_EPOCHS, MOST_EPOCHS, PER_IMAGE
from ..training.plans.presets import EFFECT, IMAGE_STYLE
from ..training.plans.trained import trained_counts
from ..training.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..training.data.dataset import Counts, Dataset
    from ..training.plans.plan import TrainingPlan
    from ..wan.families import Role

NAMES = {"high_noise": "high noise", "low_noise": "low noise", "single": "the model"}
MOST_TURNS = 1500
"""Turns that are drawn one by one: beyond, they are thinner than a pixel."""


def plan_plot(
    plan: TrainingPlan, material: Counts | Dataset, *, size_px: tuple[int, int] = (900, 420)
) -> np.ndarray:
    """(height, width, 3) uint8. Above, the turns of the experts over the steps, with every checkpoint; below, how often
    each clip that is trained on is shown to each expert, and the range that is good where one is known.
    """
    # Imported late: it takes a third of a second, which would count as start-up time of the host.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100, layout="constrained")
    turns, shown = figure.subplots(2, 1, height_ratios=[3, 2])
    _draw_turns(turns, plan)
    _draw_exposures(shown, plan, trained_counts(plan, material))
    # The object interface, not pyplot: nothing global, safe in any thread.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def turns_of(plan: TrainingPlan, role: Role) -> list[tuple[int, int]]:
    """(first step, steps) of each stretch in which an expert trains; neighbouring turns are one stretch. Turns too many
    to be told apart are one too."""
    if len(plan.roles()) == 1:
        return [(0, plan.steps)]
    stretches: list[tuple[int, int]] = []
    for span in spans(plan):
        many = (span.end - span.first) / span.turn > MOST_TURNS
        if many and span.role is None:
            stretches.append((span.first, span.end - span.first))
            continue
        turn = span.end - span.first if span.role else span.turn
        for begin in range(span.first, span.end, turn):
            if role_at(plan, begin) == role:
                stretches.append((begin, min(turn, span.end - begin)))
    return _joined(stretches)


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, steps in stretches:
        if joined and sum(joined[-1]) == begin:
            begin, steps = joined[-1][0], joined.pop()[1] + steps
        joined.append((begin, steps))
    return joined


def _draw_turns(axes: Axes, plan: TrainingPlan) -> None:
    roles = plan.roles()
    for lane, role in enumerate(reversed(roles)):
        axes.broken_barh(turns_of(plan, role), (lane + 0.1, 0.8), color=COLOURS[role])
    saved = [*range(plan.save_every, plan.steps, plan.save_every), plan.steps]
    top = len(roles) + 0.25
    axes.plot(
        saved,
        [top] * len(saved),
        "v",
        color="#444444",
        markersize=4,
        label="checkpoint",
        clip_on=False,
    )
    marked = sorted(set(saved) & set(looks(plan)))
    axes.plot(
        marked,
        [top] * len(marked),
        "v",
        color="#e0a100",
        markersize=8,
        label="look here",
        clip_on=False,
    )
    axes.set_yticks([n + 0.5 for n in range(len(roles))], [NAMES[r] for r in reversed(roles)])
    axes.set(xlim=(0, plan.steps), ylim=(0, len(roles) + 0.5), xlabel="step")
    axes.set_title(f"{plan.preset}: {plan.steps} steps", loc="left", fontsize=10)
    axes.legend(loc="lower right", ncols=2, frameon=False, bbox_to_anchor=(1, 1), fontsize=8)


def _draw_exposures(axes: Axes, plan: TrainingPlan, counts: Counts) -> None:
    left = 0.0
    for budget in expert_budgets(plan, counts):
        axes.barh(0, budget.exposures, left=left, color=COLOURS[budget.role])
        if budget.exposures:
            middle = left + budget.exposures / 2
            axes.text(middle, 0, f"{budget.exposures:.1f}", ha="center", va="center", color="white")
        left += budget.exposures
    band = _good_exposures(plan, counts)
    if band is not None:
        low, high, most = band
        axes.axvspan(
            low, high, color="#cccccc", alpha=0.6, zorder=0, label=f"good: {low:g}-{high:g}"
        )
        if 0 < most < 2 * left:
            axes.axvline(
                most, color="black", linestyle="--", linewidth=1, label=f"refused above {most:g}"
            )
        axes.legend(loc="lower right", ncols=2, frameon=False, bbox_to_anchor=(1, 1), fontsize=8)
    axes.set(yticks=[], ylim=(-0.6, 0.6), xlim=(0, max(left * 1.05, (band or (0, 1, 0))[1] * 1.2)))
    axes.set_xlabel("times that each clip is shown, over both experts")


def _good_exposures(plan: TrainingPlan, counts: Counts) -> tuple[float, float, float] | None:
    """From, to, and the limit beyond which a run is refused (0: none); None where nobody has found a range."""
    if plan.preset == EFFECT:
        # What is refused is counted in epochs, and an epoch shows a clip as often as it is repeated.
        most = 0.0 if plan.allow_long else MOST_EPOCHS * repeats_per_clip(counts)
        return (*GOOD_EPOCHS, most)
    if plan.preset == IMAGE_STYLE:
        samples = plan.batch * plan.accumulate
        low, high = PER_IMAGE
        return (low * samples, high * samples, 0.0)
    return None
