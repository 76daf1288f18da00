"""What a run gives: its verdict, the pair under its own name in the loras folder, and which checkpoints stay."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from ...training.checkpoints import lora_file_name
from ...training.events import VerdictGiven
from ...training.job import Job
from ...training.mending import mend_runs
from ...training.monitors.verdict import Verdict, forget_verdict, verdict_of, write_verdict
from ...training.records import event_lines
from ...training.states import LIVE
from ...wan.families import Role
from ...wan.lora.files import read_metadata, tandem_metadata
from .places import jobs_root, publish_folder

Steps = Mapping[Role, int]
_handing = threading.Lock()
_handed: dict[tuple[str, str | None], set[int]] = {}
"""The checkpoints that a result node has given to what follows it, by run and node."""


def verdict_on(job: Job, *, over: bool = False) -> Verdict | None:
    """What the run says of the checkpoints that it has. While it is on, only held-out losses tell; None without."""
    if not over and job.state in LIVE and not job.plan.held_out:
        return None
    verdict = verdict_of(job.plan, event_lines(job.folder), job.store.steps())
    if verdict is None or verdict.measured or over or job.state not in LIVE:
        return verdict
    return None


def best_steps(job: Job, verdict: Verdict | None) -> dict[Role, int]:
    """Each expert's best checkpoint: the last where nothing tells."""
    if verdict is not None:
        return verdict.steps()
    return dict.fromkeys(job.plan.roles(), job.store.steps()[-1])


def settle(job: Job, *, over: bool = False) -> None:
    """After a checkpoint, and once the run is `over`: the verdict, the published pair, and what need not be kept."""
    verdict = verdict_on(job, over=over)
    if verdict is None:
        # One of before the run went on.
        forget_verdict(job.folder)
    else:
        _tell(job, verdict, over=over)
    if not job.store.steps():
        return
    best = best_steps(job, verdict)
    _publish(job, best)
    # What the run would be judged best by if it ended now must still be there when it does.
    likely = verdict or verdict_on(job, over=True)
    kept = {*best.values(), *(likely.steps().values() if likely else ())}
    # Training works between prompts, so that none can lose a file it is about to read; but a run that ends saves its
    # last checkpoint when it has given the models back, and one that a prompt waits for works within that prompt. What
    # a node has handed out before stays.
    with _handing:
        held = {step for (run, _), steps in _handed.items() if run == job.id for step in steps}
        job.store.prune(job.plan.prune, kept | held)


def publish(job: Job) -> None:
    """The best pair under the run's own name in the first loras folder, if it is not there already."""
    _publish(job, best_steps(job, verdict_on(job)))


def hand_out(
    job: Job, node_id: str | None, choose: Callable[[Verdict | None], Steps]
) -> tuple[Steps, Verdict | None]:
    """The checkpoints that a node chooses by the verdict so far: they stay until it chooses again, however the plan
    prunes."""
    with _handing:
        verdict = verdict_on(job)
        steps = choose(verdict)
        _handed[job.id, node_id] = set(steps.values())
    return steps, verdict


def mend() -> None:
    """What a killed ComfyUI has left half done."""
    mend_runs(jobs_root(), publish_folder())


def _publish(job: Job, steps: Steps) -> None:
    if any(_published_step(job, role) != step for role, step in steps.items()):
        job.store.publish(steps, publish_folder())


def _published_step(job: Job, role: Role) -> object:
    path = publish_folder() / lora_file_name(job.name, role)
    return tandem_metadata(read_metadata(path)).get("step") if path.is_file() else None


def _tell(job: Job, verdict: Verdict, *, over: bool) -> None:
    write_verdict(job.folder, verdict)
    text = verdict.text()
    job.logger.log(logging.INFO if over else logging.DEBUG, "%s: %s", job.name, text)
    job.listen(VerdictGiven(step=verdict.step, keep={**verdict.steps()}, text=text))
