"""What a run measures, as event files for TensorBoard, where the package `tensorboard` is installed.

They lie in `tensorboard/` below the run's folder: `tensorboard --logdir output/tandem` shows all runs. The package is
never needed: the same numbers are in `events.jsonl`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from .events import Event, HeldOut, StepDone
from .job import Job

FOLDER = "tensorboard"
FLUSH_S = 10
"""How long a number may wait in memory; a run that is killed makes its last steps again anyway."""
OF_EXPERTS = ("loss", "loss_mean", "rate", "grad_norm", "weight")
"""Charts with a curve for each expert: fields of `StepDone`."""
RATIOS = ("weight_ratio", "rate_ratio")
"""Fields of `StepDone` that both experts have together: high noise to low noise."""


class Writer(Protocol):
    """What is used of `torch.utils.tensorboard.SummaryWriter`."""

    def add_scalar(
        self, tag: str, scalar_value: float, global_step: int | None = None
    ) -> object: ...

    def close(self) -> None: ...


OpenWriter = Callable[[Path, int], Writer]
"""A writer for a folder; what was written there before at this step or later counts no more."""


class Board:
    """Listens to a run: losses, their mean, rates, gradient norms, weights, ratios, held-out losses."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            for name in OF_EXPERTS:
                self._add(f"{name}/{event.role}", getattr(event, name), event.step)
            for name in RATIOS:
                self._add(f"ratio/{name}", getattr(event, name), event.step)
        elif isinstance(event, HeldOut):
            self._add(f"held_out/{event.role}", event.loss, event.step)
            self._add(f"held_out_trained/{event.role}", event.trained, event.step)

    def _add(self, tag: str, value: float | None, step: int) -> None:
        if value is not None:
            self._writer.add_scalar(tag, value, global_step=step)


@contextmanager
def on_the_board(job: Job, open_writer: OpenWriter | None = None) -> Iterator[None]:
    """While the block lasts, everything that the run measures after `job.step` goes to TensorBoard as well.

    What lies there of later steps, from before the run was cut off, is hidden: those steps are made again. Without
    the package, or when it fails, a line in the run's log says so, and the run goes on without.
    """
    writer = _opened(job, open_writer or _summary_writer)
    if writer is None:
        yield
        return
    board = _Guarded(job, Board(writer))
    job.listeners.append(board)
    try:
        yield
    finally:
        # The end of a run takes all of its listeners off, and may have come first.
        if board in job.listeners:
            job.listeners.remove(board)
        board.attempt(writer.close)


class _Guarded:
    """A listener whose first failure is told and is its last: a full disk must not fill the log as well."""

    def __init__(self, job: Job, board: Board) -> None:
        self._job, self._board = job, board
        self._failed = False

    def __call__(self, event: Event) -> None:
        self.attempt(lambda: self._board(event))

    def attempt(self, act: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            act()
        except Exception as error:  # noqa: BLE001 - another project's package; a chart is worth less than the run
            self._failed = True
            self._job.logger.warning(
                "%s: TensorBoard's files end here (%r). The run goes on.", self._job.name, error
            )


def _opened(job: Job, open_writer: OpenWriter) -> Writer | None:
    if open_writer is _summary_writer and importlib.util.find_spec("tensorboard") is None:
        job.logger.info(
            "%s: no files for TensorBoard, whose package `tensorboard` is not installed.", job.name
        )
        return None
    first = job.step + 1 if job.step else 0
    try:
        return open_writer(job.folder / FOLDER, first)
    except Exception as error:  # noqa: BLE001 - as above; a broken installation fails in many ways
        job.logger.info("%s: no files for TensorBoard: %r.", job.name, error)
        return None


def _summary_writer(folder: Path, first_step: int) -> Writer:
    # Imported late: it takes a second, and half of the package.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(log_dir=str(folder), purge_step=first_step, flush_secs=FLUSH_S)
