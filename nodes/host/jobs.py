"""The runs of this ComfyUI: one training thread, behind one gate, told about over the websocket."""

from __future__ import annotations

import atexit
import threading
import time
from dataclasses import asdict

from comfy.model_management import (
    InterruptProcessingException,
    throw_exception_if_processing_interrupted,
)
from server import PromptServer

from ...training.events import CheckpointSaved, ClipEncoded, Event, StateChanged, StepDone
from ...training.job import Job
from ...training.listing import summary_of
from ...training.runner import Run, Runner
from ...training.seat import GiveBack
from ...training.troubles import not_finished
from ...wan.errors import UserError
from .gate import HostGate
from .guard import Guards
from .preview import PreviewWishes
from .progress import RunProgress
from .queue_again import Workflow, keep_clips, keep_workflow
from .run import open_run, work_of
from .setup import Setup

EVENT = "tandem.job"
TELL_EVERY_S = 0.5
LOOK_EVERY_S = 0.1
"""How often a waiting node looks for Cancel."""
SHUTDOWN_S = 30.0
"""What ending ComfyUI waits for the micro-batch and the checkpoint."""


class Teller:
    """Sends every change of a run to all pages, and steps as often as a person can read."""

    def __init__(self) -> None:
        self._last = 0.0
        self.unfinished_ends: dict[str, int] = {}
        """How often a run of each name has ended without being done."""
        self.revision = 0
        """Counts what a result node would give differently: checkpoints and ends."""
        self._news: dict[str, int] = {}
        self._stands: dict[str, str] = {}
        self._given: dict[str, int] = {}
        self._awaited: dict[str, tuple[int, int]] = {}

    def fingerprint(self, name: str) -> int:
        """Differs when a trainer would say another thing of its run: it began, has a checkpoint more, was paused, is
        over. A prompt that waited for the end has had it, so that nothing of it runs again while there is no more."""
        news = self._news.get(name, 0)
        awaited, given = self._awaited.get(name, (-1, 0))
        self._given[name] = given if news == awaited else news
        return self._given[name]

    def awaited(self, name: str) -> None:
        """A prompt has waited for the end of the run, and gives what follows from it."""
        self._awaited[name] = (self._news.get(name, 0), self._given.get(name, 0))

    def __call__(self, run: Run, event: Event) -> None:
        self._note(run.job.name, event)
        if isinstance(event, (StepDone, ClipEncoded)):
            if time.monotonic() - self._last < TELL_EVERY_S:
                return
            self._last = time.monotonic()
        else:
            self.revision += 1
        server = getattr(PromptServer, "instance", None)
        if server is not None:
            server.send_sync(EVENT, asdict(summary_of(run, runner.runs())))

    def _note(self, name: str, event: Event) -> None:
        stands = self._stands.get(name)
        if isinstance(event, StateChanged):
            if event.state in ("stopped", "failed", "cut off"):
                self.unfinished_ends[name] = self.unfinished_ends.get(name, 0) + 1
            # It parks and goes on with every prompt.
            stands = (
                "on" if event.state in ("queued", "running", "parked", "stopping") else event.state
            )
        if stands != self._stands.get(name) or isinstance(event, CheckpointSaved):
            self._stands[name] = stands or ""
            self._news[name] = self._news.get(name, 0) + 1


gate = HostGate()
guards = Guards(gate)
teller = Teller()
runner = Runner(
    gate,
    interrupts=(InterruptProcessingException,),
    listen=teller,
    busy=guards.put_up,
    idle=guards.take_down,
)
atexit.register(runner.shutdown, SHUTDOWN_S)
_starting = threading.Lock()


def start(
    setup: Setup,
    name: str,
    *,
    give_back: GiveBack,
    previews: PreviewWishes,
    workflow: Workflow | None = None,
) -> Job:
    """The job of this setup, in the queue of runs unless it is done; the one that is there already if it is live.

    `workflow` is kept in the run's folder, so that the run can be queued again by itself.
    """
    with _starting:
        job = open_run(setup, name)
        if (live := runner.find(job.id)) is not None:
            return live.job
        if job.state == "done":
            return job
        if workflow is not None:
            keep_workflow(job.folder, workflow)
            keep_clips(job.folder, (clip.path for clip in setup.dataset.clips))
        work = work_of(setup, job, give_back=give_back, previews=previews)
        return runner.submit(job, work).job


def live_run(name: str = "") -> Run:
    """The live run of this name, or the one that works."""
    runs = runner.runs()
    for run in runs:
        if name in ("", run.job.name):
            return run
    names = ", ".join(f"{run.job.name} ({run.job.state})" for run in runs)
    raise UserError(
        f"No run called {name!r} is in this ComfyUI now."
        if name
        else "No run is in this ComfyUI now.",
        f"There {'is ' + names if names else 'are none'}.",
        "Queue the workflow of the run: it goes on where it was.",
    )


def ask(run: Run, action: str) -> str:
    """pause, resume or stop; what the run says then."""
    actions = {
        "pause": run.control.pause,
        "resume": run.control.resume,
        "stop": lambda: runner.stop(run, "stopped by hand"),
    }
    actions[action]()
    summary = summary_of(run, runner.runs())
    asked = f"\n{summary.wish} after the current micro-batch" if summary.wish else ""
    return f"{run.job.name}: {summary.text}{asked}"


def wait_for(job: Job, node_id: str | None, *, tell: bool = True) -> Job:
    """Keeps the prompt waiting until the run is over, lets it work meanwhile, and gives the job as it is then.

    Cancel stops the run, waits until it is saved, and is passed on. Raises what the run raised, and `UserError`
    when somebody else stopped it. `tell`: write how it gets on under the node, which a trainer's own view does.
    """
    run = runner.find(job.id)
    if run is not None:
        job = run.job
        _keep_waiting(run, node_id, tell=tell)
        if run.error is not None:
            raise run.error
    if job.state != "done":
        raise not_finished(job)
    teller.awaited(job.name)
    return job


def _keep_waiting(run: Run, node_id: str | None, *, tell: bool) -> None:
    progress = RunProgress(run, node_id, tell=tell)
    with gate.lent():
        try:
            while not run.finished.wait(LOOK_EVERY_S):
                throw_exception_if_processing_interrupted()
                progress.show((runner.runs() or [run])[0])
        except InterruptProcessingException:
            _stop(run)
            raise


def _stop(run: Run) -> None:
    if not run.finished.is_set():
        runner.stop(run, "cancelled")
        run.finished.wait()
