"""Between ComfyUI's world (inference mode, everything frozen) and training's (gradients)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import torch
from torch import nn


@contextmanager
def gradients() -> Iterator[None]:
    """Leaves the inference mode in which ComfyUI runs prompts; tensors made inside can be trained through."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def differentiable_ops() -> Iterator[None]:
    """Has the host pick operations that have a backward pass (its fused rotary embedding has none).

    The flag is one for the whole process, so it is set around our own work only and put back.
    """
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before


@contextmanager
def normal_weights(network: nn.Module) -> Iterator[None]:
    """Weights that were made in a prompt are inference tensors, through which no gradient flows.

    While entered, each stands under its name as a normal tensor over the same storage: no byte is copied.
    The host's own tensors return at the end, before the host moves or unpatches anything.
    """
    replaced: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for module in network.modules():
            for name, weight in module._parameters.items():
                if weight is not None and _can_be_aliased(weight):
                    replaced.append((module, name, weight))
                    module._parameters[name] = nn.Parameter(_alias(weight), requires_grad=False)
        yield
    finally:
        for module, name, weight in replaced:
            module._parameters[name] = weight


def _can_be_aliased(weight: nn.Parameter) -> bool:
    # Quantised tensors are subclasses without storage of their own; their backward works as it is.
    return weight.is_inference() and type(weight.data) is torch.Tensor


def _alias(weight: torch.Tensor) -> torch.Tensor:
    empty = torch.empty(0, dtype=weight.dtype, device=weight.device)
    return empty.set_(
        weight.untyped_storage(), weight.storage_offset(), weight.size(), weight.stride()
    )
