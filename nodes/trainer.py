"""The nodes that train and that hand out what was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..training.budget import plan_summary
from ..training.job import Job, checked_name
from ..training.plots import loss_plot
from ..wan.errors import UserError
from ..wan.lora_files import read_metadata, tandem_metadata
from ..wan.lora_stack import LoraStack, Row
from . import sockets
from .host.places import lora_name
from .host.progress import loss_line, node_text
from .host.run import open_run, publish, run_in_prompt
from .host.setup import check_setup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from comfy.clip_vision import ClipVisionModel
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE
    from PIL import Image

    from ..training.dataset import Dataset
    from ..training.plan import TrainingPlan
    from ..wan.families import Role

MODES = ["wait", "background"]


class TandemTrainer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemTrainer",
            display_name="Tandem Trainer",
            category="Tandem/training",
            description="Trains a LoRA for each expert on the very models of this graph: no second copy of the "
            "weights. High noise runs first and makes layout and motion, low noise second and makes detail. Cancel "
            "stops and saves; queued again, the run goes on, and a finished run is not trained again.",
            search_aliases=["train lora", "wan lora trainer", "finetune video"],
            is_output_node=True,
            inputs=[
                sockets.Plan.Input("plan", tooltip="From Tandem Auto Parameters."),
                sockets.Dataset.Input("dataset", tooltip="From Tandem Dataset, with captions."),
                io.Clip.Input("clip", tooltip="The model's text encoder (umt5)."),
                io.Vae.Input("vae", tooltip="The model's VAE: wan_2.1_vae for 2.1 and 2.2 A14B."),
                io.String.Input(
                    "name",
                    default="my_lora",
                    tooltip="Name of the run and of its files, NAME_high_noise and NAME_low_noise. Letters, digits, "
                    "dots, dashes, underscores; for example mermaid_v1.",
                ),
                io.Combo.Input(
                    "mode",
                    options=MODES,
                    default="wait",
                    optional=True,
                    tooltip="wait: the run is part of this prompt. background is not there yet.",
                ),
                io.Model.Input(
                    "model_high",
                    optional=True,
                    tooltip=sockets.HIGH_TIP,
                ),
                io.Model.Input("model_low", optional=True, tooltip=sockets.LOW_TIP),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Only Wan 2.1's image-to-video models use it; 2.2 does not.",
                ),
            ],
            outputs=[
                sockets.Job.Output(display_name="job"),
                io.String.Output(display_name="status"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name: str | None, mode: str | None = "wait") -> bool | str:
        return sockets.first_error(
            lambda: name is None or checked_name(name), lambda: mode is None or _require_wait(mode)
        )

    @classmethod
    def execute(
        cls,
        plan: TrainingPlan,
        dataset: Dataset,
        clip: CLIP,
        vae: VAE,
        name: str,
        mode: str = "wait",
        model_high: ModelPatcher | None = None,
        model_low: ModelPatcher | None = None,
        clip_vision: ClipVisionModel | None = None,
    ) -> io.NodeOutput:
        _require_wait(mode)
        setup = check_setup(
            plan,
            dataset,
            model_high=model_high,
            model_low=model_low,
            clip=clip,
            vae=vae,
            clip_vision=clip_vision,
        )
        job = open_run(setup, name)
        if job.state == "done":
            publish(job)
            headline = f"{name} is trained already ({job.step} steps); nothing was done again."
        else:
            run_in_prompt(setup, job, cls.hidden.unique_id)
            headline = f"{name} is trained: {job.step} steps."
        picture = loss_plot(job.losses(), title=name, steps=job.plan.steps)
        _save_plot(job.folder / "loss.png", picture)
        summary = plan_summary(setup.plan, len(dataset.clips))
        status = "\n".join([headline, loss_line(job.losses()), summary, *setup.notes])
        node_text(cls.hidden.unique_id, "\n".join(status.splitlines()[:2]))
        return io.NodeOutput(job, status, ui=_preview(picture, cls))


class TandemJobResult(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemJobResult",
            display_name="Tandem Job Result",
            category="Tandem/training",
            description="A run's LoRA pair as a stack, and the names of its files. best is the last checkpoint until "
            "a held-out loss can tell better, and the report says so.",
            search_aliases=["trained lora", "checkpoint", "training result"],
            inputs=[
                sockets.Job.Input("job", tooltip="From Tandem Trainer."),
                io.Combo.Input(
                    "checkpoint",
                    options=["best", "last", "step"],
                    default="best",
                    optional=True,
                    tooltip="Which checkpoint: best, last, or the one at `step`. For example best.",
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
                    tooltip="If the run is not finished: wait for it, take the latest checkpoint, or block.",
                ),
            ],
            outputs=[
                sockets.Stack.Output(display_name="stack"),
                io.String.Output(display_name="high"),
                io.String.Output(display_name="low"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, job: Job, checkpoint: str = "best", step: int = 0, unfinished: str = "wait"
    ) -> io.NodeOutput:
        # A job of mode `wait` is over when it arrives here, so `unfinished` has nothing to decide yet.
        del unfinished
        chosen = _pick_step(job, checkpoint, step)
        paths: dict[Role, Path] = {role: job.store.file(chosen, role) for role in job.plan.roles()}
        files: dict[Role, str] = {role: lora_name(path) for role, path in paths.items()}
        lines = [
            f"step {chosen} of {job.plan.steps} ({', '.join(map(str, job.store.steps()))} are there)"
        ]
        if checkpoint == "best":
            lines.append(
                "best is the last checkpoint: there is no held-out loss to tell a better one"
            )
        report = "\n".join([*lines, *files.values()])
        node_text(cls.hidden.unique_id, report)
        high = files.get("high_noise") or files.get("single", "")
        stack = _stack(files, _trigger(next(iter(paths.values()))))
        return io.NodeOutput(stack, high, files.get("low_noise", ""), report)


def _stack(files: Mapping[Role, str], trigger: str) -> LoraStack:
    """A pair is one row of two files; a lone file finds its expert by its metadata."""
    first, *others = files.values()
    return LoraStack(
        (Row(lora=first, lora_low=others[0] if others else None),), (trigger,) if trigger else ()
    )


def _trigger(path: Path) -> str:
    return str(tandem_metadata(read_metadata(path)).get("trigger", ""))


def _require_wait(mode: str) -> None:
    if mode != "wait":
        raise UserError(
            f"mode is {mode}.",
            "It can be wait; the background run is not there yet.",
            "Set mode to wait.",
        )


def _pick_step(job: Job, checkpoint: str, step: int) -> int:
    steps = job.store.steps()
    if not steps:
        raise UserError(
            f"{job.name} has no checkpoint in {job.folder}.",
            "A run writes them there; they were deleted, or it has not come that far.",
            "Queue the trainer under another name, or restart ComfyUI to train this one again.",
        )
    if checkpoint != "step":
        return steps[-1]
    if step not in steps:
        raise UserError(
            f"{job.name} has no checkpoint at step {step}.",
            f"There are checkpoints at {', '.join(map(str, steps))}.",
            "Choose one of them.",
        )
    return step


def _save_plot(path: Path, picture: Image.Image) -> None:
    beside = path.with_name(f".{path.name}")
    picture.save(beside, format="PNG")
    beside.replace(path)


def _preview(picture: Image.Image, cls: type[io.ComfyNode]) -> ui.PreviewImage:
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).unsqueeze(0)
    return ui.PreviewImage(pixels, cls=cls)
