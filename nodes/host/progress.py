"""What a node shows while it works: bar, text and picture on the node itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import comfy.utils
from PIL import Image
from server import PromptServer

from ...training.events import Event, StepDone
from ...training.job import Job
from ...training.plots import loss_plot
from ...wan.families import Role

Curves = dict[Role, list[tuple[int, float]]]
TEXT_EVERY_S = 0.5
PLOT_EVERY_S = 5.0


def node_text(node_id: str | None, text: str) -> None:
    """Puts a few lines of text under the node."""
    if node_id is not None and getattr(PromptServer, "instance", None) is not None:
        PromptServer.instance.send_progress_text(text, node_id)


class TrainingProgress:
    """Listens to a run: the bar counts steps, the text says rate and time left, the picture is the loss.

    Moving the bar is also where the host raises its cancellation.
    """

    def __init__(self, node_id: str | None, job: Job) -> None:
        self.node_id, self.job = node_id, job
        self.bar = comfy.utils.ProgressBar(job.plan.steps, node_id=node_id)
        # Steps after the checkpoint that a cut-off run goes on from are done again.
        self.curves: Curves = {
            role: [point for point in points if point[0] <= job.step]
            for role, points in job.losses().items()
        }
        self._began, self._first_step = time.monotonic(), job.step
        self._last_text = self._last_plot = 0.0

    def __call__(self, event: Event) -> None:
        self.job.listen(event)
        if not isinstance(event, StepDone):
            return
        self.curves[event.role].append((event.step, event.loss))
        now = time.monotonic()
        last = event.step == event.steps
        if last or now - self._last_text > TEXT_EVERY_S:
            self._last_text = now
            node_text(self.node_id, self._line(event, now))
        picture = None
        if last or now - self._last_plot > PLOT_EVERY_S:
            self._last_plot = now
            picture = ("JPEG", self.plot(), None)
        self.bar.update_absolute(event.step, event.steps, picture)

    def plot(self) -> Image.Image:
        """The loss of both experts so far."""
        return loss_plot(self.curves, title=self.job.name, steps=self.job.plan.steps)

    def _line(self, event: StepDone, now: float) -> str:
        done = event.step - self._first_step
        each = (now - self._began) / max(1, done)
        parts = [
            f"step {event.step} of {event.steps}",
            f"{each:.2f} s a step",
            f"{_clock(each * (event.steps - event.step))} left",
        ]
        return "\n".join([", ".join(parts), loss_line(self.curves)])


def loss_line(curves: Curves) -> str:
    """Mean loss of each expert's last tenth, at least 5 steps."""
    parts = []
    for role, points in curves.items():
        recent = [loss for _, loss in points[-max(5, len(points) // 10) :]]
        if recent:
            name = {"high_noise": "high ", "low_noise": "low "}.get(role, "")
            parts.append(f"{name}{sum(recent) / len(recent):.4f}")
    return f"loss: {', '.join(parts)}" if parts else ""


def counting(what: str, node_id: str | None) -> Callable[[int, int], None]:
    """A callback (done, total) for work before training: a bar and a line of text on the node."""
    began = time.monotonic()
    bar = comfy.utils.ProgressBar(1, node_id=node_id)

    def on_item(done: int, total: int) -> None:
        left = (time.monotonic() - began) / done * (total - done)
        node_text(node_id, f"{what} {done} of {total}, {_clock(left)} left")
        bar.update_absolute(done, total)

    return on_item


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
