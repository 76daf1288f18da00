"""A training run over the host's models: from a checked setup to checkpoints."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from ...training.checkpoints import lora_file_name
from ...training.events import CheckpointSaved, Finding
from ...training.expert_trainer import ExpertTrainer, build_trainers
from ...training.job import Identity, Job, checked_name, open_job
from ...training.loop import End, train
from ...training.monitors.effective_rank import effective_ranks
from ...training.monitors.held_out import HeldOutLoss, Part, divided
from ...training.monitors.monitor import monitor_of
from ...training.pictures import save_pictures
from ...training.plans.plan import TrainingPlan
from ...training.plans.trained import held_out_places
from ...training.preview import Preview
from ...training.records import event_lines
from ...training.runner import Work
from ...training.samples import Samples
from ...training.schedule import require_repeats
from ...training.seat import GiveBack
from ...training.start import write_start
from ...training.tensorboard import on_the_board
from ...training.turns import Turns
from ...wan.errors import UserError
from ...wan.expert import Expert
from ...wan.families import Role, sigma_range
from ...wan.lora.files import read_metadata, tandem_metadata
from . import wan_models
from .borders import gradients
from .cache_keys import text_encoder_digest
from .encode import encoded_dataset
from .expert import HostExpert
from .places import jobs_root, open_cache, publish_folder
from .preview import NO_PREVIEWS, PreviewWishes, preview_of
from .radial_training import radial_metadata
from .results import settle
from .setup import Setup
from .start import start_factors


def open_run(setup: Setup, name: str) -> Job:
    """The job of this setup: new, cut off, or finished long ago. Raises `UserError` where none can be made of it."""
    require_repeats([clip.repeats for clip in setup.dataset.clips])
    identity = Identity(
        name=checked_name(name),
        plan=setup.plan,
        dataset=setup.dataset.digest(),
        base=tuple((role, wan_models.model_digest(model)) for role, model in setup.models.items()),
        vae=wan_models.patched_digest(setup.vae.patcher),
        text_encoder=text_encoder_digest(setup.clip, ["", setup.dataset.trigger]),
        clip_vision=wan_models.patched_digest(setup.clip_vision.patcher)
        if setup.clip_vision
        else "",
        start=setup.start.digest() if setup.start else "",
    )
    job = open_job(jobs_root(), identity)
    _refuse_foreign_files(job)
    if setup.start:
        write_start(job.folder, setup.start)
    return job


def work_of(
    setup: Setup,
    job: Job,
    *,
    give_back: GiveBack = "offload",
    previews: PreviewWishes = NO_PREVIEWS,
) -> Work:
    """What the training thread does for this job: encodes what is not in the cache, trains to the end of the
    plan, and saves on the way. It holds the models until it is dropped."""

    def work(turns: Turns) -> End:
        for note in setup.notes:
            job.logger.warning("%s: %s", job.name, note)
            job.listen(Finding(step=job.step, kind="note", text=note))
        cache = open_cache()
        with encoded_dataset(setup, cache, turns=turns, listen=job.listen) as clips:
            held_out = _held_out_places(setup)
            preview = preview_of(setup, job, clips, cache, turns, previews, held_out=held_out)
            with gradients():
                end = _train(setup, job, clips, turns, give_back, preview)
        settle(job, over=True)
        save_pictures(job)
        return end

    return work


def _held_out_places(setup: Setup) -> tuple[int, ...]:
    """The clips that are not trained on."""
    return held_out_places(setup.plan, setup.dataset)


def _taught_places(setup: Setup, held: Collection[int]) -> list[int]:
    """What the loss on clips held out is set beside: the clips of the same kind that are trained on."""
    clips = setup.dataset.clips
    return [i for i, clip in enumerate(clips) if not clip.regularisation and i not in held]


def _train(
    setup: Setup,
    job: Job,
    clips: Samples,
    turns: Turns,
    give_back: GiveBack,
    preview: Preview | None,
) -> End:
    held_places = _held_out_places(setup)
    shown, held = divided(clips, held_places)
    taught = Part(clips, _taught_places(setup, held_places))
    trainers = _trainers(setup, job, clips, shown)
    metadata = job.metadata(setup.dataset.trigger) | _started_from(setup)
    metadata |= radial_metadata(setup.models)

    def save(step: int, trainers: Mapping[Role, ExpertTrainer]) -> None:
        if step > 0:
            job.store.save(step, trainers, metadata)
            files = {role: str(job.store.file(step, role)) for role in setup.plan.roles()}
            ranks = effective_ranks(trainers)
            job.listen(CheckpointSaved(step=step, files=files, effective_rank=ranks))
            settle(job)

    with on_the_board(job):
        return train(
            setup.plan,
            trainers,
            save=save,
            listen=job.listen,
            first_step=job.step,
            turns=turns,
            give_back=given_back(setup.plan, give_back),
            preview=preview,
            monitor=monitor_of(setup.plan, event_lines(job.folder), job.step),
            held_out=HeldOutLoss(setup.plan, held, taught) if len(held) else None,
        )


def given_back(plan: TrainingPlan, wished: GiveBack) -> GiveBack:
    """What leaves the device when it is somebody else's turn. The host cannot count a model of which some blocks are
    there out of its own order, so one with swapped blocks leaves whole."""
    return "free" if plan.swap_blocks else wished


def _trainers(setup: Setup, job: Job, clips: Samples, shown: Samples) -> dict[Role, ExpertTrainer]:
    """As the newest checkpoint has them; without one, as the LoRAs have them that the run goes on from."""
    experts = _experts(setup, clips)
    trainers = build_trainers(setup.plan, experts, shown)
    job.step = job.store.resume(trainers)
    job.store.clear_unpublished(job.plan.roles(), publish_folder())
    settle(job)  # a killed run may have left the published pair half old
    start = setup.start
    if job.step or start is None:
        return trainers
    return build_trainers(
        setup.plan, experts, shown, lambda role: start_factors(start, role, setup.models[role])
    )


def _started_from(setup: Setup) -> dict[str, object]:
    return {"started_from": setup.start.metadata()} if setup.start else {}


def _experts(setup: Setup, clips: Samples) -> dict[Role, Expert]:
    plan = setup.plan
    largest = (plan.batch, *max(clips.shapes, key=math.prod))
    return {
        role: HostExpert(
            model,
            role,
            sigma_range(role, plan.boundary),
            checkpoint_blocks=plan.checkpoint_blocks,
            batch_shape=largest,
            swap_blocks=plan.swap_blocks,
            offload_activations=plan.offload_activations,
        )
        for role, model in setup.models.items()
    }


def _refuse_foreign_files(job: Job) -> None:
    for role in job.plan.roles():
        path = publish_folder() / lora_file_name(job.name, role)
        if not path.is_file():
            continue
        if tandem_metadata(read_metadata(path)).get("pair_id") != job.id:
            raise UserError(
                f"{path.name} is already in {path.parent} and does not come from this run.",
                "The run would put its own result there.",
                "Choose another name for the run, or move that file away (and the folder of an "
                f"earlier run, {job.folder}, with it).",
            )
