"""A training run over the host's models: from a checked setup to checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...training.checkpoints import lora_file_name
from ...training.events import CheckpointSaved, Finding, VerdictGiven
from ...training.job import Identity, Job, checked_name, open_job
from ...training.loop import End, ExpertTrainer, build_trainers, train
from ...training.monitors.curves import curves_of, measured
from ...training.monitors.held_out import HeldOutLoss, divided, pick_held_out
from ...training.monitors.monitor import monitor_of
from ...training.monitors.verdict import verdict_of, write_verdict
from ...training.plots import loss_plot, monitor_plot, save_picture
from ...training.preview import Preview
from ...training.records import event_lines
from ...training.runner import Work
from ...training.samples import Samples
from ...training.schedule import require_repeats
from ...training.seat import GiveBack
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
from .preview import preview_of
from .setup import Setup


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
    )
    job = open_job(jobs_root(), identity)
    _refuse_foreign_files(job)
    return job


def work_of(
    setup: Setup, job: Job, *, give_back: GiveBack = "offload", preview_every: int = 0
) -> Work:
    """What the training thread does for this job: encodes what is not in the cache, trains to the end of the
    plan, and saves on the way. It holds the models until it is dropped."""

    def work(turns: Turns) -> End:
        for note in setup.notes:
            job.logger.warning("%s: %s", job.name, note)
            job.listen(Finding(step=job.step, kind="note", text=note))
        cache = open_cache()
        with encoded_dataset(setup, cache, turns=turns, listen=job.listen) as clips:
            preview = preview_of(setup, job, clips, cache, turns, preview_every)
            with gradients():
                end = _train(setup, job, clips, turns, give_back, preview)
        _draw(job)
        _judge(job)
        return end

    return work


def publish(job: Job) -> None:
    """The newest checkpoint under the run's own name in the first loras folder, if it is not there already."""
    step = job.store.steps()[-1]
    if {_published_step(job, role) for role in job.plan.roles()} != {step}:
        job.store.publish(step, job.plan.roles(), publish_folder())


def _published_step(job: Job, role: Role) -> object:
    path = publish_folder() / lora_file_name(job.name, role)
    return tandem_metadata(read_metadata(path)).get("step") if path.is_file() else None


def _draw(job: Job) -> None:
    """Pictures of the losses and of what the monitors measured, beside the checkpoints."""
    title, steps = job.name, job.plan.steps
    save_picture(loss_plot(job.losses(), title=title, steps=steps), job.plot_file)
    curves = curves_of(measured(event_lines(job.folder)))
    save_picture(
        monitor_plot(curves, title=title, steps=steps), job.plot_file.with_name("monitors.png")
    )


def _judge(job: Job) -> None:
    """Which checkpoints to keep: in the log, in the events and in `verdict.json`."""
    verdict = verdict_of(job.plan, event_lines(job.folder))
    if verdict is None:
        return
    write_verdict(job.folder, verdict)
    text = verdict.text()
    job.logger.info("%s: %s", job.name, text)
    keep = {role: kept.step for role, kept in verdict.keep.items()}
    job.listen(VerdictGiven(step=verdict.step, keep=keep, text=text))


def _held_out_places(setup: Setup) -> tuple[int, ...]:
    """The clips that are not trained on: none of those for regularisation, which nobody wants learnt."""
    teaching = [i for i, clip in enumerate(setup.dataset.clips) if not clip.regularisation]
    files = [setup.dataset.clips[i].digest for i in teaching]
    return tuple(teaching[i] for i in pick_held_out(files, setup.plan.held_out, setup.plan.seed))


def _train(
    setup: Setup,
    job: Job,
    clips: Samples,
    turns: Turns,
    give_back: GiveBack,
    preview: Preview | None,
) -> End:
    shown, held = divided(clips, _held_out_places(setup))
    trainers = build_trainers(setup.plan, _experts(setup, clips), shown)
    job.step = job.store.resume(trainers)
    metadata = job.metadata(setup.dataset.trigger)

    def save(step: int, trainers: Mapping[Role, ExpertTrainer]) -> None:
        if step > 0:
            job.store.save(step, trainers, metadata)
            publish(job)
            files = {role: str(job.store.file(step, role)) for role in setup.plan.roles()}
            job.listen(CheckpointSaved(step=step, files=files))

    return train(
        setup.plan,
        trainers,
        save=save,
        listen=job.listen,
        first_step=job.step,
        turns=turns,
        give_back=give_back,
        preview=preview,
        monitor=monitor_of(setup.plan, event_lines(job.folder), job.step),
        held_out=HeldOutLoss(setup.plan, held, shown) if len(held) else None,
    )


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
