"""Runs one job after the other in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from ..wan.errors import UserError
from .control import Control, Gate
from .events import Event, StateChanged
from .job import Job
from .loop import End
from .records import clear_unfinished
from .states import State
from .troubles import explained
from .turns import RunStopped, Turns
from .watch import RunWatch, stored_curves, stored_findings

Work = Callable[[Turns], End]


@dataclass(kw_only=True, eq=False)
class Run:
    """A job in this process. `work` is dropped, and with it the models it holds, when the run is over."""

    job: Job
    control: Control
    watch: RunWatch
    work: Work | None
    finished: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Runner:
    """A queue of runs. Its thread lives while there are any; `busy` and `idle` frame that time."""

    def __init__(
        self,
        gate: Gate,
        *,
        interrupts: tuple[type[BaseException], ...] = (),
        listen: Callable[[Run, Event], None] | None = None,
        busy: Callable[[], None] = lambda: None,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._gate, self._interrupts = gate, interrupts
        self._listen, self._busy, self._idle = listen, busy, idle
        self._lock = threading.RLock()
        self._runs: list[Run] = []
        self._thread: threading.Thread | None = None
        self._closing = False

    def runs(self) -> list[Run]:
        """The run that works, then those that wait, in order."""
        # Without the lock: listeners ask while they hold a run's own.
        return [run for run in list(self._runs) if not run.finished.is_set()]

    def find(self, job_id: str) -> Run | None:
        """The live run of this job, if it has one."""
        return next((run for run in self.runs() if run.job.id == job_id), None)

    def submit(self, job: Job, work: Work) -> Run:
        """Puts a job at the end of the queue; the one that is there already comes back as it is.

        Raises `UserError` when another process runs the job.
        """
        with self._lock:
            if (known := self.find(job.id)) is not None:
                return known
            if self._closing:
                raise UserError(
                    f"{job.name} cannot begin.",
                    "ComfyUI is ending.",
                    "Queue it again when ComfyUI runs.",
                )
            job.claim()
            try:
                clear_unfinished(job.folder)
                return self._enqueue(job, work)
            except BaseException:
                self._runs = [run for run in self._runs if run.job is not job]
                job.release()
                raise

    def _enqueue(self, job: Job, work: Work) -> Run:
        control = Control(self._gate, lambda: job.state, job.set_state, self._interrupts)
        # Steps after the checkpoint that the run goes on from are done again.
        watch = RunWatch(
            job.plan.steps,
            stored_curves(job.folder, up_to=job.step),
            stored_findings(job.folder),
        )
        run = Run(job=job, control=control, watch=watch, work=work)
        job.listeners.append(watch)
        if self._listen:
            job.listeners.append(partial(self._listen, run))
        self._runs.append(run)
        job.set_state("queued")
        if self._thread is None:
            self._busy()
            self._thread = threading.Thread(
                target=self._work_through, name="tandem-training", daemon=True
            )
            self._thread.start()
        return run

    def stop(self, run: Run, why: str = "") -> None:
        """Stops a run and saves it; one that waits leaves the queue at once."""
        with self._lock:
            waits = run in self._runs[1:]
            if waits:
                self._runs.remove(run)
        if waits:
            self._end(run, "stopped", why or "taken out of the queue")
        else:
            run.control.stop(why)

    def shutdown(self, timeout_s: float) -> None:
        """Saves what runs and ends the thread; the runs are cut off, and go on when they are queued again."""
        with self._lock:
            self._closing, thread, runs = True, self._thread, self.runs()
        for run in runs[:1]:
            with suppress(UserError):  # it ended by itself just now
                run.control.stop("ComfyUI ended")
        if thread is not None:
            thread.join(timeout_s)

    def _work_through(self) -> None:
        while True:
            with self._lock:
                if self._closing or not self._runs:
                    self._thread = None
                    self._idle()
                    return
                run = self._runs[0]
            self._do(run)

    def _do(self, run: Run) -> None:
        try:
            end = _worked(run)
            stopped: State = "cut off" if self._closing else "stopped"
            outcome = (stopped, run.control.why) if end == "stopped" else (end, "")
        except BaseException as error:
            # Whatever ends a run, the host's own exceptions too, is shown where somebody waits for it.
            run.job.logger.exception("%s failed at step %s.", run.job.name, run.job.step)
            run.error = explained(error, run.job)
            outcome = ("failed", str(run.error) or type(error).__name__)
        finally:
            self._gate.leave()
        self._end(run, *outcome)
        with self._lock:
            self._runs.remove(run)

    def _end(self, run: Run, state: State, message: str) -> None:
        run.work = None
        try:
            run.control.end(state, message)
        except Exception as error:
            # A full disk: the runs behind this one must not wait for ever.
            run.job.logger.exception("The end of %s could not be written.", run.job.name)
            run.error = run.error or explained(error, run.job)
            self._tell_at_least(run, message)
        finally:
            _forget_frames(run.error)
            run.job.release()
            run.finished.set()

    def _tell_at_least(self, run: Run, message: str) -> None:
        """What the run's own files could not take is shown to whoever looks on."""
        if self._listen is None:
            return
        job = run.job
        try:
            self._listen(run, StateChanged(state=job.state, step=job.step, message=message))
        except Exception:
            job.logger.exception("A listener of %s failed.", job.name)


def _worked(run: Run) -> End:
    assert run.work is not None
    try:
        run.control.wait()
        return run.work(run.control)
    except RunStopped:
        return "stopped"


def _forget_frames(error: BaseException | None) -> None:
    """The frames of an error, and of those it came from, hold the models; the log has what they say."""
    if error is not None:
        error.__traceback__ = None
        for part in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
            _forget_frames(part)
