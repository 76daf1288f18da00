"""The nodes that take a run: its result, and what a person asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..training.alpha_phases import alpha_line
from ..training.job import Job
from ..training.records import event_lines
from ..training.watch import loss_line, stored_findings
from ..wan.errors import UserError
from ..wan.lora.files import read_metadata, tandem_metadata
from ..wan.lora.stack import LoraStack, Row
from . import sockets
from .host import jobs
from .host.places import lora_name
from .host.progress import node_text
from .host.results import best_steps, hand_out
from .run_outputs import run_outputs, run_values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..training.monitors.verdict import Verdict
    from ..wan.families import Role


class TandemJobResult(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemJobResult",
            display_name="Tandem Job Result",
            category="Tandem/training",
            description="A run's LoRA pair as a stack, and the names of its files. best takes each expert at the step "
            "that the run's own verdict names, and the report says why.",
            search_aliases=["trained lora", "checkpoint", "training result"],
            inputs=[
                sockets.Job.Input("job", tooltip="From Tandem Trainer."),
                io.Combo.Input(
                    "checkpoint",
                    options=["best", "last", "step"],
                    default="best",
                    optional=True,
                    tooltip="Which checkpoint: best (of each expert, which may be two steps), last, or the one at "
                    "`step`. For example best.",
                ),
                io.Int.Input(
                    "step",
                    default=0,
                    min=0,
                    max=10_000_000,
                    optional=True,
                    tooltip="Optimizer step of the checkpoint, when checkpoint is step. For example 100.",
                ),
                io.Combo.Input(
                    "unfinished",
                    options=["wait", "latest", "block"],
                    default="wait",
                    optional=True,
                    tooltip="If the run is not finished. wait: until it is. latest: take the checkpoints it has. "
                    "block: give nothing, so that what follows is skipped.",
                ),
            ],
            outputs=[
                sockets.Stack.Output(display_name="stack"),
                io.String.Output(display_name="high"),
                io.String.Output(display_name="low"),
                io.String.Output(display_name="report"),
                *run_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, unfinished: str = "wait", **_: object) -> int:
        """What waits gets the end of the run, which does not change; the others look again."""
        return 0 if unfinished == "wait" else jobs.teller.revision

    @classmethod
    def execute(
        cls, job: Job, checkpoint: str = "best", step: int = 0, unfinished: str = "wait"
    ) -> io.NodeOutput:
        if unfinished == "wait":
            job = jobs.wait_for(job, cls.hidden.unique_id)
        elif job.state != "done" and (unfinished == "block" or not job.store.steps()):
            why = _nothing_yet(_progress(job), unfinished)
            node_text(cls.hidden.unique_id, why)
            # Who asked for block expects it: this node says why, and no other complains.
            nothing = ExecutionBlocker(None if unfinished == "block" else why)
            return io.NodeOutput(*[nothing] * len(cls.define_schema().outputs))
        node_id = cls.hidden.unique_id
        steps, verdict = hand_out(
            job, node_id, lambda verdict: _pick_steps(job, checkpoint, step, verdict)
        )
        files: dict[Role, str] = {
            role: lora_name(job.store.file(chosen, role)) for role, chosen in steps.items()
        }
        report = "\n".join(_report(job, checkpoint, steps, verdict, files))
        node_text(node_id, report)
        high = files.get("high_noise") or files.get("single", "")
        role, chosen = next(iter(steps.items()))
        stack = _stack(files, _trigger(job.store.file(chosen, role)))
        low = files.get("low_noise", "")
        return io.NodeOutput(stack, high, low, report, *run_values(job))


class TandemJobControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemJobControl",
            display_name="Tandem Job Control",
            category="Tandem/training",
            description="Pauses, resumes or stops a run in the background. It does so each time it is queued, and "
            "needs no other node. A stopped run is saved, and goes on when its trainer is queued again.",
            search_aliases=["pause training", "stop training", "resume training"],
            is_output_node=True,
            not_idempotent=True,
            inputs=[
                io.Combo.Input(
                    "action",
                    options=["pause", "resume", "stop"],
                    default="pause",
                    optional=True,
                    tooltip="pause: keep the run but give the models back until resume. stop: save and end it.",
                ),
                io.String.Input(
                    "name",
                    default="",
                    optional=True,
                    tooltip="Name of the run, for example mermaid_v1; empty for the one that runs.",
                ),
            ],
            outputs=[io.String.Output(display_name="status")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        return float("nan")

    @classmethod
    def execute(cls, action: str = "pause", name: str = "") -> io.NodeOutput:
        run = jobs.live_run(name)
        status = jobs.ask(run, action)
        node_text(cls.hidden.unique_id, status)
        return io.NodeOutput(status)


def _progress(job: Job) -> str:
    return f"{job.name} is {job.state}, step {job.step:,} of {job.plan.steps:,}"


def _nothing_yet(progress: str, unfinished: str) -> str:
    if unfinished == "block":
        return f"{progress}; unfinished is block, so nothing comes out yet. Queue this again later."
    return (
        f"{progress}; it has no checkpoint yet. Queue this again after step save_every of the plan."
    )


def _stack(files: Mapping[Role, str], trigger: str) -> LoraStack:
    """A pair is one row of two files; a lone file finds its expert by its metadata."""
    first, *others = files.values()
    return LoraStack(
        (Row(lora=first, lora_low=others[0] if others else None),), (trigger,) if trigger else ()
    )


def _trigger(path: Path) -> str:
    return str(tandem_metadata(read_metadata(path)).get("trigger", ""))


def _pick_steps(
    job: Job, checkpoint: str, step: int, verdict: Verdict | None
) -> Mapping[Role, int]:
    """The step of each expert's checkpoint."""
    steps = job.store.steps()
    if not steps:
        raise UserError(
            f"{job.name} has no checkpoint in {job.folder}.",
            "A run writes them there; they were deleted, or it has not come that far.",
            "Queue the trainer under another name, or restart ComfyUI to train this one again.",
        )
    if checkpoint == "best":
        return best_steps(job, verdict)
    if checkpoint == "step" and step not in steps:
        raise UserError(
            f"{job.name} has no checkpoint at step {step}.",
            f"There are checkpoints at {', '.join(map(str, steps))}.",
            "Choose one of them.",
        )
    return dict.fromkeys(job.plan.roles(), step if checkpoint == "step" else steps[-1])


def _report(
    job: Job,
    checkpoint: str,
    steps: Mapping[Role, int],
    verdict: Verdict | None,
    files: Mapping[Role, str],
) -> list[str]:
    """What it is and what the run says of it first: a node shows the first lines."""
    if len(set(steps.values())) == 1:
        headline = f"step {next(iter(steps.values()))} of {job.plan.steps}"
    else:
        each = [f"{step} ({role.replace('_', ' ')})" for role, step in steps.items()]
        headline = f"steps {' and '.join(each)} of {job.plan.steps}"
    # A run that is on, or was stopped: what is handed out is not its end.
    stands = "" if job.state == "done" else _progress(job)
    alpha = alpha_line(job.plan, event_lines(job.folder), steps)
    if verdict is not None:
        said = verdict.text()
    elif checkpoint == "best":
        said = "best is the last checkpoint so far: nothing tells a better one while the run is on"
    else:
        said = ""
    there = f"checkpoints: {', '.join(map(str, job.store.steps()))}"
    found = [f"found: {text}" for text in stored_findings(job.folder)]
    return [
        *filter(None, [headline, stands, said, alpha, loss_line(job.losses())]),
        *files.values(),
        there,
        *found,
    ]
