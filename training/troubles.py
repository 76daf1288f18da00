"""What ended a run, in words that say what to do, where a person can mend it: no memory, no room on the disk."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import torch

from ..wan.errors import UserError
from .job import Job
from .monitors.verdict import verdict_of
from .plans.plan import TrainingPlan
from .records import event_lines, read_record
from .watch import stored_findings

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The library that writes checkpoints tells the system's number in words; 112 is that of Windows.
_NO_ROOM_TEXTS = ("os error 28)", "os error 112)", f"os error {errno.EDQUOT})", "No space left")
_NO_RAM_TEXTS = ("DefaultCPUAllocator", "Cannot allocate memory", "std::bad_alloc")
_NO_VRAM_TEXTS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def explained(error: BaseException, job: Job) -> BaseException:
    """A `UserError` for memory that is used up and for a full disk, with `error` as its cause; else `error` itself."""
    if isinstance(error, UserError):
        return error
    found = _words_for(error, job)
    if found is None:
        return error
    found.__cause__ = error
    return found


def not_finished(job: Job) -> UserError:
    """What a prompt that waited for the run is told when it ended before its plan does."""
    message = (read_record(job.folder) or {}).get("message", "")
    at = f"at step {job.step:,} of {job.plan.steps:,}"
    if job.state == "stopped" and message in stored_findings(job.folder):
        return _stopped_itself(job, at, message)
    stands = {"stopped": "was stopped", "cut off": "was cut off"}.get(job.state, f"is {job.state}")
    why = f": {message}" if message and job.state != "stopped" else ""
    return UserError(
        f"{job.name} {stands} {at}{why.rstrip('.')}.",
        "What comes after it needs a finished run.",
        "Queue it again and it goes on; or set mode to background and, on Tandem Job Result, unfinished to latest.",
    )


def _stopped_itself(job: Job, at: str, message: str) -> UserError:
    verdict = verdict_of(job.plan, event_lines(job.folder), job.store.steps())
    kept = f" {verdict.short()}." if verdict else ""
    return UserError(
        f"{job.name} stopped itself {at}: {message.partition('. ')[0]}.",
        f"The plan's stop_on or rules ask for that; what was trained is saved.{kept}",
        "To use it, set mode to background on Tandem Trainer and unfinished to latest on Tandem Job Result. To train "
        f"better, take another plan under another name. {message.partition('. ')[2]}",
    )


def _words_for(error: BaseException, job: Job) -> UserError | None:
    if _no_room(error):
        return _full_disk(error, job)
    if _no_ram(error):
        return _out_of_ram(error, job)
    if _no_vram(error):
        return _out_of_vram(error, job)
    return None


def _no_room(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    return _says(error, _NO_ROOM_TEXTS)


def _no_ram(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _says(error, _NO_RAM_TEXTS)
    )


def _no_vram(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _says(error, _NO_VRAM_TEXTS)
    )


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    return any(text in str(error) for text in texts)


def _full_disk(error: BaseException, job: Job) -> UserError:
    return UserError(
        f"{job.name} could not be written: the disk is full ({_first_line(error)}).",
        f"Checkpoints lie in {job.folder}{_free(job.folder)}, and a copy of the pair in the loras folder. What was "
        "saved before is whole.",
        f"Make room there and queue its workflow again: {_goes_on(job)}.",
    )


def _out_of_ram(error: BaseException, job: Job) -> UserError:
    plan = job.plan
    in_ram = [
        name
        for name, used in (
            (f"swap_blocks (now {plan.swap_blocks})", plan.swap_blocks > 0),
            ("offload_activations", plan.offload_activations),
        )
        if used
    ]
    lower = f"Lower {' and '.join(in_ram)}, which fill the RAM, or close" if in_ram else "Close"
    return UserError(
        f"{job.name} ran out of RAM at step {job.step} ({_first_line(error)}).",
        "RAM holds the weights that are not on the GPU, and what the optimizer gives back between prompts.",
        f"{lower} other programs and queue its workflow again: {_goes_on(job)}. {_smaller(plan)}",
    )


def _out_of_vram(error: BaseException, job: Job) -> UserError:
    plan = job.plan
    lighter = [
        f"swap_blocks to {max(20, plan.swap_blocks + 10)}",
        *([] if plan.checkpoint_blocks else ["checkpoint_blocks on"]),
        *([] if plan.offload_activations else ["offload_activations on"]),
    ]
    return UserError(
        f"{job.name} ran out of GPU memory at step {job.step} ({_first_line(error)}).",
        "The weights in use, the LoRA with its optimizer, and what a micro-batch keeps for its backward pass must fit.",
        f"Set {' and '.join(lighter)} in the plan, which changes nothing of the result, and queue its workflow again: "
        f"{_goes_on(job)}. {_smaller(plan)}",
    )


def _free(folder: Path) -> str:
    try:
        return f", where {shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free"
    except OSError:  # the folder itself may be what is missing
        return ""


def _smaller(plan: TrainingPlan) -> str:
    batch = f", batch 1 instead of {plan.batch}" if plan.batch > 1 else ""
    return (
        "If that is not enough, take fewer frames (49 instead of 81) or smaller ones (480p instead of 720p)"
        f"{batch}: that is another run, with a name of its own."
    )


def _goes_on(job: Job) -> str:
    step = job.store.resumable_step()
    return (
        f"it goes on from step {step}" if step else "it begins again, since nothing was saved yet"
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
