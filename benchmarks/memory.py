"""Memory that a run adds to models that are loaded already: resident size of the process, and tensor by tensor."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterable

import psutil
import torch

from ..training.loop import build_trainers, train
from ..training.plans.plan import TrainingPlan
from ..training.plans.settings import ExpertSettings, LoraSettings, OptimizerSettings
from ..wan.families import sigma_range
from ..wan.miniature.layouts import TransformerSize
from .in_host import import_comfy, load_pair, random_clips

SIZE = TransformerSize(width=1024, heads=8, layers=10, ffn_width=4096, text_width=256)
SMALL = TransformerSize(width=128, heads=4, layers=1, text_width=256)
LATENT = (1, 4, 4)
MIB = 1 << 20


def main() -> None:
    import_comfy()
    from comfy.model_management import load_models_gpu

    _run(
        load_pair(SMALL), SMALL
    )  # libraries claim buffers at their first use; they are not the run's
    pair = load_pair(SIZE)
    with torch.inference_mode():
        load_models_gpu(list(pair.values()))
        for (
            model
        ) in pair.values():  # weights are mapped from the file: read once, they are resident
            for weight in model.model.diffusion_model.parameters():
                weight.sum()
    base = sum(_bytes(m.model.diffusion_model.parameters()) for m in pair.values())
    resident, tensors = _resident(), _tensor_bytes()
    during = _run(pair, SIZE)
    own = during["own"]
    print(f"base: two experts, {base / MIB:.0f} MiB; adapters and optimizer: {own / MIB:.1f} MiB")
    for name, before in (("resident", resident), ("tensors", tensors)):
        more = during[name] - before - own
        print(
            f"{name}: {more / MIB:+.1f} MiB beyond adapters and optimizer, {more / base:+.2%} of the base"
        )
    left = _resident() - resident
    print(f"resident after the run: {left / MIB:+.1f} MiB, {left / base:+.2%} of the base")


def _run(pair: dict, size: TransformerSize) -> dict[str, int]:
    """Largest figures between steps, activations and gradients freed; and the bytes that are the run's own."""
    from ..nodes.host.borders import gradients
    from ..nodes.host.expert import HostExpert

    rates = ExpertSettings(rate=1e-4)
    plan = TrainingPlan(
        steps=8,
        swap_every=2,
        save_every=1000,
        lora=LoraSettings(rank=8, alpha=8.0),
        optimizer=OptimizerSettings(name="adamw"),
        high=rates,
        low=rates,
    )
    seen: dict[str, list[int]] = {"resident": [], "tensors": []}

    def listen(event: object) -> None:
        del event
        seen["resident"].append(_resident())
        seen["tensors"].append(_tensor_bytes())

    with gradients():
        experts = {
            role: HostExpert(m, role, sigma_range(role, plan.boundary)) for role, m in pair.items()
        }
        clips = random_clips(LATENT, count=2, text=(16, size.text_width))
        trainers = build_trainers(plan, experts, clips)
        train(plan, trainers, save=lambda *_: None, listen=listen)
    own = sum(_bytes(t.adapters.parameters()) for t in trainers.values())
    for trainer in trainers.values():
        for state in trainer.optimizer.state.values():
            own += _bytes(v for v in state.values() if isinstance(v, torch.Tensor))
    return {"own": own, **{name: max(values) for name, values in seen.items()}}


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _tensor_bytes() -> int:
    """Every live tensor's storage, counted once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.device.type != "meta":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _resident() -> int:
    """After the allocator has given back what nobody uses."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss
