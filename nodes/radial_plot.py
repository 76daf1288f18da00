"""The picture of a radial mask: which frames see how much of which, and what the tokens of one frame see nearby."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..radial_attention.grid import TokenGrid
    from ..radial_attention.layout import Layout

NEAR = 4
"""Frames to either side that the close-up shows."""
COLUMNS = 900


def frame_pairs(layout: Layout, grid: TokenGrid) -> np.ndarray:
    """(frames, frames): the share of a key frame's tokens that the tokens of a query frame see, 0 to 1."""
    edges = grid.before + np.arange(grid.frames + 1) * grid.frame
    seen = np.zeros((grid.frames, grid.frames))
    for tile in range(layout.tiles):
        first, end = layout.queries(tile)
        share = _covered(layout.keys(tile), edges)
        # A tile of the published layout may lie in two frames.
        rows = np.diff(np.clip(edges, first, end))
        for frame in np.flatnonzero(rows):
            seen[frame] += rows[frame] * share
    return seen / grid.frame**2


def close_up(layout: Layout, grid: TokenGrid) -> tuple[np.ndarray, range]:
    """What the tokens of the middle frame see of the frames around it: (rows, columns) of 0 to 1, and those frames."""
    middle = grid.frames // 2
    frames = range(max(0, middle - NEAR), min(grid.frames, middle + NEAR + 1))
    begin = grid.before + frames.start * grid.frame
    columns = min(COLUMNS, len(frames) * grid.frame)
    edges = np.linspace(begin, begin + len(frames) * grid.frame, columns + 1)
    first = grid.before + middle * grid.frame
    picture = np.zeros((grid.frame, columns))
    for tile in range(layout.tiles):
        top, end = (min(max(n - first, 0), grid.frame) for n in layout.queries(tile))
        if end > top:
            picture[top:end] = _covered(layout.keys(tile), edges) / np.diff(edges)
    return picture, frames


def _covered(spans: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Tokens of the spans between each edge and the next."""
    lengths = np.stack([np.zeros(len(spans)), spans[:, 1] - spans[:, 0]], axis=1)
    return np.diff(np.interp(edges, spans.ravel(), np.cumsum(lengths.ravel())))


def radial_plot(
    layout: Layout, grid: TokenGrid, title: str, *, size_px: tuple[int, int] = (1200, 560)
) -> np.ndarray:
    """(height, width, 3) uint8. Left, pairs of frames; right, the middle frame's tokens and those around them."""
    # Imported late: it takes a third of a second, which would count as start-up time of the host.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / 100, size_px[1] / 100), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    left.imshow(frame_pairs(layout, grid), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    left.set(xlabel="key: latent frame", ylabel="query: latent frame")
    for axis in (left.xaxis, left.yaxis):
        axis.get_major_locator().set_params(integer=True)
    left.set_title("share of a frame that is seen", loc="left", fontsize=10)
    picture, frames = close_up(layout, grid)
    right.imshow(
        picture,
        cmap="viridis",
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        extent=(frames.start, frames.stop, grid.frame, 0),
    )
    right.set_xticks(range(frames.start, frames.stop + 1))
    right.grid(axis="x", color="white", linewidth=0.4)
    right.set(xlabel="key: latent frame, token by token", ylabel="query: token of its frame")
    right.set_title(f"what frame {grid.frames // 2} sees nearby", loc="left", fontsize=10)
    # The object interface, not pyplot: nothing global, safe in any thread.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
