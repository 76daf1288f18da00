"""Updates of every kind for tests: random ones, put on MODELs of the miniature's size, and what the networks give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..wan.lora.adapters import LoraAdapter
from ..wan.lora.dora import DoRA
from ..wan.lora.hadamard import LoHa
from ..wan.lora.kronecker import LoKr
from ..wan.lora.updates import Difference, Update, UpdateSet

if TYPE_CHECKING:
    from ..nodes.host.injection import AppliedFile

Random = Callable[..., torch.Tensor]
Q = "blocks.0.self_attn.q.weight"
FFN = "blocks.1.ffn.0.weight"


def random(seed: int) -> Random:
    """Normal numbers of any shape, from one stream."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def lora(rand: Random, inputs: int, outputs: int, rank: int) -> LoraAdapter:
    """Low-rank and frozen, with alpha twice the rank."""
    down, up = rand(rank, inputs) / 16, rand(outputs, rank) / 4
    return LoraAdapter(down, up, 2.0 * rank).requires_grad_(False)


def kinds(seed: int = 1) -> dict[str, Update]:
    """One update of each kind that a linear layer of 128 x 128 can have."""
    rand = random(seed)
    return {
        "LoRA": lora(rand, 128, 128, 4),
        "LoHa": LoHa(
            (rand(128, 3) / 3, rand(3, 128) / 6),
            (rand(128, 3) / 3, rand(3, 128) / 6),
            rank=3,
            alpha=2.0,
        ),
        "LoKr": LoKr((rand(8, 8) / 8,), (rand(16, 2) / 4, rand(2, 16) / 4), rank=2, alpha=2.0),
        "full difference": Difference(rand(128, 128) / 100),
        "DoRA by outputs": DoRA(lora(rand, 128, 128, 2), rand(128).abs() + 0.5, "outputs"),
        "DoRA by inputs": DoRA(lora(rand, 128, 128, 2), rand(128).abs() + 0.5, "inputs"),
    }


def elsewhere(seed: int = 2) -> dict[str, Update]:
    """Updates of every kind of parameter that is not the weight of a linear layer."""
    rand = random(seed)
    return {
        "blocks.0.self_attn.q.bias": Difference(rand(128) / 4),
        "blocks.0.self_attn.norm_q.weight": Difference(rand(128) / 4),
        "blocks.1.norm3.weight": Difference(rand(128) / 4),
        "blocks.1.norm3.bias": Difference(rand(128) / 4),
        "blocks.2.modulation": Difference(rand(1, 6, 128) / 8),
        "head.modulation": Difference(rand(1, 2, 128) / 4),
        "patch_embedding.weight": lora(rand, 36 * 4, 128, 4),
        "patch_embedding.bias": Difference(rand(128) / 4),
    }


def file(updates: Mapping[str, Update], strength: float = 1.0) -> AppliedFile:
    """A file of these updates, each at `strength`."""
    from ..nodes.host.injection import AppliedFile

    for update in updates.values():
        update.strength = strength
    return AppliedFile(UpdateSet(updates))


def stacked(model: Any, files: Sequence[AppliedFile]) -> Any:
    """The MODEL with the files beside its layers."""
    from ..nodes.host.injection import with_updates

    return with_updates(model, files)


def changed(model: Any, files: Sequence[AppliedFile]) -> Any:
    """The MODEL with the same changes written into its own weights, each relative to the base."""
    network = model.model.diffusion_model
    base = {name: value.clone() for name, value in network.named_parameters()}
    with torch.inference_mode():
        for applied in files:
            for name, update in applied.updates.items():
                delta = update.delta(base[name].float())
                network.get_parameter(name).add_(update.strength * delta)
    return model


def loaded(model: Any) -> Any:
    """The network, as the host loads it."""
    from comfy.model_management import load_models_gpu

    with torch.inference_mode():
        load_models_gpu([model])
    return model.model.diffusion_model


def output(model: Any) -> torch.Tensor:
    """What the loaded network gives for one fixed input."""
    loaded(model)
    return forward(model)


def forward(model: Any) -> torch.Tensor:
    """The same without loading."""
    rand = random(5)
    x, context = rand(1, 36, 2, 8, 8), rand(1, 8, 64)
    with torch.inference_mode():
        return model.model.diffusion_model(
            x, torch.tensor([500.0]), context=context, transformer_options={}
        ).clone()


def layer_output(model: Any, weight: str, x: torch.Tensor) -> torch.Tensor:
    """What the layer of `weight` gives for `x`, in the dtype that the model computes in."""
    layer = loaded(model).get_submodule(weight.rpartition(".")[0])
    with torch.inference_mode():
        return layer(x.to(model.model.get_dtype_inference())).float().clone()
