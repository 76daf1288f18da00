"""The node that shows a strength schedule before anything is sampled with it."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..wan.lora.strength import StrengthSchedule, parse_strength
from ..wan.lora.strength_table import strength_run
from . import sampling_inputs as inputs
from . import sockets
from .host.progress import node_text
from .host.schedules import flow_sigmas
from .strength_plot import strength_plot


class TandemStrengthSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemStrengthSchedule",
            display_name="Tandem Strength Schedule",
            category="Tandem/lora",
            description="Shows how strong a LoRA is at each sampling step, on both experts, before anything is "
            "sampled: a picture and a table. High noise runs first (motion, layout), low noise second (detail). "
            "The schedule's text then goes into a row of a stack.",
            search_aliases=["lora schedule", "strength per step", "lora keyframes", "fade lora"],
            inputs=[
                io.String.Input(
                    "schedule",
                    default="1",
                    optional=True,
                    tooltip="A factor for each step: 0.8, a list 0.2 0.5 1, a ramp 0.2 -> 1, or keyframes 0.2@0, 1@50% "
                    "(comma: ramp; bar |: jump). Places: 0 to 1, percent, steps s3, noise sigma0.9.",
                ),
                io.String.Input(
                    "schedule_low",
                    default="",
                    optional=True,
                    tooltip="The same for the low-noise expert; empty takes schedule. For example 1 -> 0.4.",
                ),
                inputs.steps_input(
                    "Steps of both experts together, as on the sampler. 20, or 4 with a speed LoRA."
                ),
                io.Float.Input(
                    "shift",
                    default=5.0,
                    min=0.01,
                    max=100.0,
                    step=0.01,
                    optional=True,
                    tooltip="Warp of the noise schedule, as on the sampler. 5 for image-to-video.",
                ),
                io.Float.Input(
                    "boundary",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    optional=True,
                    tooltip="Sigma at which the low-noise expert takes over: 0.9 image-to-video, 0.875 text-to-video; "
                    "0 shows a single model.",
                ),
                inputs.scheduler_input(
                    "How the steps are spread over the noise, as on the sampler. For example simple."
                ),
                _strength("high", "the high-noise expert or on a single model"),
                _strength("low", "the low-noise expert"),
            ],
            outputs=[
                io.String.Output(display_name="schedule"),
                io.Image.Output(display_name="plot"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, schedule: str | None = "1", schedule_low: str | None = ""
    ) -> bool | str:
        return sockets.first_error(
            lambda: schedule is None or parse_strength(schedule),
            lambda: not (schedule_low or "").strip() or parse_strength(schedule_low or ""),
        )

    @classmethod
    def execute(
        cls,
        schedule: str = "1",
        schedule_low: str = "",
        steps: int = 20,
        shift: float = 5.0,
        boundary: float = 0.9,
        scheduler: str = "simple",
        high: float = 1.0,
        low: float = 1.0,
    ) -> io.NodeOutput:
        of_high, of_low = _both(schedule, schedule_low)
        sigmas = flow_sigmas(steps=steps, shift=shift, scheduler=scheduler).tolist()
        run = strength_run(of_high, of_low, sigmas, boundary=boundary, strengths=(high, low))
        text = run.text()
        node_text(cls.hidden.unique_id, text)
        plot = torch.from_numpy(strength_plot(run)).float()[None] / 255
        return io.NodeOutput(schedule, plot, text, ui=ui.PreviewImage(plot, cls=cls))


def _both(schedule: str, schedule_low: str) -> tuple[StrengthSchedule, StrengthSchedule]:
    high = parse_strength(schedule)
    return high, parse_strength(schedule_low) if schedule_low.strip() else high


def _strength(name: str, where: str) -> io.Input:
    return io.Float.Input(
        name,
        default=1.0,
        min=-100.0,
        max=100.0,
        step=0.05,
        optional=True,
        tooltip=f"The row's strength on {where}, a factor. 0.7-1.0 is usual.",
    )
