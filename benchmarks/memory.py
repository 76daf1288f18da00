"""Memory that a run adds to models that are loaded already: resident size of the process, and tensor by tensor;
and what the ways to save memory leave of a micro-batch's own."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterable
from unittest import mock

import psutil
import torch

from ..dev.accounting import Account
from ..training.expert_trainer import build_trainers
from ..training.loop import train
from ..training.plans.plan import TrainingPlan
from ..training.plans.settings import ExpertSettings, LoraSettings, OptimizerSettings
from ..training.samples import stack_batch
from ..wan.families import sigma_range
from ..wan.lora.adapters import new_adapters, pick_layers
from ..wan.miniature.layouts import TransformerSize
from .in_host import import_comfy, load_pair, random_clips
from .rows import row

SIZE = TransformerSize(width=1024, heads=8, layers=10, ffn_width=4096, text_width=256)
SMALL = TransformerSize(width=128, heads=4, layers=1, text_width=256)
EIGHT = TransformerSize(width=256, heads=2, layers=8, ffn_width=704, text_width=64)
LATENT, LONG = (1, 4, 4), (5, 16, 16)
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
    for name, before in (("resident size", resident), ("all tensors", tensors)):
        more = during[name] - before - own
        extra = f"({more / MIB:+.1f} MiB)"
        row(
            f"{name}: growth while training, of the base",
            more / base * 100,
            2.0,
            unit=" %",
            more=extra,
        )
    left = _resident() - resident
    row("resident size: growth after the run, of the base", left / base * 100, 2.0, unit=" %")
    del pair
    _activations()


def _activations() -> None:
    """What lives at the end of a forward pass through 8 blocks, beyond weights and adapters."""
    pair = load_pair(EIGHT)
    clips = random_clips(LONG, count=1, text=(16, EIGHT.text_width))
    print(
        f"activations of {LONG} at the end of a forward pass, {EIGHT.layers} blocks of {EIGHT.width}"
    )
    kept = _kept(pair["high_noise"], clips, checkpoint_blocks=False)
    row("kept", kept / MIB, unit=" MiB")
    for name, goal, memory in (
        ("blocks recomputed", 0.25, {}),
        ("blocks recomputed, inputs in main memory", None, {"offload_activations": True}),
    ):
        row(f"{name}, of kept", _kept(pair["high_noise"], clips, **memory) / kept, goal)
    network = pair["high_noise"].model.diffusion_model
    whole = _bytes(network.parameters())
    for count in (4, 8):
        moved, buffers = _swapped(pair["high_noise"], clips, count)
        row(f"swap_blocks {count}: buffers, of the weights", buffers / whole)
        row(f"swap_blocks {count}: brought in a micro-batch, of the weights", moved / whole)


def _kept(model: object, clips: list, **memory: bool) -> float:
    from ..nodes.host.checkpointing import InputsInRam

    account = Account(model.model.diffusion_model.parameters())
    put_away = InputsInRam._put_away

    def put_apart(store: InputsInRam, tensor: torch.Tensor) -> object:
        with account.apart():
            return put_away(store, tensor)

    with mock.patch.object(InputsInRam, "_put_away", put_apart), account:
        expert, adapters = _attached(model, **memory)
        with expert.in_use():
            before = account.now
            velocity = _forward(expert, clips[0])
            kept = account.now - before
            torch.autograd.grad(velocity.square().mean(), adapters.parameters())
        expert.detach()
    return kept


def _swapped(model: object, clips: list, count: int) -> tuple[int, int]:
    """Bytes that the second micro-batch brings, and those of the buffers."""
    from ..nodes.host import expert as host

    rings = []
    ring = host.BlockRing
    with mock.patch.object(host, "BlockRing", lambda *a: rings.append(ring(*a)) or rings[-1]):
        expert, adapters = _attached(model, swap_blocks=count)
        with expert.in_use():
            for _ in range(2):
                before = rings[0].bytes_moved
                loss = _forward(expert, clips[0]).square().mean()
                torch.autograd.grad(loss, adapters.parameters())
            buffers = sum(buffer.room.nbytes for buffer in rings[0].buffers)
        expert.detach()
    return rings[0].bytes_moved - before, buffers


def _attached(model: object, **memory: object) -> tuple:
    from ..nodes.host.borders import gradients
    from ..nodes.host.expert import HostExpert

    with gradients():
        expert = HostExpert(model, "high_noise", sigma_range("high_noise", 0.9), **memory)
        layers = expert.layers()
        shapes = {name: layers[name] for name in pick_layers(layers)}
        adapters = new_adapters(shapes, rank=8, alpha=8.0, seed=0)
        expert.attach(adapters)
    return expert, adapters


def _forward(expert: object, clip: object) -> torch.Tensor:
    batch = stack_batch([clip], torch.device("cpu"))
    return expert.velocity(batch.x0, torch.tensor([0.95]), batch.context, batch.condition)


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
    seen: dict[str, list[int]] = {"resident size": [], "all tensors": []}

    def listen(event: object) -> None:
        del event
        seen["resident size"].append(_resident())
        seen["all tensors"].append(_tensor_bytes())

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
