"""The node that says before a run what radial attention can gain at a size."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..radial_attention.estimate import LAYERS, Gain, gain
from ..radial_attention.grid import TokenGrid
from ..radial_attention.layout import Layout, density
from ..radial_attention.settings import RadialSettings
from ..wan.errors import UserError
from ..wan.shapes import PIXELS_PER_TOKEN, checked_clip_size, latent_size
from . import sockets
from .host.progress import node_text
from .host.radial import three_parts
from .host.radial_steps import Steps
from .radial import decay_input, layers_input, preset_input, settings_of, steps_input
from .radial_plot import radial_plot

MOST_PX, MOST_FRAMES, MOST_STEPS = 8192, 4001, 10_000
LITTLE = 1.2
"""A whole run that gains less than this is hardly worth the loss of exactness."""


class TandemRadialPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemRadialPlan",
            display_name="Tandem Radial Plan",
            category="Tandem/sampling",
            description="Shows the mask of radial attention for a size, and says what it can gain: of one call, and "
            "honestly of the whole run. Needs no model and no GPU, and takes less than a second.",
            search_aliases=[
                "radial attention",
                "sparse attention",
                "attention mask",
                "speed estimate",
            ],
            inputs=[
                io.Int.Input(
                    "width", default=832, min=1, max=MOST_PX, tooltip="Pixels, for example 832."
                ),
                io.Int.Input(
                    "height", default=480, min=1, max=MOST_PX, tooltip="Pixels, for example 480."
                ),
                io.Int.Input(
                    "frames", default=81, min=1, max=MOST_FRAMES, tooltip="4k+1, for example 81."
                ),
                preset_input(),
                decay_input(),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=MOST_STEPS,
                    optional=True,
                    tooltip="Steps of the whole run, over both experts: 20, or 4 with a 4-step LoRA.",
                ),
                layers_input(),
                steps_input(),
            ],
            outputs=[
                io.Image.Output(display_name="mask"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        width: int | None = None,
        height: int | None = None,
        frames: int | None = None,
        preset: str | None = None,
        decay_factor: float | None = None,
        steps: int | None = None,
        dense_layers: str | None = None,
        dense_timesteps: int | None = None,
    ) -> bool | str:
        given = (width, height, frames, preset, decay_factor, steps, dense_layers, dense_timesteps)
        if any(value is None for value in given):
            return True  # it comes from another node
        return sockets.first_error(lambda: _planned(*given))  # type: ignore[arg-type] - none is None

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        frames: int,
        preset: str,
        decay_factor: float = 0.0,
        steps: int = 20,
        dense_layers: str = "",
        dense_timesteps: int = -1,
    ) -> io.NodeOutput:
        planned = _planned(
            width, height, frames, preset, decay_factor, steps, dense_layers, dense_timesteps
        )
        settings, grid, layout, found, dense_steps = planned
        title = f"{width} x {height}, {frames} frames, {preset}: density {found.density:.3f}"
        report = _report(settings, grid, layout, found, steps, dense_steps, f"{title}.")
        node_text(cls.hidden.unique_id, report)
        picture = torch.from_numpy(radial_plot(layout, grid, title).astype(np.float32) / 255)
        image = picture.unsqueeze(0)
        return io.NodeOutput(image, report, ui=ui.PreviewImage(image, cls=cls))


def _planned(
    width: int,
    height: int,
    frames: int,
    preset: str,
    decay_factor: float,
    steps: int,
    dense_layers: str,
    dense_timesteps: int,
) -> tuple[RadialSettings, TokenGrid, Layout, Gain, int]:
    """Raises `UserError` for sizes that Wan does not take, and where nothing would be sparse."""
    latent = latent_size(checked_clip_size(width, height, frames))
    _require_reasonable(width, height, frames, steps)
    settings = settings_of(preset, decay_factor, dense_layers, dense_timesteps)
    schedule = Steps(tuple(np.linspace(1, 0, steps + 1).tolist()), shift=1.0)
    with three_parts():
        sparse = schedule.any_sparse(settings, LAYERS)
    if not sparse:
        raise UserError(
            f"With {settings.dense_text()} none of the {steps} steps would be sparse.",
            "Radial attention needs at least one step and one block that is.",
            "Lower dense_timesteps or dense_layers, or plan for more steps.",
        )
    grid = TokenGrid(latent.frames, height // PIXELS_PER_TOKEN, width // PIXELS_PER_TOKEN)
    layout = settings.layout(grid)
    share = density(layout)
    if share >= 1:
        raise UserError(
            f"At {width} x {height} and {frames} frames the mask leaves nothing out.",
            "Frames next to each other see each other whole, so it needs several latent frames: 9 frames or more.",
            "Take more frames, or leave radial attention out.",
        )
    dense_steps = schedule.num_dense(settings)
    found = gain(settings, grid, share, dense_steps=dense_steps, steps=steps)
    return settings, grid, layout, found, dense_steps


def _require_reasonable(width: int, height: int, frames: int, steps: int) -> None:
    for name, value, most in (
        ("width", width, MOST_PX),
        ("height", height, MOST_PX),
        ("frames", frames, MOST_FRAMES),
        ("steps", steps, MOST_STEPS),
    ):
        if not 1 <= value <= most:
            raise UserError(
                f"{name} is {value:,}.", f"It can be 1 to {most:,}.", f"Choose a {name} that is."
            )


def _report(
    settings: RadialSettings,
    grid: TokenGrid,
    layout: Layout,
    found: Gain,
    steps: int,
    dense_steps: int,
    title: str,
) -> str:
    lines = [
        title,
        f"The whole run: {found.whole:.2f} times as fast at most. Self-attention is {found.share:.0%} of the work of "
        f"Wan 14B at this size; {dense_steps} of {steps} steps are dense, and {found.dense:.0%} of the calls.",
        f"A sparse call: {found.kernel:.2f} times as fast as a dense one at most.",
        f"{grid.frames} latent frames of {grid.height} x {grid.width} tokens: {grid.tokens:,} tokens; "
        f"{settings.describe()}.",
        f"The plan takes {_size(layout.nbytes)} of memory; a written-out mask would take {_size(grid.tokens**2)}.",
    ]
    if found.whole < LITTLE:
        lines.insert(
            1,
            f"Only {found.whole:.2f}x is possible here: attention is {found.share:.0%} of the work. Take more frames "
            "or fewer dense steps.",
        )
    return "\n".join(lines)


def _size(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
