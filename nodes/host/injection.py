"""LoRAs on a MODEL: one injection for everything we add, installed when the model is loaded.

The layers are looked up at that moment and weights are never touched, so it works on quantised models and on copies
that the host makes of the network. Hooks come off in any order, so it lives beside core's own bypass LoRAs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, PatcherInjection, WrappersMP

from ...wan.lora.adapters import AdapterSet, LoraAdapter
from ...wan.lora.updates import Update
from .composite import Composite
from .parameters import base_weight
from .strengths import START, Place, place_of_call

if TYPE_CHECKING:
    from comfy.patcher_extension import WrapperExecutor
    from torch import nn

    from ...wan.lora.strength import StrengthSchedule

KEY = "tandem"


class AppliedFile(NamedTuple):
    """One file on one expert: its updates by parameter, each at its row's strength, which the schedule multiplies."""

    updates: Mapping[str, Update]
    schedule: StrengthSchedule | None = None

    @property
    def changes(self) -> bool:
        """Whether its strength is another one at some steps."""
        return self.schedule is not None and self.schedule.constant is None

    def factor(self, place: Place) -> float:
        """What its strengths are multiplied with at a step."""
        return 1.0 if self.schedule is None else self.schedule.at(**place._asdict())

    def at_work(self) -> AppliedFile:
        """Without the updates that never do anything."""
        idle = self.schedule is not None and self.schedule.constant == 0
        return self.part(lambda name: not idle and self.updates[name].strength != 0)

    def part(self, wanted: Callable[[str], bool]) -> AppliedFile:
        """The updates of the parameters that are `wanted`."""
        return self._replace(updates={n: u for n, u in self.updates.items() if wanted(n)})


class StackInjection:
    """Files on whichever network the patcher holds when it is loaded."""

    def __init__(self, files: Sequence[AppliedFile]) -> None:
        self.files = tuple(files)
        self._installed: WeakKeyDictionary[nn.Module, Composite] = WeakKeyDictionary()
        self._prepared: set[Update] = set()

    def inject(self, patcher: ModelPatcher) -> None:
        self.eject(patcher)
        self._prepare(patcher)
        # Made anew each time: between two loads nothing of it is on the device, as the host expects.
        composite = Composite(
            patcher.model.diffusion_model,
            [file.updates for file in self.files],
            patcher.load_device,
        )
        composite.set_factors([file.factor(START) for file in self.files])
        composite.install()
        self._installed[patcher.model] = composite

    def eject(self, patcher: ModelPatcher) -> None:
        composite = self._installed.pop(patcher.model, None)
        if composite is not None:
            composite.remove()

    def predict_noise(
        self,
        executor: WrapperExecutor,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: Mapping[str, object],
        *others: object,
        **named: object,
    ) -> torch.Tensor:
        """A `PREDICT_NOISE` wrapper: the strengths of this step, then the model."""
        place = place_of_call(timestep, model_options)
        for composite in self._installed.values():
            composite.set_factors([file.factor(place) for file in self.files])
        return executor(x, timestep, model_options, *others, **named)

    def _prepare(self, patcher: ModelPatcher) -> None:
        with torch.inference_mode(False), torch.no_grad():
            for file in self.files:
                for name, update in file.updates.items():
                    if update.needs_layer and update not in self._prepared:
                        weight = base_weight(patcher, name)
                        update.prepare(weight.to(patcher.load_device))
                        self._prepared.add(update)


def with_updates(model: ModelPatcher, files: Sequence[AppliedFile]) -> ModelPatcher:
    """A clone of `model` that carries `files` on top of whatever Tandem put there before.

    `model` itself when none of them ever does anything.
    """
    at_work = [file for file in (file.at_work() for file in files) if file.updates]
    return _with(model, at_work) if at_work else model


def with_adapters(model: ModelPatcher, sets: Sequence[AdapterSet]) -> ModelPatcher:
    """The same for adapters, which may be in training: those stay the parameters that the optimizer holds."""
    return _with(model, [AppliedFile(adapters.updates()) for adapters in sets])


def applied_files(model: ModelPatcher) -> tuple[AppliedFile, ...]:
    """What Tandem has put on this MODEL."""
    return model.get_attachment(KEY) or ()


def applied_tensors(model: ModelPatcher) -> dict[str, torch.Tensor]:
    """Every factor of it, under a name that says where it belongs and how strong it is."""
    tensors = {}
    for number, file in enumerate(applied_files(model)):
        follows = f" following {file.schedule}" if file.schedule is not None else ""
        for name, update in file.updates.items():
            strength = update.scale if isinstance(update, LoraAdapter) else update.strength
            label = f"adapter {number} {name.removesuffix('.weight')} at {strength}{follows}"
            for key, factor in update.named_parameters():
                # What DoRA computed from the base is kept under a private name.
                if not key.rpartition(".")[2].startswith("_"):
                    tensors[f"{label}.{key}"] = factor
    return tensors


def adapter_sets(model: ModelPatcher) -> tuple[dict[str, LoraAdapter], ...]:
    """The low-rank part of it, by layer."""
    return tuple(
        {
            n.removesuffix(".weight"): u
            for n, u in file.updates.items()
            if isinstance(u, LoraAdapter)
        }
        for file in applied_files(model)
    )


def _with(model: ModelPatcher, files: Sequence[AppliedFile]) -> ModelPatcher:
    clone = model.clone()
    injection = StackInjection((*applied_files(model), *files))
    clone.set_injections(KEY, [PatcherInjection(injection.inject, injection.eject)])
    clone.set_attachments(KEY, injection.files)
    clone.remove_wrappers_with_key(WrappersMP.PREDICT_NOISE, KEY)
    if any(file.changes for file in injection.files):
        clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, injection.predict_noise)
    clone.remove_callbacks_with_key(CallbacksMP.ON_CLONE, KEY)
    clone.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, _not_injected)
    _not_injected(model, clone)
    return clone


def _not_injected(model: ModelPatcher, clone: ModelPatcher) -> None:
    """A clone of a loaded model calls itself injected, although nothing of its own is in place.

    When such a clone is thrown away it would take out what the loaded model still works with.
    """
    del model
    clone.is_injected = False
