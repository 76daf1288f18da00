"""The picture of a dataset's captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..training.captions.findings import GOOD_WORDS, LONGEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..training.captions.report import CaptionReport

WORDS, TRIGGER, TOKENS, LIMITS = "#2e86ab", "#d1495b", "#444444", "#222222"
MANY = 100


def caption_plot(
    report: CaptionReport,
    *,
    tokens: Sequence[int] | None = None,
    size_px: tuple[int, int] = (900, 480),
) -> np.ndarray:
    """(height, width, 3) uint8: a bar of words for each caption, a dot at the word where the trigger begins,
    the good band in grey, and a line for `tokens`, one count a caption. In the dataset's order; above 100
    captions the shortest first, since single ones could not be told apart.
    """
    # Imported late: it takes a third of a second, which would count as start-up time of the host.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    low, high = GOOD_WORDS
    axes.axhspan(low, high, color="#dddddd", zorder=0, label=f"good: about {low}-{high} words")
    for limit in (low, high):  # the bars hide the band
        axes.axhline(limit, color=LIMITS, linestyle=":", linewidth=1, zorder=3)
    if max(report.words, default=0) > LONGEST:
        axes.axhline(LONGEST, color="black", linestyle="--", linewidth=1, label=f"{LONGEST} words")
    order = _order(report)
    _captions(axes, report, order)
    if tokens is not None:
        counts = [tokens[index] for index in order]
        axes.plot(range(1, len(counts) + 1), counts, "-", color=TOKENS, linewidth=1, label="tokens")
    many = len(order) > MANY
    axes.set(xlabel=f"captions, {'the shortest first' if many else 'in the dataset order'}")
    axes.set(ylabel="words", xlim=(0.4, max(1, len(order)) + 0.6), ylim=(0, None))
    axes.locator_params(axis="both", integer=True)
    axes.grid(alpha=0.25, axis="y")
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    # The object interface, not pyplot: nothing global, safe in any thread.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _order(report: CaptionReport) -> list[int]:
    order = list(range(len(report.words)))
    return sorted(order, key=lambda index: report.words[index]) if len(order) > MANY else order


def _captions(axes: Axes, report: CaptionReport, order: Sequence[int]) -> None:
    many = len(order) > MANY
    at = range(1, len(order) + 1)
    heights = [report.words[index] for index in order]
    if many:  # one area: ten thousand bars would take seconds
        axes.fill_between(at, heights, step="mid", color=WORDS, linewidth=0, label="words")
    else:
        axes.bar(at, heights, width=0.8, color=WORDS, label="words")
    placed = [(x, report.places[i]) for x, i in zip(at, order, strict=True) if report.places[i]]
    if placed:
        # A dollar sign would begin a formula.
        label = f"where {report.trigger.replace('$', '')} begins"
        dots = axes.plot(*zip(*placed, strict=True), "o", color=TRIGGER, label=label)[0]
        dots.set(markersize=3 if many else 6, markeredgecolor="white", markeredgewidth=0.5)
