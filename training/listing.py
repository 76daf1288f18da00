"""The list of runs: those of this process as they are, those on disk as they were left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..wan.errors import UserError
from ..wan.families import Role
from .checkpoints import CheckpointStore
from .monitors.verdict import verdict_text
from .preview_files import stored_previews, stored_previews_line
from .records import EVENTS, LOCK, RECORD, event_lines, read_record
from .runner import Run, Runner
from .states import LIVE, State
from .watch import (
    Curves,
    found_line,
    loss_line,
    mean_losses,
    stored_curves,
    stored_findings,
)


@dataclass(frozen=True, kw_only=True)
class JobSummary:
    """A run in short. Times are seconds, `changed` since 1970; `loss` is the mean of each expert's last tenth."""

    id: str
    name: str
    state: State
    step: int
    steps: int
    text: str
    """The whole in words, a line or two."""
    message: str = ""
    wish: str = ""
    """`pause` or `stop` when that was asked and is not yet so."""
    role: Role | None = None
    loss: dict[Role, float] = field(default_factory=dict)
    seconds_per_step: float | None = None
    seconds_left: float | None = None
    position: int | None = None
    """0 for the run that works, 1 for the next; None when it is not in this process."""
    changed: float = 0.0


@dataclass(frozen=True, kw_only=True)
class JobDetails(JobSummary):
    """With what takes longer to read: every step's loss, the checkpoints, the plan."""

    curves: dict[Role, list[tuple[int, float]]]
    checkpoints: list[int]
    resumes_at: int
    """The step from which it would go on."""
    findings: list[str]
    plan: dict[str, Any]
    previews: list[dict[str, Any]]
    """What was sampled while it was on: step, number, file below the run's folder, clip and prompt."""


def list_jobs(runner: Runner, root: Path) -> list[JobSummary]:
    """Runs of this process in their order, then those below `root`, the newest first."""
    runs = runner.runs()
    live = [summary_of(run, runs) for run in runs]
    folders = {run.job.folder for run in runs}
    stored = [_stored_or_broken(f) for f in run_folders(root) if f not in folders]
    return [*live, *sorted(stored, key=lambda summary: -summary.changed)]


def job_details(runner: Runner, root: Path, job_id: str) -> JobDetails | None:
    """One run with its curves, checkpoints and plan; None when there is none of this id."""
    if (run := runner.find(job_id)) is not None:
        return _details(summary_of(run, runner.runs()), run.job.folder, run.watch.curves)
    for folder in run_folders(root):
        summary = _stored_or_broken(folder)
        if summary.id == job_id:
            return _details(summary, folder, stored_curves(folder))
    return None


def run_folders(root: Path) -> list[Path]:
    """Folders below `root` that hold a run."""
    return sorted(path.parent for path in root.glob(f"*/{RECORD}"))


def summary_of(run: Run, runs: Sequence[Run]) -> JobSummary:
    """A run of this process, among all of them."""
    job, watch, why = run.job, run.watch, run.control.why
    return JobSummary(
        id=job.id,
        name=job.name,
        state=job.state,
        step=watch.step,
        steps=watch.steps,
        text=watch.text(job.state, why),
        message=why,
        wish=run.control.wish,
        role=watch.role,
        loss=mean_losses(watch.curves),
        seconds_per_step=watch.seconds_per_step(),
        seconds_left=watch.seconds_left(),
        position=runs.index(run) if run in runs else None,
        changed=job.changed,
    )


def _stored_or_broken(folder: Path) -> JobSummary:
    try:
        return _stored(folder)
    except UserError as error:
        text = f"failed: {error}"
        return JobSummary(id="", name=folder.name, state="failed", step=0, steps=0, text=text)


def _stored(folder: Path) -> JobSummary:
    record, curves, resumes_at, found = _read(folder, _stamps(folder))
    state, message = _state_now(folder, record)
    step = max((points[-1][0] for points in curves.values() if points), default=0)
    steps = record["identity"]["plan"]["steps"]
    told = (
        message,
        loss_line(curves),
        verdict_text(folder),
        stored_previews_line(folder),
        found_line(found),
    )
    lines = [f"{state}, step {step} of {steps}", *told]
    if state == "cut off":
        lines[0] = f"cut off after step {step} of {steps}, goes on from step {resumes_at}"
    return JobSummary(
        id=record["id"],
        name=record["identity"]["name"],
        state=state,
        step=step,
        steps=steps,
        text="\n".join(line for line in lines if line),
        message=message,
        loss=mean_losses(curves),
        changed=record.get("changed", 0.0),
    )


def _stamps(folder: Path) -> tuple[int, ...]:
    """Differ when anything of the run was written since: its record, its events, a checkpoint."""
    paths = (folder / RECORD, folder / EVENTS, folder)
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)


@lru_cache(maxsize=512)
def _read(folder: Path, stamps: tuple[int, ...]) -> tuple[dict[str, Any], Curves, int, list[str]]:
    """Record, curves, the step to go on from and the findings. Pages ask for the list often, and most runs are over."""
    del stamps
    record = read_record(folder)
    assert record is not None
    resumes_at = _store(folder, record).resumable_step()
    return record, stored_curves(folder), resumes_at, stored_findings(folder)


def _state_now(folder: Path, record: Mapping[str, Any]) -> tuple[State, str]:
    """A state that needs a living process is true only while somebody holds the run's lock."""
    if record["state"] not in LIVE:
        return record["state"], record["message"]
    try:
        with FileLock(folder / LOCK, timeout=0):
            return "cut off", "Queue its workflow again: it goes on where it was."
    except Timeout:
        return record["state"], "In another process."


def _details(summary: JobSummary, folder: Path, curves: Curves) -> JobDetails:
    record = read_record(folder)
    assert record is not None
    store = _store(folder, record)
    return JobDetails(
        **asdict(summary),
        curves=curves,
        checkpoints=store.steps(),
        resumes_at=store.resumable_step(),
        findings=[e["text"] for e in event_lines(folder) if e.get("event") == "Finding"],
        plan=record["identity"]["plan"],
        previews=stored_previews(folder),
    )


def _store(folder: Path, record: Mapping[str, Any]) -> CheckpointStore:
    return CheckpointStore(folder, record["identity"]["name"])
