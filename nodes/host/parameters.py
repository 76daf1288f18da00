"""The parameters of a MODEL's network: their shapes, their numbers, and how large these are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import torch
from comfy.model_patcher import get_key_weight
from torch import nn

from ...wan.lora.measure import WeightNorms

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

PREFIX = "diffusion_model."
_norms: WeakKeyDictionary[nn.Module, WeightNorms] = WeakKeyDictionary()


def parameter_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by name; that of a quantised weight is the layer's, not that of its storage."""
    shapes = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    for name, module in network.named_modules():
        inputs = getattr(module, "in_features", None)
        outputs = getattr(module, "out_features", None)
        if isinstance(inputs, int) and isinstance(outputs, int):
            shapes[f"{name}.weight"] = (outputs, inputs)
    return shapes


def base_weight(model: ModelPatcher, name: str) -> torch.Tensor:
    """A parameter of the base model as numbers: dequantised, and without any LoRA that is merged into it."""
    key = PREFIX + name
    if key in model.hook_backup and key not in model.backup:
        return _numbers(model.model, key, model.hook_backup[key][0])
    return _numbers(model.model, key, _kept(model.backup, key))


def weight_norms(model: ModelPatcher) -> WeightNorms:
    """The norms of the network's parameters, each computed once in the network's life."""
    if model.model not in _norms:
        # All clones share the backup; the network itself must not be kept alive by its norms.
        network, backup = ref(model.model), model.backup

        def weight_of(name: str) -> torch.Tensor | None:
            alive, key = network(), PREFIX + name
            return None if alive is None else _numbers(alive, key, _kept(backup, key))

        _norms[model.model] = WeightNorms(weight_of)
    return _norms[model.model]


def _kept(backup: Mapping[str, Any], key: str) -> torch.Tensor | None:
    return backup[key].weight if key in backup else None


def _numbers(network: nn.Module, key: str, kept: torch.Tensor | None) -> torch.Tensor:
    weight, _, convert = get_key_weight(network, key)
    weight = weight if kept is None else kept
    return weight if convert is None else convert(weight, inplace=False)
