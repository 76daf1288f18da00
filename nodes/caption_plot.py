"""The picture of a dataset's captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..training.caption_findings import GOOD_WORDS, LONGEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..training.caption_report import CaptionReport

WORDS, TRIGGER, TOKENS = "#2e86ab", "#d1495b", "#777777"


def caption_plot(
    report: CaptionReport,
    *,
    tokens: Sequence[int] | None = None,
    size_px: tuple[int, int] = (900, 480),
) -> np.ndarray:
    """(height, width, 3) uint8: a bar of words for each caption in the dataset's order, a dot at the word
    where the trigger begins, the good band in grey, and a line for `tokens`, one count a caption.
    """
    # Imported late: it takes a third of a second, which would count as start-up time of the host.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    low, high = GOOD_WORDS
    axes.axhspan(low, high, color="#dddddd", zorder=0, label=f"good: about {low}-{high} words")
    if max(report.words, default=0) > LONGEST:
        axes.axhline(LONGEST, color="black", linestyle="--", linewidth=1, label=f"{LONGEST} words")
    _captions(axes, report)
    if tokens is not None:
        at = range(1, len(tokens) + 1)
        axes.plot(at, tokens, "-", color=TOKENS, linewidth=1.5, label="tokens")
    axes.set(xlabel="caption, in the dataset's order", ylabel="words")
    axes.set(xlim=(0.4, max(1, len(report.words)) + 0.6), ylim=(0, None))
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.25, axis="y")
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    # The object interface, not pyplot: nothing global, safe in any thread.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _captions(axes: Axes, report: CaptionReport) -> None:
    at = range(1, len(report.words) + 1)
    axes.bar(at, report.words, width=0.8, color=WORDS, label="words")
    placed = [(x, place) for x, place in zip(at, report.places, strict=True) if place is not None]
    if placed:
        # A dollar sign would begin a formula.
        label = f"where {report.trigger.replace('$', '')} begins"
        axes.plot(*zip(*placed, strict=True), "o", color=TRIGGER, markersize=4, label=label)
