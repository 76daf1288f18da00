"""What a node shows while it works: a bar, and text below it."""

from __future__ import annotations

import time
from collections.abc import Callable

import comfy.utils
from server import PromptServer

from ...training.data.lists import printable
from ...training.plots import loss_plot
from ...training.runner import Run
from ...training.watch import clock

PLOT_EVERY_S = 5.0


def node_text(node_id: str | None, text: str) -> None:
    """Puts a few lines of text under the node."""
    if node_id is not None and getattr(PromptServer, "instance", None) is not None:
        PromptServer.instance.send_progress_text(printable(text), node_id)


def counting(what: str, node_id: str | None) -> Callable[[int, int], None]:
    """A callback (done, total) for work before training: a bar and a line of text on the node."""
    began = time.monotonic()
    bar = comfy.utils.ProgressBar(1, node_id=node_id)

    def on_item(done: int, total: int) -> None:
        left = (time.monotonic() - began) / done * (total - done)
        node_text(node_id, f"{what} {done} of {total}, {clock(left)} left")
        bar.update_absolute(done, total)

    return on_item


class RunProgress:
    """A run on the node that waits for it: the bar counts clips, then steps; the picture is the loss.

    Moving the bar is also where the host raises its cancellation.
    """

    def __init__(self, run: Run, node_id: str | None, *, tell: bool) -> None:
        self._run, self._node_id, self._tell = run, node_id, tell
        self._bar = comfy.utils.ProgressBar(run.watch.steps, node_id=node_id)
        self._plotted = time.monotonic()

    def show(self, first: Run) -> None:
        """`first` is the run that works now."""
        run, watch = self._run, self._run.watch
        if self._tell:
            text = watch.text(run.job.state, run.control.why)
            if first is not run:
                text = f"waits for {first.job.name}: {first.watch.text(first.job.state)}"
            node_text(self._node_id, text)
        picture = None
        if watch.curves and time.monotonic() - self._plotted > PLOT_EVERY_S:
            self._plotted = time.monotonic()
            plot = loss_plot(watch.curves, title=run.job.name, steps=watch.steps)
            picture = ("JPEG", plot, None)
        done, total = watch.encoded or (watch.step, watch.steps)
        self._bar.update_absolute(done, total, picture)
