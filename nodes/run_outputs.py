"""What a run's result gives beside its LoRAs: the losses as core's own training nodes pass them on, and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..training.pictures import loss_picture, monitor_picture

if TYPE_CHECKING:
    from PIL import Image

    from ..training.job import Job

FEWEST = 2
"""Losses that core's graph can draw: it divides by the difference of the largest and the smallest."""


def run_outputs() -> list[io.Output]:
    """The sockets, in the order of `run_values`."""
    return [
        io.LossMap.Output(display_name="losses"),
        io.Image.Output(display_name="loss_plot"),
        io.Image.Output(display_name="monitor_plot"),
    ]


def run_values(job: Job) -> list[object]:
    """Of a run as far as it is: LOSS_MAP, and two IMAGEs (1, height, width, 3)."""
    return [_losses(job), _image(loss_picture(job)), _image(monitor_picture(job))]


def loss_map(job: Job) -> dict[str, list[float]]:
    """The loss of every step so far in the order of the steps, both experts together, as `TrainLoraNode` gives it."""
    points = sorted(point for curve in job.losses().values() for point in curve)
    return {"loss": [loss for _, loss in points]}


def _losses(job: Job) -> dict[str, list[float]] | ExecutionBlocker:
    losses = loss_map(job)
    if len(set(losses["loss"])) < FEWEST:
        return ExecutionBlocker(f"{job.name} has no two different losses yet: nothing to draw.")
    return losses


def _image(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).unsqueeze(0)
