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
SHOWN_LINES, SHOWN_LETTERS = 6, 360


def node_text(node_id: str | None, text: str) -> None:
    """Puts the first lines of a text under the node: the whole of a long one is an output."""
    if node_id is not None and getattr(PromptServer, "instance", None) is not None:
        PromptServer.instance.send_progress_text(beginning(printable(text)), node_id)


def beginning(text: str) -> str:
    """At most `SHOWN_LINES` lines and `SHOWN_LETTERS` letters, and how many lines are not shown.

    A node of Nodes 2.0 grows with its text over those below it, and the classic canvas cuts it without a word.
    """
    lines = text.splitlines()
    kept = lines[:SHOWN_LINES]
    while len(kept) > 1 and sum(map(len, kept)) > SHOWN_LETTERS:
        kept.pop()
    if len(kept[0] if kept else "") > SHOWN_LETTERS:
        kept = [f"{kept[0][:SHOWN_LETTERS]} ..."]
    more = len(lines) - len(kept)
    return "\n".join(
        [*kept, *([f"... {more} more line{'s' * (more != 1)} in the text output"] if more else [])]
    )


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
