"""LoRAs on a MODEL: one injection for everything we add, installed when the model is loaded.

Each adapter listens to its layer's forward pass and adds to the output. Weights are never touched, so it
works on quantised models; hooks come off in any order, so it lives beside core's own bypass LoRAs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection
from torch import nn

from ...wan.lora.adapters import AdapterSet, LoraAdapter

KEY = "tandem"


class AdapterInjection:
    """Adapter sets on the layers of whichever network the patcher holds when it is loaded."""

    def __init__(self, sets: Sequence[AdapterSet]) -> None:
        self.sets = tuple(sets)
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def inject(self, patcher: ModelPatcher) -> None:
        # The layers are looked up now, not when the LoRA was chosen: the host may have copied the network.
        self.eject(patcher)
        modules = dict(patcher.model.diffusion_model.named_modules())
        for layer, adapters in _by_layer(self.sets).items():
            self._handles.append(modules[layer].register_forward_hook(_adding(adapters)))
        self._move_frozen(patcher.load_device)

    def eject(self, patcher: ModelPatcher) -> None:
        for handle in reversed(self._handles):
            handle.remove()
        self._handles.clear()
        self._move_frozen(patcher.offload_device)

    def _move_frozen(self, device: torch.device) -> None:
        for adapters in self.sets:
            # Adapters in training stay where their optimizer has them.
            if not any(p.requires_grad for p in adapters.parameters()):
                adapters.to(device)


def with_adapters(model: ModelPatcher, sets: Sequence[AdapterSet]) -> ModelPatcher:
    """A clone of `model` that carries `sets` on top of whatever Tandem put there before."""
    clone = model.clone()
    injection = AdapterInjection((*adapter_sets(model), *sets))
    clone.set_injections(KEY, [PatcherInjection(injection.inject, injection.eject)])
    clone.set_attachments(KEY, injection.sets)
    # A clone of a loaded model calls itself injected, although its own injection is not in place.
    clone.is_injected = False
    return clone


def adapter_sets(model: ModelPatcher) -> tuple[AdapterSet, ...]:
    """What Tandem has put on this MODEL."""
    return model.get_attachment(KEY) or ()


def _by_layer(sets: Sequence[AdapterSet]) -> dict[str, list[LoraAdapter]]:
    layers: dict[str, list[LoraAdapter]] = {}
    for adapters in sets:
        for layer, adapter in adapters.items():
            layers.setdefault(layer, []).append(adapter)
    return layers


def _adding(
    adapters: Sequence[LoraAdapter],
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    def hook(
        module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        del module
        for adapter in adapters:
            output = output + adapter(inputs[0])
        return output

    return hook
