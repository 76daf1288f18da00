"""Inputs that nodes share which sample, or show what a sampler will do; what they say differs where the nodes do."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

SCHEDULER_TIP = "How the steps are spread over the noise. For example simple."


def steps_input(
    tooltip: str = "Steps of both experts together. 20, or 4 with a lightning LoRA.",
) -> io.Input:
    return io.Int.Input("steps", default=20, min=1, max=10_000, optional=True, tooltip=tooltip)


def cfg_input() -> io.Input:
    return io.Float.Input(
        "cfg",
        default=3.5,
        min=0.0,
        max=100.0,
        step=0.1,
        optional=True,
        tooltip="Guidance, a factor. 3.5 for Wan 2.2, 1.0 with a lightning LoRA.",
    )


def shift_input() -> io.Input:
    return io.Float.Input(
        "shift",
        default=0.0,
        min=0.0,
        max=100.0,
        step=0.01,
        optional=True,
        tooltip="Warp of the schedule for both experts; 0 keeps the MODEL's. 5 for image-to-video.",
    )


def sampler_input() -> io.Input:
    return io.Combo.Input(
        "sampler_name",
        options=comfy.samplers.SAMPLER_NAMES,
        default="euler",
        optional=True,
        tooltip="The sampler. euler loses nothing at the switch.",
    )


def scheduler_input(tooltip: str = SCHEDULER_TIP) -> io.Input:
    return io.Combo.Input(
        "scheduler",
        options=comfy.samplers.SCHEDULER_NAMES,
        default="simple",
        optional=True,
        tooltip=tooltip,
    )


def seed_input(tooltip: str) -> io.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        optional=True,
        tooltip=tooltip,
    )
