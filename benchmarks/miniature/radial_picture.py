"""The pictures of docs/radial.md that are not the plan node's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from ...dev.proof_sheet import trails
from ...radial_attention.settings import BALANCED, PRESETS
from ...wan.miniature.measures import obedience
from ...wan.miniature.world import KNOWN_MOTIONS
from .radial_figures import SIZES, gain_at, grid_of
from .radial_runs import KNOWN, LONGER, TAUGHT, Made, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAMES = range(17, 322, 8)
COLOURS = {"832 x 480": "#2e86ab", "1280 x 720": "#d1495b"}
RUNS = {
    f"{BALANCED}, 20 steps": (BALANCED, 20, "-"),
    "quality, 20 steps": ("quality", 20, "--"),
    f"{BALANCED}, 4 steps": (BALANCED, 4, ":"),
}
"""Preset, steps and line."""
SCENES = 7
"""Clips of a row that are shown."""


def draw_limits(target: Path) -> None:
    """Density, and the most that a whole run can gain, against the frames."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.6, 4.6), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for size, colour in COLOURS.items():
        grids = [grid_of(*SIZES[size], frames) for frames in FRAMES]
        for decay, line in ((0.2, "-"), (0.8, "--")):
            preset = BALANCED if decay == PRESETS[BALANCED].decay else "quality"
            shares = [gain_at(PRESETS[preset], grid, 20).density for grid in grids]
            left.plot(FRAMES, shares, line, color=colour, label=f"{size}, decay {decay:g}")
        for name, (preset, steps, line) in RUNS.items():
            limits = [gain_at(PRESETS[preset], grid, steps).whole for grid in grids]
            right.plot(FRAMES, limits, line, color=colour, label=f"{size}, {name}")
    _named(left, "share of the pairs of tokens that a sparse call computes")
    _named(right, "how many times as fast the whole run can be at most")
    left.set_ylim(0, 1)
    right.set_ylim(bottom=1)
    figure.savefig(target)


def _named(panel: Axes, title: str) -> None:
    panel.set_title(title, fontsize=10, loc="left")
    panel.set_xlabel("frames of the clip")
    panel.grid(visible=True, alpha=0.25)
    panel.legend(fontsize=8)


def draw_known(made: Mapping[Row, Made], target: Path) -> None:
    """Known motions by what attention was."""
    cells = {
        (f"{row.sampled}\n{row.frames} frames", motion): _cell(made[row], number, motion)
        for row in (*KNOWN, *LONGER)
        for number, motion in enumerate(KNOWN_MOTIONS[:SCENES])
    }
    trails(cells, target, title="all frames of a clip in one; the same seeds in every row")
    _slimmed(target)


def draw_taught(made: Mapping[Row, Made], target: Path) -> None:
    """The new motion by what its LoRA was trained and sampled with."""
    cells = {
        (_labelled(row), f"scene {number + 1}"): _cell(made[row], number, "loop")
        for row in TAUGHT
        for number in range(SCENES)
    }
    trails(
        cells,
        target,
        title="asked for a loop by its trigger; the LoRA as it was trained, the clip as it was sampled",
    )
    _slimmed(target)


def _slimmed(target: Path) -> None:
    """With a palette a picture takes a third of the bytes."""
    with Image.open(target) as picture:
        slim = picture.quantize(256)
    slim.save(target, optimize=True)


def _labelled(row: Row) -> str:
    sampled = "dense" if row.sampled == "dense" else "sparse"
    trained = "sparse" if row.trained == "radial" else row.trained
    return f"{trained or 'no'} LoRA,\n{sampled} clip"


def _cell(made: Made, number: int, asked: str) -> tuple[torch.Tensor, str]:
    clip = made.clips[number]
    found = obedience(clip, asked)
    return clip, f"{found.nearest}, {found.path_error_px:.1f} px"
