"""A training run inside a prompt: from sockets to a finished job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comfy.model_management import InterruptProcessingException

from ...training.budget import plan_warnings
from ...training.checkpoints import lora_file_name
from ...training.dataset import Dataset
from ...training.job import Identity, Job, checked_name, open_job
from ...training.loop import build_trainers, train
from ...training.optimizers import AVAILABLE, STAND_INS
from ...training.plan import TrainingPlan
from ...training.samples import EncodedClip
from ...wan.errors import UserError
from ...wan.families import BOUNDARIES, ROLES, Role, resolve_family, sigma_range
from ...wan.lora_files import read_metadata, tandem_metadata
from . import wan_models
from .borders import gradients
from .encode import encode_dataset, encode_text, require_text_width
from .expert import HostExpert
from .places import jobs_root, publish_folder
from .progress import Stages, TrainingProgress

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the sockets of the trainer hold, checked and resolved."""

    plan: TrainingPlan
    dataset: Dataset
    models: Mapping[Role, ModelPatcher]
    clip: CLIP
    vae: VAE
    notes: tuple[str, ...]
    """What was resolved differently from the plan."""


def check_setup(
    plan: TrainingPlan,
    dataset: Dataset,
    *,
    model_high: ModelPatcher | None,
    model_low: ModelPatcher | None,
    clip: CLIP,
    vae: VAE,
) -> Setup:
    """Everything that can be wrong before a step is made, with an error for each."""
    models = _models_by_role(model_high, model_low)
    wan_models.require_pair(models)
    first = next(iter(models.values()))
    wan_models.require_vae(vae, first)
    require_text_width(encode_text(clip, dataset.clips[0].caption), wan_models.text_width(first))
    if plan.preset == "length extension":
        raise UserError(
            "The plan's preset is length extension.",
            "It needs radial attention and a loss at two lengths, which this version has not.",
            "Choose general video, or wait for the version that has them.",
        )
    if plan.optimizer.name not in AVAILABLE:
        raise UserError(
            f"optimizer.name is {plan.optimizer.name!r}.",
            f"It can be {', '.join(AVAILABLE)}.",
            "Change it in the plan.",
        )
    resolved, notes = _resolve(plan, models)
    return Setup(plan=resolved, dataset=dataset, models=models, clip=clip, vae=vae, notes=notes)


def open_run(setup: Setup, name: str) -> Job:
    """The job of this setup: new, cut off, or finished long ago."""
    identity = Identity(
        name=checked_name(name),
        plan=setup.plan,
        dataset=setup.dataset.digest(),
        base=tuple((role, wan_models.model_digest(model)) for role, model in setup.models.items()),
        vae=wan_models.module_digest(setup.vae.first_stage_model),
        text_encoder=wan_models.module_digest(setup.clip.cond_stage_model),
    )
    job = open_job(jobs_root(), identity)
    _refuse_foreign_files(job)
    return job


def run_in_prompt(setup: Setup, job: Job, node_id: str | None) -> None:
    """Trains to the end of the plan; the host's Cancel stops, saves, and is passed on."""
    stages = Stages(node_id)
    task = wan_models.model_task(next(iter(setup.models.values())))
    clips = encode_dataset(
        setup.dataset,
        setup.clip,
        setup.vae,
        next(iter(setup.models.values())),
        task=task,
        on_clip=stages.counting("encoding clip"),
    )
    job.set_state("running")
    try:
        with gradients():
            end = _train(setup, job, clips, TrainingProgress(node_id, job))
    except BaseException as error:
        job.set_state("failed", str(error))
        raise
    job.set_state("done" if end == "done" else "stopped")
    if end == "stopped":
        raise InterruptProcessingException()


def _train(setup: Setup, job: Job, clips: list[EncodedClip], progress: TrainingProgress) -> str:
    plan = setup.plan
    experts = {
        role: HostExpert(
            model, role, sigma_range(role, plan.boundary), checkpoint_blocks=plan.checkpoint_blocks
        )
        for role, model in setup.models.items()
    }
    trainers = build_trainers(plan, experts, clips)
    first_step = job.store.resume(trainers)
    metadata = job.metadata(setup.dataset.trigger)

    def save(step: int, states: Mapping) -> None:
        if step > 0:
            job.store.save(step, states, metadata)
            job.store.publish(step, plan.roles(), publish_folder())

    job.step = first_step
    return train(
        plan,
        trainers,
        save=save,
        listen=progress,
        first_step=first_step,
        stop_signals=(InterruptProcessingException,),
    )


def _models_by_role(
    model_high: ModelPatcher | None, model_low: ModelPatcher | None
) -> dict[Role, ModelPatcher]:
    sockets = {"model_high": model_high, "model_low": model_low}
    given = {name: model for name, model in sockets.items() if model is not None}
    if not given:
        raise UserError(
            "Neither model_high nor model_low is connected.",
            "The trainer takes one MODEL (Wan 2.1, 2.2 5B) or two (the experts of Wan 2.2 A14B).",
            "Connect Load Diffusion Model to model_high, and the low-noise file to model_low.",
        )
    for name, model in given.items():
        wan_models.require_wan(model, name)
    # The plan's family is what the preset assumed; what is connected decides.
    family = resolve_family("auto", len(given))
    if len(given) == 2:
        return {"high_noise": model_high, "low_noise": model_low}
    return {ROLES[family][0]: next(iter(given.values()))}


def _resolve(
    plan: TrainingPlan, models: Mapping[Role, ModelPatcher]
) -> tuple[TrainingPlan, tuple[str, ...]]:
    notes = []
    family = resolve_family("auto", len(models))
    task = wan_models.model_task(next(iter(models.values())))
    if family != plan.family:
        notes.append(
            f"The plan was made for {plan.family}; {len(models)} MODEL is connected: {family}."
        )
    if task != plan.task:
        notes.append(
            f"The plan was made for {plan.task}; the model is {task}: boundary {BOUNDARIES[task]:g}."
        )
    boundary = BOUNDARIES[task] if task != plan.task else plan.boundary
    if stand_in := STAND_INS.get(plan.optimizer.name):
        notes.append(stand_in)
    if patched := [role for role, model in models.items() if model.patches]:
        notes.append(
            f"{' and '.join(patched)} came with LoRA patches, which stay in while training."
        )
    return replace(plan, family=family, task=task, boundary=boundary), tuple(notes)


def _refuse_foreign_files(job: Job) -> None:
    for role in job.plan.roles():
        path = publish_folder() / lora_file_name(job.name, role)
        if (
            path.is_file()
            and tandem_metadata(read_metadata(path)).get("pair_id") != job.identity.job_id()
        ):
            raise UserError(
                f"{path.name} is already in {path.parent} and does not come from this run.",
                "The run would put its own result there.",
                "Choose another name for the run, or move that file.",
            )


def run_warnings(setup: Setup) -> list[str]:
    """What the trainer says before it starts."""
    return [*setup.notes, *plan_warnings(setup.plan, len(setup.dataset.clips))]
