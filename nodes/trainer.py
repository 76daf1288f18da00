"""The node that trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..training.alpha_phases import alpha_line
from ..training.job import Job, checked_name
from ..training.plans.summary import plan_summary
from ..training.plots import loss_plot
from ..training.preview import can_preview
from ..training.preview_files import PREVIEWS, stored_previews_line
from ..training.prompts import filled_prompts, require_fillable
from ..training.records import event_lines
from ..training.watch import found_line, loss_line, stored_findings
from . import sockets
from .host import jobs
from .host.preview import PreviewWishes
from .host.queue_again import Workflow
from .host.results import publish, verdict_on
from .host.setup import check_setup
from .host.start import with_start

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE
    from PIL import Image

    from ..training.data.dataset import Dataset
    from ..training.plans.plan import TrainingPlan
    from ..training.seat import GiveBack
    from ..wan.lora.stack import LoraStack

MODES = ["background", "wait"]
GIVE_BACK = ["offload", "keep", "free"]


def _later_inputs() -> list[io.Input]:
    """In the order in which they came: sockets are never moved."""
    return [
        io.Combo.Input(
            "give_back",
            options=GIVE_BACK,
            default="offload",
            optional=True,
            tooltip="What leaves the GPU while a prompt runs. offload: LoRA and optimizer, which ComfyUI "
            "cannot move by itself; keep: nothing; free: the model too, for prompts that need all memory.",
        ),
        io.Int.Input(
            "preview_every",
            default=0,
            min=0,
            max=1_000_000,
            optional=True,
            tooltip="Steps between previews, for example 100; 0 makes none. A preview is a clip that begins "
            "like the dataset's first clip, 20 steps at cfg 3.5, saved beside the checkpoints.",
        ),
        io.Int.Input(
            "preview_clips",
            default=1,
            min=1,
            max=64,
            optional=True,
            tooltip="How many of the dataset's clips are previewed, for example 3: those that the plan holds "
            "out first. Each is 20 steps at cfg 3.5 more.",
        ),
        io.String.Input(
            "preview_prompts",
            default="",
            multiline=True,
            optional=True,
            tooltip="Each line is one more preview, which begins like the first previewed clip; {trigger} and "
            "STYLE_TOKEN become the trigger. For example: A man turns into a {trigger}.",
        ),
        sockets.Stack.Input(
            "start_from",
            optional=True,
            tooltip="A LoRA to go on from instead of a new one: one file for each expert, for example from "
            "Tandem LoRA Stack or an earlier run's Tandem Job Result. Its rank is the plan's, or smaller.",
        ),
    ]


class TandemTrainer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemTrainer",
            display_name="Tandem Trainer",
            category="Tandem/training",
            description="Trains a LoRA for each expert on the very models of this graph: no second copy of the "
            "weights: in the background while no prompt runs, or as part of the prompt. High noise runs first and "
            "makes layout and motion, low noise second and makes detail. A stopped run goes on when it is queued "
            "again; a finished one is not trained again.",
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
                    default="background",
                    optional=True,
                    tooltip="background: the node is done at once and training goes on whenever no prompt runs. "
                    "wait: the prompt goes on when the run is done; Cancel stops and saves.",
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
                *_later_inputs(),
            ],
            outputs=[
                sockets.Job.Output(display_name="job"),
                io.String.Output(display_name="status"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name: str | None, preview_prompts: str | None = None) -> bool | str:
        return sockets.first_error(
            lambda: name is None or checked_name(name),
            lambda: require_fillable(preview_prompts or ""),
        )

    @classmethod
    def fingerprint_inputs(
        cls, name: str | None = None, mode: str | None = "background", **_: object
    ) -> int:
        """A run that was stopped or failed is queued again, although nothing of its inputs has changed; in the
        background the status also says how far the run is by now."""
        if mode == "wait":
            return jobs.teller.unfinished_ends.get(name or "", 0)
        return jobs.teller.fingerprint(name or "")

    @classmethod
    def execute(
        cls,
        plan: TrainingPlan,
        dataset: Dataset,
        clip: CLIP,
        vae: VAE,
        name: str,
        mode: str = "background",
        model_high: ModelPatcher | None = None,
        model_low: ModelPatcher | None = None,
        clip_vision: ClipVisionModel | None = None,
        give_back: GiveBack = "offload",
        preview_every: int = 0,
        preview_clips: int = 1,
        preview_prompts: str = "",
        start_from: LoraStack | None = None,
    ) -> io.NodeOutput:
        previews = PreviewWishes(
            every=preview_every,
            clips=preview_clips,
            prompts=filled_prompts(preview_prompts, dataset.trigger),
        )
        setup = check_setup(
            plan,
            dataset,
            model_high=model_high,
            model_low=model_low,
            clip=clip,
            vae=vae,
            clip_vision=clip_vision,
        )
        setup = with_start(setup, start_from, name)
        hidden = cls.hidden
        kept = Workflow(prompt=hidden.prompt, node_id=hidden.unique_id, page=hidden.extra_pnginfo)
        job = jobs.start(setup, name, give_back=give_back, previews=previews, workflow=kept)
        headline = _headline(job)
        if job.state == "done":
            publish(job)
        elif mode == "wait":
            job = jobs.wait_for(job, cls.hidden.unique_id, tell=False)
            headline = f"{name} is trained: {job.step} steps."
        where = stored_previews_line(job.folder)
        if preview_every > setup.plan.steps:
            where = (
                f"no previews: preview_every is {preview_every:,}, and the plan has "
                f"{setup.plan.steps:,} steps"
            )
        elif job.state != "done" and preview_every and can_preview(setup.plan):
            where = f"previews: {job.folder / PREVIEWS}"
        verdict = verdict_on(job)
        # A node shows the first lines alone: what there is comes before what could be better.
        lines = [
            headline,
            verdict.text() if verdict else "",
            alpha_line(
                job.plan, event_lines(job.folder), dict.fromkeys(job.plan.roles(), job.step)
            ),
            loss_line(job.losses()),
            where,
            found_line(stored_findings(job.folder)),
            plan_summary(setup.plan, dataset),
            *setup.notes,
        ]
        status = "\n".join(filter(None, lines))
        picture = loss_plot(job.losses(), title=name, steps=job.plan.steps)
        return io.NodeOutput(job, status, ui=_preview(picture, cls) if job.step else None)


def _headline(job: Job) -> str:
    if job.state == "done":
        return f"{job.name} is trained already ({job.step} steps); nothing was done again."
    if job.state != "queued":
        resume = " Resume it to go on." if job.state == "paused" else ""
        return f"{job.name} is {job.state} in the background, step {job.step} of {job.plan.steps}.{resume}"
    begins = f"goes on from step {job.step}" if job.step else "begins"
    return f"{job.name} {begins} in the background when no prompt runs; the queue stays free."


def _preview(picture: Image.Image, cls: type[io.ComfyNode]) -> ui.PreviewImage:
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).unsqueeze(0)
    return ui.PreviewImage(pixels, cls=cls)
