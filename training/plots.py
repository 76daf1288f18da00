"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..wan.families import Role
from .monitors.curves import Measured, Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"high_noise": "#d1495b", "low_noise": "#2e86ab", "single": "#2e86ab"}


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
        label = f"{role.replace('_', ' ')}: {losses[0]:.3f} to {_running_mean(losses)[-1]:.3f}"
        axes.plot(at, _running_mean(losses), color=COLOURS[role], linewidth=2, label=label)
    axes.set(
        title=title,
        xlabel="optimizer step, both experts",
        ylabel="flow-matching loss",
        xlim=(0, steps),
    )
    axes.grid(alpha=0.25)
    if any(curves.values()):
        axes.legend(frameon=False)
    return _rendered(figure)


def monitor_plot(
    measured: Measured, *, title: str, steps: int, size_px: tuple[int, int] = (1200, 800)
) -> Image.Image:
    """What the monitors measure, in four parts: each expert's mean weight, how far the high-noise one leads, the
    learning rates, and the held-out losses (those on clips that are trained on are dashed)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100, layout="constrained")
    weights, ratios, rates, held_out = figure.subplots(2, 2, sharex=True).flatten()
    _lines(weights, measured.weights, "mean |LoRA weight|")
    _lines(rates, measured.rates, "mean learning rate")
    _lines(held_out, measured.held_out, "held-out loss", marker="o")
    for role, points in measured.trained.items():
        held_out.plot(*zip(*points, strict=True), "--", color=COLOURS[role], alpha=0.6)
    for points, colour, label in (
        (measured.weight_ratio, "#6a4c93", "weight"),
        (measured.rate_ratio, "#b08900", "rate"),
    ):
        if points:
            ratios.plot(*zip(*points, strict=True), color=colour, linewidth=2, label=label)
    ratios.set(title="high noise / low noise")
    for axes in (weights, ratios, rates, held_out):
        axes.set(xlim=(0, steps))
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.suptitle(title)
    figure.supxlabel("optimizer step, both experts", fontsize="medium")
    return _rendered(figure)


def _lines(axes: Axes, curves: Mapping[Role, Points], title: str, marker: str = "") -> None:
    for role, points in curves.items():
        axes.plot(
            *zip(*points, strict=True),
            marker=marker,
            color=COLOURS[role],
            linewidth=2,
            label=role.replace("_", " "),
        )
    axes.set(title=title)


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean of the last tenth of the run so far, at least 5 values where there are as many."""
    window = max(5, len(values) // 10)
    means = []
    for end in range(1, len(values) + 1):
        recent = values[max(0, end - window) : end]
        means.append(sum(recent) / len(recent))
    return means


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
