"""What the tests of runs that go on from a LoRA share: the host's folders, setups, trainers, small files. Needs ComfyUI
imported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..training.expert_trainer import ExpertTrainer, build_trainers
from ..training.plans.settings import LoraSettings
from ..training.samples import EncodedClip, stack_batch
from ..wan.families import sigma_range
from ..wan.lora.adapters import AdapterSet
from ..wan.lora.files import write_safetensors
from ..wan.lora.stack import LoraStack, Row
from . import training_rig as rig

QUERY = "diffusion_model.blocks.0.self_attn.q"


def own_folders(root: Path, monkeypatch: Any) -> Path:
    """The host's folders below `root`, for a test; gives that of the LoRAs."""
    import folder_paths

    from ..nodes.host.places import jobs_root

    loras = root / "loras"
    loras.mkdir()
    monkeypatch.setattr(folder_paths, "user_directory", str(root / "user"))
    monkeypatch.setattr(folder_paths, "output_directory", str(root / "output"))
    # The pack registers the folder of the runs as one of LoRAs, as it does in the host.
    roots = ([str(loras), str(jobs_root())], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", roots)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return loras


def setup_of(
    models: Mapping[str, Any], *, rank: int = 8, alpha: float = 4.0, **changes: Any
) -> Any:
    """What the trainer has checked of plan and models; clips and encoders have no part in it."""
    from ..nodes.host.setup import Setup

    family = "single model" if "single" in models else "wan 2.2 A14B"
    lora = LoraSettings(rank=rank, alpha=alpha)
    plan = rig.plan(family=family, **{"lora": lora, "steps": 2, "swap_every": 1, **changes})
    return Setup(
        plan=plan, dataset=None, models=models, clip=None, vae=None, clip_vision=None, task="i2v", notes=()
    )  # fmt: skip


def started(
    models: Mapping[str, Any], rows: Iterable[Row], name: str = "run", **changes: Any
) -> Any:
    """The same of a run that goes on from these rows."""
    from ..nodes.host.start import with_start

    stack = LoraStack(tuple(rows))
    return with_start(setup_of(models, **changes), stack, name)


def trainers_of(setup: Any, clips: Sequence[EncodedClip]) -> dict[str, ExpertTrainer]:
    """Trainers that have begun."""
    from ..nodes.host.expert import HostExpert
    from ..nodes.host.start import start_factors

    experts = {
        role: HostExpert(model, role, sigma_range(role, 0.9))
        for role, model in setup.models.items()
    }
    with rig.training():
        return build_trainers(
            setup.plan,
            experts,
            clips,
            lambda role: start_factors(setup.start, role, setup.models[role]),
        )


def clip_of(seed: int = 1) -> EncodedClip:
    """A random clip with its first frame."""
    generator = torch.Generator().manual_seed(seed)
    return EncodedClip(
        name="clip",
        x0=torch.randn(16, 3, 8, 8, generator=generator),
        context=torch.randn(8, 64, generator=generator),
        mask=torch.ones(4, 3, 8, 8),
        image_latent=torch.randn(16, 3, 8, 8, generator=generator),
    )


def velocity(
    model: Any,
    clip: EncodedClip,
    sigma: float,
    role: str = "high_noise",
    adapters: AdapterSet | None = None,
) -> torch.Tensor:
    """Of a MODEL as it is, or with adapters in training."""
    from ..nodes.host.expert import HostExpert

    expert = HostExpert(model, role, sigma_range(role, 0.9))
    batch = stack_batch([clip], torch.device("cpu"))
    with rig.training(), torch.no_grad():
        if adapters is not None:
            expert.attach(adapters)
        with expert.in_use():
            found = expert.velocity(batch.x0, torch.tensor([sigma]), batch.context, batch.condition)
        if adapters is not None:
            expert.detach()
    return found


def lora_file(
    folder: Path,
    name: str,
    layers: Sequence[str] = (QUERY,),
    *,
    rank: int = 2,
    width: int = 128,
    **tandem: Any,
) -> str:
    """A small LoRA; `tandem` is what it says of itself."""
    generator = torch.Generator().manual_seed(len(name))
    tensors = {}
    for layer in layers:
        tensors[f"{layer}.lora_A.weight"] = torch.randn(rank, width, generator=generator)
        tensors[f"{layer}.lora_B.weight"] = torch.randn(128, rank, generator=generator) / 20
    path = folder / f"{name}.safetensors"
    write_safetensors(path, tensors, {"tandem": json.dumps(tandem)} if tandem else {})
    return path.name
