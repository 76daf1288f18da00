"""What the trainer's sockets hold: checked, resolved, and said in words before a step is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ...radial_attention.grid import TokenGrid
from ...training.data.dataset import TRIGGER_SLOT, Dataset, unfilled_captions
from ...training.layer_settings import require_layers
from ...training.optimizers.build import optimizer_notes, require_optimizer
from ...training.plans.limits import require_allowed
from ...training.plans.plan import TrainingPlan
from ...training.start import RunStart
from ...wan.errors import UserError
from ...wan.families import A14B, AUTO, BOUNDARIES, SINGLE, Role, Task, resolve_family
from ...wan.shapes import PIXELS_PER_TOKEN, latent_size
from . import wan_models
from .block_swap import require_swappable
from .cache_keys import TextNames
from .encode import encode_text, require_text_width
from .places import open_cache
from .radial_training import radial_notes, require_trainable_backend

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE


TOKEN_5B_PX = 32
"""Wan 2.2 5B: cells of 16 x 16 pixels, 2 x 2 of them a token."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that a run needs."""

    plan: TrainingPlan
    dataset: Dataset
    models: Mapping[Role, ModelPatcher]
    clip: CLIP
    vae: VAE
    clip_vision: ClipVisionModel | None
    task: Task
    notes: tuple[str, ...]
    """What was resolved differently from the plan, and what a person should know first."""
    clean_start: bool = False
    """Whether the first latent frame of every clip is given to the network clean: Wan 2.2 5B as image-to-video."""
    start: RunStart | None = None
    """The LoRAs that the run goes on from."""

    @property
    def any_model(self) -> ModelPatcher:
        """One of the models: what all of them share (latent format, text width) is read off it."""
        return next(iter(self.models.values()))


def check_setup(
    plan: TrainingPlan,
    dataset: Dataset,
    *,
    model_high: ModelPatcher | None,
    model_low: ModelPatcher | None,
    clip: CLIP,
    vae: VAE,
    clip_vision: ClipVisionModel | None = None,
) -> Setup:
    """Everything that can be wrong before a step is made, with an error for each."""
    require_allowed(plan, dataset)
    # Who asks for one of two experts says by it that there are two.
    family = A14B if plan.family == AUTO and plan.train != "both" else plan.family
    models = models_by_role(family, model_high, model_low)
    wan_models.require_still_weights(models)
    for role, model in models.items():
        wan_models.require_trainable(model, f"model ({role})")
        require_swappable(model, plan.swap_blocks)
    wan_models.require_pair(models)
    require_trainable_backend(models)
    first = next(iter(models.values()))
    wan_models.require_vae(vae, first)
    wan_models.require_clip_vision(clip_vision, first)
    _require_trainable(plan, dataset)
    models = _trained(plan, models)
    resolved, notes = _resolve(plan, models)
    for role in resolved.roles():
        require_layers(resolved, role, wan_models.linear_layers(models[role].model.diffusion_model))
    # Last, for it may load the text encoder.
    require_text_width(_first_context(clip, dataset), wan_models.text_width(first))
    clean_start = wan_models.takes_clean_frames(first) and resolved.task == "i2v"
    return Setup(
        plan=resolved,
        dataset=dataset,
        models=models,
        clip=clip,
        vae=vae,
        clip_vision=clip_vision if wan_models.takes_clip_vision(first) else None,
        task=wan_models.model_task(first),
        notes=(
            *notes,
            *_dataset_notes(dataset, wan_models.model_task(first), models),
            *_size_notes(dataset, first),
            *radial_notes(models, _grids(dataset, first)),
        ),
        clean_start=clean_start,
    )


def models_by_role(
    choice: str, model_high: ModelPatcher | None, model_low: ModelPatcher | None
) -> dict[Role, ModelPatcher]:
    """Which expert each connected MODEL is. A family chosen by hand is kept: a lone A14B expert is
    the one of its socket."""
    experts: dict[Role, ModelPatcher | None] = {"high_noise": model_high, "low_noise": model_low}
    given: dict[Role, ModelPatcher] = {r: m for r, m in experts.items() if m is not None}
    if not given:
        raise UserError(
            "Neither model_high nor model_low is connected.",
            "One MODEL (Wan 2.1, 2.2 5B, or a lone expert) or two (the experts of Wan 2.2 A14B).",
            "Connect Load Diffusion Model to model_high, and the low-noise file to model_low.",
        )
    for role, model in given.items():
        wan_models.require_wan(model, f"model_{role.split('_')[0]}")
    if resolve_family(choice, len(given)) == A14B:
        return given
    return {"single": next(iter(given.values()))}


def lone_low_notes(choice: str, model_high: ModelPatcher | None) -> tuple[str, ...]:
    """What to know when model_low alone is connected and nobody has said what it is; `choice` is the family."""
    if model_high is not None or choice != AUTO:
        return ()
    return (
        "Only model_low is connected, and family auto takes it as a single model: the strength `high` of each row "
        f"counts. For the lone low-noise expert of Wan 2.2 set family to {A14B}.",
    )


