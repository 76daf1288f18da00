"""A training run inside a prompt: from a checked setup to a finished job."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from comfy.model_management import InterruptProcessingException

from ...training.checkpoints import lora_file_name
from ...training.events import CheckpointSaved
from ...training.job import Identity, Job, checked_name, open_job
from ...training.loop import End, ExpertTrainer, build_trainers, train
from ...training.samples import EncodedClip
from ...wan.errors import UserError
from ...wan.expert import Expert
from ...wan.families import Role, sigma_range
from ...wan.lora_files import read_metadata, tandem_metadata
from . import wan_models
from .borders import gradients
from .encode import encode_dataset
from .expert import HostExpert
from .places import jobs_root, publish_folder
from .progress import TrainingProgress, counting, node_text
from .setup import Setup

logger = logging.getLogger("tandem.training")


def open_run(setup: Setup, name: str) -> Job:
    """The job of this setup: new, cut off, or finished long ago."""
    identity = Identity(
        name=checked_name(name),
        plan=setup.plan,
        dataset=setup.dataset.digest(),
        base=tuple((role, wan_models.model_digest(model)) for role, model in setup.models.items()),
        vae=wan_models.module_digest(setup.vae.first_stage_model),
        text_encoder=wan_models.module_digest(setup.clip.cond_stage_model),
        clip_vision=wan_models.module_digest(setup.clip_vision.model) if setup.clip_vision else "",
    )
    job = open_job(jobs_root(), identity)
    _refuse_foreign_files(job)
    return job


def run_in_prompt(setup: Setup, job: Job, node_id: str | None) -> None:
    """Trains to the end of the plan; the host's Cancel stops, saves, and is passed on."""
    for note in setup.notes:
        logger.warning("%s: %s", job.name, note)
    clips = encode_dataset(setup, on_clip=counting("encoding clip", node_id))
    job.set_state("running")
    try:
        with gradients():
            end = _train(setup, job, clips, node_id)
    except BaseException as error:
        job.set_state("failed", str(error))
        raise
    job.set_state("stopped" if end == "stopped" else "done")
    if end != "done":
        saved = (
            f"{end} at step {job.step} and saved" if job.step else "stopped before the first step"
        )
        node_text(node_id, f"{saved}; queue it again and it goes on")
        raise InterruptProcessingException()


def publish(job: Job) -> None:
    """The newest checkpoint under the run's own name in the first loras folder, if it is not there already."""
    step = job.store.steps()[-1]
    if {_published_step(job, role) for role in job.plan.roles()} != {step}:
        job.store.publish(step, job.plan.roles(), publish_folder())


def _published_step(job: Job, role: Role) -> object:
    path = publish_folder() / lora_file_name(job.name, role)
    return tandem_metadata(read_metadata(path)).get("step") if path.is_file() else None


def _train(setup: Setup, job: Job, clips: list[EncodedClip], node_id: str | None) -> End:
    plan = setup.plan
    largest = (plan.batch, *max((tuple(clip.x0.shape) for clip in clips), key=math.prod))
    experts: dict[Role, Expert] = {
        role: HostExpert(
            model,
            role,
            sigma_range(role, plan.boundary),
            checkpoint_blocks=plan.checkpoint_blocks,
            batch_shape=largest,
        )
        for role, model in setup.models.items()
    }
    trainers = build_trainers(plan, experts, clips)
    job.step = job.store.resume(trainers)
    progress = TrainingProgress(node_id, job)
    metadata = job.metadata(setup.dataset.trigger)

    def save(step: int, trainers: Mapping[Role, ExpertTrainer]) -> None:
        if step > 0:
            job.store.save(step, trainers, metadata)
            publish(job)
            files = {role: str(job.store.file(step, role)) for role in plan.roles()}
            progress(CheckpointSaved(step=step, files=files))

    return train(
        plan,
        trainers,
        save=save,
        listen=progress,
        first_step=job.step,
        stop_signals=(InterruptProcessingException,),
    )


def _refuse_foreign_files(job: Job) -> None:
    for role in job.plan.roles():
        path = publish_folder() / lora_file_name(job.name, role)
        if not path.is_file():
            continue
        if tandem_metadata(read_metadata(path)).get("pair_id") != job.identity.job_id():
            raise UserError(
                f"{path.name} is already in {path.parent} and does not come from this run.",
                "The run would put its own result there.",
                "Choose another name for the run, or move that file away (and the folder of an "
                f"earlier run, {job.folder}, with it).",
            )
