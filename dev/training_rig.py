"""What the tests of training in the host share: setups, trainers, one micro-batch. Needs ComfyUI imported."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from ..training.cache.latent_cache import LatentCache
from ..training.data.dataset import ONE_SIZE, DatasetSettings
from ..training.data.reader import load_dataset
from ..training.expert_trainer import ExpertTrainer, build_trainers
from ..training.plans.plan import TrainingPlan
from ..training.plans.settings import ExpertSettings, OptimizerSettings
from ..training.samples import EncodedClip, Samples
from ..wan.families import sigma_range


def encode(
    models: Mapping[str, Any], vae: Any, clip: Any, clips: Path, **more: Any
) -> list[EncodedClip]:
    """The clips as the networks see them, in memory."""
    from ..nodes.host.encode import encoded_dataset

    prepared = setup(models, vae, clip, clips, **more)
    with tempfile.TemporaryDirectory() as folder:
        cache = LatentCache(Path(folder))
        with encoded_dataset(prepared, cache) as samples:
            return [samples[index] for index in range(len(samples))]


def setup(models: Mapping[str, Any], vae: Any, clip: Any, clips: Path, **more: Any) -> Any:
    from ..nodes.host.setup import check_setup

    settings = DatasetSettings(
        folder=clips, media="video", trigger="X", width=64, height=64, frames=9, fit=ONE_SIZE
    )
    dataset = load_dataset(settings)
    sockets = {"model_high": models.get("high_noise"), "model_low": models.get("low_noise")}
    with torch.inference_mode():
        return check_setup(
            more.pop("plan", None) or plan(), dataset, clip=clip, vae=vae, **{**sockets, **more}
        )


def plan(**changes: Any) -> TrainingPlan:
    rates = ExpertSettings(rate=2e-3)
    values = {"high": rates, "low": rates, "optimizer": OptimizerSettings(name="adamw")}
    values["allow_long"] = True  # three clips are soon shown more often than any real one should be
    return TrainingPlan(**{"save_every": 1000, **values, **changes})


def trainers(
    plan: TrainingPlan, pair: Mapping[str, Any], clips: list[EncodedClip] | Samples
) -> dict[str, ExpertTrainer]:
    from ..nodes.host.expert import HostExpert

    experts = {
        role: HostExpert(
            model,
            role,
            sigma_range(role, plan.boundary),
            checkpoint_blocks=plan.checkpoint_blocks,
            swap_blocks=plan.swap_blocks,
            offload_activations=plan.offload_activations,
        )
        for role, model in pair.items()
    }
    with training():
        return build_trainers(plan, experts, clips)


def training() -> AbstractContextManager[None]:
    from ..nodes.host.borders import gradients

    return gradients()


def gradients_of_one_micro_batch(trainer: ExpertTrainer) -> list[torch.Tensor]:
    with training():
        trainer.expert.attach(trainer.adapters)
        with trainer.expert.in_use():
            trainer._micro_batch(0)
        trainer.expert.detach()
    found = [p.grad.clone() for p in trainer.adapters.parameters()]
    trainer.optimizer.zero_grad()
    return found
