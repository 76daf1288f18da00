"""The picture of a dataset's captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..training.captions.findings import JUDGED_WORDS, LONGEST, WORDS_TEXT
from .trigger_picture import glyphs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..training.captions.report import CaptionReport

WORDS, TRIGGER, TOKENS, LIMITS = "#2e86ab", "#d1495b", "#444444", "#222222"
MANY = 100
NAMED, NAME_LETTERS = 24, 18
"""Captions up to which each bar has its clip's name below it, and letters of a name."""
_SUFFIX = re.compile(r"\.\w+(?=(@\d+)?$)")


def caption_plot(
    report: CaptionReport,
    *,
    tokens: Sequence[int] | None = None,
    size_px: tuple[int, int] = (900, 480),
) -> np.ndarray:
    """(height, width, 3) uint8: a bar of words for each caption, a dot at the word where the trigger begins,
    what is judged good in grey, and a line for `tokens`, one count a caption, on an axis of its own. Up to 24
    captions with the names of their clips. In the dataset's order; above 100 captions the shortest first, since
    single ones could not be told apart.
    """
    # Imported late: it takes a third of a second, which would count as start-up time of the host.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.axhspan(*JUDGED_WORDS, color="#dddddd", zorder=0, label=f"good words: {WORDS_TEXT}")
    for limit in JUDGED_WORDS:  # the bars hide the band
        axes.axhline(limit, color=LIMITS, linestyle=":", linewidth=1, zorder=3)
    if max(report.words, default=0) > LONGEST:
        axes.axhline(LONGEST, color="black", linestyle="--", linewidth=1, label=f"{LONGEST} words")
    order = _order(report)
    _captions(axes, report, order)
    if tokens is not None:
        _tokens(axes, [tokens[index] for index in order])
    many = len(order) > MANY
    axes.set(xlabel=f"captions, {'the shortest first' if many else 'in the dataset order'}")
    axes.set(ylabel="words", xlim=(0.4, max(1, len(order)) + 0.6), ylim=(0, None))
    axes.locator_params(axis="both", integer=True)
    if len(order) <= NAMED:
        _names(axes, [report.names[index] for index in order])
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


def _tokens(axes: Axes, counts: Sequence[int]) -> None:
    # On the axis of words one long caption would press the bars flat.
    right = axes.twinx()
    form = "-" if len(counts) > MANY else ".-"
    right.plot(
        range(1, len(counts) + 1), counts, form, color=TOKENS, linewidth=1, label="tokens (right)"
    )
    right.set(ylabel="tokens", ylim=(0, max(counts, default=1) * 1.08))
    right.locator_params(axis="y", integer=True)


def _names(axes: Axes, names: Sequence[str]) -> None:
    labels = [_label(name, number) for number, name in enumerate(_without_suffix(names), 1)]
    # A dollar sign would begin a formula.
    axes.set_xticks(range(1, len(names) + 1), labels, parse_math=False)
    axes.tick_params(axis="x", labelsize=8)
    for label in axes.get_xticklabels():
        label.set(rotation=35, horizontalalignment="right", rotation_mode="anchor")


def _without_suffix(names: Sequence[str]) -> list[str]:
    short = [_SUFFIX.sub("", name) for name in names]
    often = Counter(short)
    return [name if often[s] > 1 else s for s, name in zip(short, names, strict=True)]


def _label(name: str, number: int) -> str:
    """The middle of a long name is left out; the caption's number stands for letters that the font lacks."""
    if glyphs(name) != name:
        return str(number)
    half = NAME_LETTERS // 2 - 1
    return name if len(name) <= NAME_LETTERS else f"{name[:half]}..{name[-half:]}"