def _trained(plan: TrainingPlan, models: dict[Role, ModelPatcher]) -> dict[Role, ModelPatcher]:
    """Of the connected experts those that the plan trains."""
    roles = ("single", f"{plan.train}_noise")
    trained: dict[Role, ModelPatcher] = {
        role: model for role, model in models.items() if plan.train == "both" or role in roles
    }
    if not trained:
        other = "low" if plan.train == "high" else "high"
        raise UserError(
            f"The plan trains the {plan.train}-noise expert, and only model_{other} is connected.",
            "The experts that the plan trains are connected, each to its own socket.",
            f"Connect the {plan.train}-noise model to model_{plan.train}, or set train on the plan to {other}.",
        )
    return trained


def _first_context(clip: CLIP, dataset: Dataset) -> torch.Tensor:
    """A caption's embedding; from an earlier run's cache if it is there, so that no model is loaded for it."""
    caption = dataset.clips[0].caption
    known = open_cache().verified(TextNames(clip)(caption))
    return encode_text(clip, caption) if known is None else known


def _require_trainable(plan: TrainingPlan, dataset: Dataset) -> None:
    if plan.preset == "length extension":
        raise UserError(
            "The plan's preset is length extension.",
            "It needs radial attention and a loss at two lengths, which this version has not.",
            "Choose general video, or wait for the version that has them.",
        )
    require_optimizer(plan.optimizer.name, plan.lora.dtype)
    if waiting := unfilled_captions(dataset):
        raise UserError(
            f"The captions of {', '.join(waiting[:5])} still contain {TRIGGER_SLOT}.",
            "Every placeholder is filled before a run: the trigger is a short plain word.",
            "Set trigger on the dataset or on the caption template.",
        )


def _resolve(
    plan: TrainingPlan, models: Mapping[Role, ModelPatcher]
) -> tuple[TrainingPlan, list[str]]:
    notes = []
    family = SINGLE if "single" in models else A14B
    first = next(iter(models.values()))
    own = wan_models.model_task(first)
    task: str = own
    train = "both" if len(models) == 2 or family != A14B else next(iter(models)).split("_")[0]
    if "single" in models:
        notes.append(
            "One model is connected: it is trained over all noise levels, with the rate of the "
            f"expert that leads. For a lone expert of Wan 2.2, set family to {A14B} on the plan."
        )
    if train != "both":
        notes.append(
            f"Only the {train}-noise expert is {'connected' if plan.train == 'both' else 'trained'}: it takes all "
            f"{plan.steps} steps."
        )
    boundary = plan.boundary
    if wan_models.takes_clean_frames(first):
        task = plan.task
        notes.append(_both_tasks_note(task))
    elif own != plan.task:
        boundary = BOUNDARIES[own]
        notes.append(
            f"The plan was made for {plan.task}; the model is {own}: boundary {boundary:g}."
        )
    notes += optimizer_notes(plan)
    if patched := [r for r, model in models.items() if model.patches or model.injections]:
        notes.append(
            f"{' and '.join(patched)} came with LoRA patches, which stay in while training."
        )
    return replace(plan, family=family, task=task, boundary=boundary, train=train), notes


def _both_tasks_note(task: str) -> str:
    if task == "i2v":
        return (
            "Wan 2.2 5B is trained as image-to-video: the first latent frame is given clean and not learnt. Set task "
            "to t2v in the plan to train it from text alone."
        )
    return (
        "Wan 2.2 5B is trained as text-to-video, with every frame noised. Set task to i2v in the plan to give it the "
        "first frame."
    )


def _dataset_notes(dataset: Dataset, task: Task, roles: Iterable[Role]) -> list[str]:
    notes = []
    if without := sum(not clip.caption for clip in dataset.clips):
        notes.append(f"{without} of {len(dataset.clips)} clips have no caption.")
    pictures = sum(clip.frames == 1 for clip in dataset.clips)
    # The low-noise expert makes detail: what a picture shows is what it learns.
    if task == "i2v" and pictures and set(roles) != {"low_noise"}:
        notes.append(
            f"{pictures} pictures on an image-to-video model: their only frame is given to the model, so they "
            "teach little, and they freeze motion in the high-noise expert. Train them on the low-noise expert "
            "alone, or on a text-to-video model."
        )
    return notes


def _size_notes(dataset: Dataset, model: ModelPatcher) -> list[str]:
    """Sides that the host would pad: those of Wan 2.2 5B are multiples of 32."""
    if not wan_models.takes_clean_frames(model):
        return []
    sizes = [dataset.clip_size(clip) for clip in dataset.clips]
    odd = [size for size in sizes if size.width % TOKEN_5B_PX or size.height % TOKEN_5B_PX]
    if not odd:
        return []
    return [
        f"{len(odd)} clips have sides that are no multiples of {TOKEN_5B_PX}, for example {odd[0].width} x "
        f"{odd[0].height}: a token of Wan 2.2 5B covers {TOKEN_5B_PX} x {TOKEN_5B_PX} pixels, and the rest is padded. "
        "Set width and height to such multiples on the dataset."
    ]


def _grids(dataset: Dataset, model: ModelPatcher) -> set[TokenGrid]:
    """The tokens of the clips."""
    side = TOKEN_5B_PX if wan_models.takes_clean_frames(model) else PIXELS_PER_TOKEN
    sizes = {dataset.clip_size(clip) for clip in dataset.clips}
    return {
        TokenGrid(latent_size(size).frames, -(-size.height // side), -(-size.width // side))
        for size in sizes
    }
