"""The pictures of a run, from what lies in its folder."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from ..wan.families import Role
from .expert_turns import steps_before
from .job import Job
from .monitors.curves import curves_of, measured
from .monitors.effective_rank import ranks_of
from .plots import loss_plot, monitor_plot, save_picture
from .records import event_lines
from .sigma_histogram import SigmaHistogram, sigma_histogram

MONITORS = "monitors.png"


def loss_picture(job: Job) -> Image.Image:
    """Every step's loss so far."""
    return loss_plot(job.losses(), title=job.name, steps=job.plan.steps)


def monitor_picture(job: Job) -> Image.Image:
    """What the monitors have measured so far, and the noise levels that were drawn for it."""
    lines = list(event_lines(job.folder))
    events = measured(lines)
    step = max((event.step for event in events), default=0)
    histograms: dict[Role, SigmaHistogram] = {
        role: sigma_histogram(job.plan, role, steps * job.plan.accumulate)
        for role, steps in steps_before(job.plan, step).items()
    }
    curves = replace(curves_of(events), ranks=ranks_of(lines))
    return monitor_plot(curves, title=job.name, steps=job.plan.steps, histograms=histograms)


def save_pictures(job: Job) -> None:
    """Both, beside the checkpoints."""
    save_picture(loss_picture(job), job.plot_file)
    save_picture(monitor_picture(job), job.folder / MONITORS)
