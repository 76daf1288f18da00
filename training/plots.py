"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..wan.families import Role
from .monitors.curves import Measured, Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

    from .sigma_histogram import SigmaHistogram

COLOURS = {"high_noise": "#d1495b", "low_noise": "#2e86ab", "single": "#2e86ab"}

SILENT = 4
"""A line is broken where its expert was not trained for a quarter of the run."""


def loss_plot(
    curves: Mapping[Role, Sequence[tuple[int, float]]],
    *,
    title: str,
    steps: int,
    size_px: tuple[int, int] = (900, 480),
) -> Image.Image:
    """Every step's loss as a dot and its running mean as a line, one colour an expert."""
    # Imported late: it takes a third of a second, which would count as start-up time of the host.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for role, points in curves.items():
        if not points:
            continue
        at, losses = zip(*points, strict=True)
        axes.plot(at, losses, ".", color=COLOURS[role], alpha=0.25, markersize=4)
        means = _running_mean(losses)
        # One step's loss says little: it begins with the mean of five, as it ends with one.
        label = f"{role.replace('_', ' ')}: {means[:5][-1]:.3f} to {means[-1]:.3f}"
        axes.plot(*_broken(at, means, steps), color=COLOURS[role], linewidth=2, label=label)
    axes.set(
        title=title,
        xlabel=_step_label(curves),
        ylabel="flow-matching loss",
        xlim=(0, steps),
    )
    axes.grid(alpha=0.25)
    if any(curves.values()):
        axes.legend(frameon=False)
    return _rendered(figure)


