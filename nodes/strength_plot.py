"""The picture of a strength schedule over a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..training.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..wan.families import Role
    from ..wan.lora.strength_table import StrengthRun


def strength_plot(run: StrengthRun, *, size_px: tuple[int, int] = (900, 480)) -> np.ndarray:
    """(height, width, 3) uint8: strength by step, one colour an expert, and sigma in grey.

    An expert's line is full where it takes the steps and pale where the other one does.
    """
    # Imported late: it takes a third of a second, which would count as start-up time of the host.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    _sigmas(axes.twinx(), run)
    # Above the grey line; its own background would hide it.
    axes.set_zorder(1)
    axes.patch.set_visible(False)
    if run.boundary == 0:
        _line(axes, run, "single", run.high)
    else:
        _line(axes, run, "high_noise", run.high)
        _line(axes, run, "low_noise", run.low)
        _switch(axes, run)
    bottom, top = min(0.0, *run.high, *run.low), max(0.0, *run.high, *run.low)
    room = 0.05 * (top - bottom) or 0.05
    axes.set(xlabel="sampling step", ylabel="strength", xlim=(0.5, run.steps + 0.5))
    axes.set(ylim=(bottom - room * (bottom < 0), top + room))
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    # The object interface, not pyplot: nothing global, safe in any thread.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _line(axes: Axes, run: StrengthRun, role: Role, strengths: tuple[float, ...]) -> None:
    steps = np.arange(1, run.steps + 1)
    own = np.array([run.role(step) == role for step in range(run.steps)])
    colour, name = COLOURS[role], role.removesuffix("_noise")
    axes.plot(steps, strengths, color=colour, alpha=0.25, linewidth=1)
    label = f"{name}: {own.sum()} steps"
    axes.plot(
        steps[own],
        np.asarray(strengths)[own],
        "o-",
        color=colour,
        linewidth=2,
        markersize=5,
        label=label,
    )


def _switch(axes: Axes, run: StrengthRun) -> None:
    if 0 < run.high_steps < run.steps:
        label = f"switch at sigma {run.sigmas[run.high_steps]:.3f}, boundary {run.boundary:g}"
        axes.axvline(run.high_steps + 0.5, color="black", linestyle="--", linewidth=1, label=label)


def _sigmas(axes: Axes, run: StrengthRun) -> None:
    steps = np.arange(1, run.steps + 1)
    axes.plot(steps, run.sigmas[:-1], color="#999999", linewidth=1, linestyle=":")
    axes.set(ylim=(0, 1.05))
    axes.set_ylabel("sigma at the start of the step (dotted)", color="#777777")
    axes.tick_params(colors="#777777")
