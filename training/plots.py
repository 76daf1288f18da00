"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..wan.families import Role

if TYPE_CHECKING:
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