def monitor_plot(
    measured: Measured,
    *,
    title: str,
    steps: int,
    histograms: Mapping[Role, SigmaHistogram] | None = None,
    size_px: tuple[int, int] = (1500, 800),
) -> Image.Image:
    """What the monitors measure, in six parts: each expert's mean weight (dotted, at the right, how many directions its
    LoRA uses), how far the high-noise one leads, the learning rates, the held-out losses (those on clips that are
    trained on are dashed), which noise levels were drawn (in black, how many the plan draws on average), and the
    gradient norms."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The labels at the ends of two axes side by side would touch.
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100, layout=layout)
    grid = figure.add_gridspec(2, 3)
    weights, ratios, rates, held_out, norms = (
        figure.add_subplot(grid[place]) for place in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2))
    )
    _lines(weights, measured.weights, "mean |LoRA weight|")
    _lines(rates, measured.rates, "mean learning rate")
    _lines(held_out, measured.held_out, "held-out loss", marker="o")
    for number, (role, points) in enumerate(measured.trained.items()):
        label = "clips trained on" if number == 0 else None
        held_out.plot(*zip(*points, strict=True), "--", color=COLOURS[role], alpha=0.6, label=label)
    _ratios(ratios, measured)
    _cloud(norms, measured.grad_norms, "gradient norm")
    for axes in (weights, ratios, rates, held_out, norms):
        _finish(axes, steps, _step_label(measured.rates))
    _ranks(weights, measured.ranks)
    _histograms(figure, grid[1, 1], histograms or {})
    figure.suptitle(title)
    return _rendered(figure)


def _ranks(axes: Axes, ranks: Mapping[Role, Points]) -> None:
    if not ranks:
        return
    right = axes.twinx()
    for role, points in ranks.items():
        right.plot(*zip(*points, strict=True), ":o", color=COLOURS[role], markersize=3, alpha=0.8)
    right.margins(y=0.1)
    right.set_ylabel("effective rank (dotted)", fontsize="small")


def _step_label(curves: Mapping[Role, object]) -> str:
    return "optimizer step" if "single" in curves else "optimizer step, both experts"


def _finish(axes: Axes, steps: int, label: str) -> None:
    axes.set(xlim=(0, steps))
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(label, fontsize="small")
    axes.grid(alpha=0.25)
    if axes.lines:
        axes.margins(y=0.1)
        # Among thousands of dots the search for the best corner is slow, and none is free.
        cloud = any(line.get_linestyle() == "None" for line in axes.lines)
        axes.legend(frameon=False, loc="upper right" if cloud else "best")
    else:
        _nothing(axes)


def _nothing(axes: Axes) -> None:
    axes.set(yticks=[])
    axes.text(0.5, 0.5, "nothing measured", ha="center", color="#888888", transform=axes.transAxes)


def _ratios(axes: Axes, measured: Measured) -> None:
    for points, colour, label in (
        (measured.weight_ratio, "#6a4c93", "weight"),
        (measured.rate_ratio, "#b08900", "rate"),
    ):
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=2, label=label)
    axes.set(title="high noise / low noise")


def _lines(axes: Axes, curves: Mapping[Role, Points], title: str, marker: str = "") -> None:
    for role, points in curves.items():
        axes.plot(
            *zip(*points, strict=True),
            # A lone point is no line.
            marker=marker if len(points) > 1 else "o",
            color=COLOURS[role],
            linewidth=2,
            label=role.replace("_", " "),
        )
    axes.set(title=title)


def _cloud(axes: Axes, curves: Mapping[Role, Points], title: str) -> None:
    """Every value as a dot and the running mean as a line, on a scale where a spike does not flatten the rest."""
    for role, points in curves.items():
        at, values = zip(*points, strict=True)
        axes.plot(at, values, ".", color=COLOURS[role], alpha=0.2, markersize=3)
        axes.plot(
            at,
            _running_mean(values),
            color=COLOURS[role],
            linewidth=2,
            label=role.replace("_", " "),
        )
    axes.set(title=title)
    if any(value > 0 for points in curves.values() for _, value in points):
        axes.set_yscale("log")


def _histograms(
    figure: Figure, place: SubplotSpec, histograms: Mapping[Role, SigmaHistogram]
) -> None:
    """One beside the other, high noise first as everywhere, each over its own expert's range."""
    roles = sorted(histograms, key=lambda role: -histograms[role].edges[0])
    cells = place.subgridspec(1, max(1, len(roles)))
    if not roles:
        axes = figure.add_subplot(cells[0])
        axes.set(title="sigmas drawn", xticks=[])
        _nothing(axes)
    for number, role in enumerate(roles):
        axes, drawn = figure.add_subplot(cells[number]), histograms[role]
        axes.stairs(drawn.counts, drawn.edges, fill=True, color=COLOURS[role], alpha=0.6)
        axes.stairs(drawn.expected, drawn.edges, color="black", label="expected")
        name = "" if role == "single" else f", {role.replace('_', ' ')}"
        low, high = drawn.edges[0], drawn.edges[-1]
        axes.set_title(f"sigmas drawn{name}", fontsize="medium" if len(roles) > 1 else "large")
        axes.set(xlim=(low, high), xticks=[low, (low + high) / 2, high])
        axes.xaxis.set_major_formatter("{x:.4g}")
        axes.set_xlabel("sigma (1 is noise)", fontsize="small")
        axes.set_ylim(0, 1.25 * max(1, *drawn.counts, *drawn.expected))
        axes.legend(frameon=False, loc="upper right", fontsize="small")


def _broken(
    at: Sequence[int], values: Sequence[float], steps: int
) -> tuple[list[float], list[float]]:
    """The points with a gap wherever an expert was not trained for a quarter of the run: nothing is known there."""
    xs: list[float] = []
    ys: list[float] = []
    for before, x, y in zip((at[0], *at), at, values, strict=False):
        if x - before > max(1, steps / SILENT):
            xs.append(float("nan"))
            ys.append(float("nan"))
        xs.append(x)
        ys.append(y)
    return xs, ys


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean of the last tenth of the run so far, at least 5 values where there are as many."""
    window = max(5, len(values) // 10)
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(0, ends - window)
    return ((sums[ends] - sums[begins]) / (ends - begins)).tolist()


def _rendered(figure: Figure) -> Image.Image:
    # The object interface, not pyplot: nothing global, safe in any thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")


def save_picture(picture: Image.Image, path: Path) -> None:
    """As PNG, written beside and renamed."""
    beside = path.with_name(f".{path.name}")
    picture.save(beside, format="PNG")
    beside.replace(path)
