"""LoRAs merged into the weights by the host's own patches: nothing is computed beside a layer, so no step is slower.

It costs what the host's merging costs: weights of 16 bits are rounded again, and a change of the strength is a new
merge. Quantised weights would lose most of a LoRA to their coarse steps, and are refused.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from comfy.model_patcher import get_key_weight
from comfy.weight_adapter import WeightAdapterBase
from torch import nn

from ...wan.errors import UserError
from ...wan.lora.adapters import LoraAdapter
from ...wan.lora.combine import low_rank_factors
from ...wan.lora.updates import Update
from .injection import AppliedFile, with_updates
from .parameters import PREFIX
from .strengths import START

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfy.model_patcher import ModelPatcher

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class Part(NamedTuple):
    """One update of a parameter, and how much of it counts."""

    update: Update
    strength: float


class MergePatch(WeightAdapterBase):
    """Every update of one parameter, each relative to the weight that comes in, so that their order does not count.

    A patch of the host: it makes copies as `type(patch)(patch.loaded_keys, tensors moved elsewhere)`, and knows the
    tensors in `weights`.
    """

    name = "tandem"

    def __init__(
        self, loaded_keys: tuple[Part, ...], weights: Sequence[torch.Tensor] | None = None
    ) -> None:
        self.loaded_keys = loaded_keys
        own = [factor for part in loaded_keys for factor in part.update.parameters()]
        strengths = torch.tensor([part.strength for part in loaded_keys])
        self.weights = [strengths, *own] if weights is None else list(weights)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The updates with the tensors in `weights`."""
        factors = iter(self.weights[1:])
        moved = {
            id(own): nn.Parameter(next(factors).detach(), requires_grad=False)
            for part in self.loaded_keys
            for own in part.update.parameters()
        }
        return tuple(
            Part(copy.deepcopy(part.update, dict(moved)), part.strength)
            for part in self.loaded_keys
        )

    def calculate_weight(
        self,
        weight: torch.Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: object,
        function: Callable[[torch.Tensor], torch.Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: object = None,
    ) -> torch.Tensor:
        """`weight` (dequantised, any float dtype) with the changes added; it is changed in place, as the host does."""
        del key, strength_model, offset, intermediate_dtype, original_weight
        change = _change(self.parts, weight)
        weight += function(change.mul_(strength).to(weight.dtype))
        return weight


def _change(parts: Sequence[Part], weight: torch.Tensor) -> torch.Tensor:
    """The sum of the changes of one parameter, float32; those of plain LoRAs are one product."""
    change = torch.zeros(0)
    downs, ups = [], []
    for part in parts:
        plain = isinstance(part.update, LoraAdapter) and weight.ndim == 2
        factors = low_rank_factors(part.update) if plain else None
        if factors is not None:
            # The host brings the weight to its device, and leaves a patch's own tensors where they are.
            down, up = (factor.to(weight.device) for factor in factors)
            downs.append(down)
            ups.append(up * part.strength)
            continue
        # A difference gives its own tensor: nothing is done to it in place.
        delta = part.update.delta(weight) * part.strength
        change = change.add_(delta) if len(change) else delta
    if not downs:
        return change
    product = torch.cat(ups, dim=1) @ torch.cat(downs)
    return product.add_(change) if len(change) else product


def with_merged(model: ModelPatcher, files: Sequence[AppliedFile]) -> ModelPatcher:
    """A clone of `model` into whose weights the host merges `files`, beside whatever was merged before.

    What the host's loader leaves alone is put on as by injection; those changes are small and cost no speed. `model`
    itself when no file ever does anything. Raises `UserError` for quantised weights and for a strength that changes
    over the run.
    """
    at_work = [file for file in (file.at_work() for file in files) if file.updates]
    if not at_work:
        return model
    for file in at_work:
        _require_mergeable(model, file)
    network = model.model.diffusion_model
    beside = [file.part(lambda name: not _host_merges(network, name)) for file in at_work]
    clone = with_updates(model, beside)
    if clone is model:
        clone = model.clone()
    parts: dict[str, tuple[Part, ...]] = {}
    for file in at_work:
        factor = file.factor(START)
        for name, update in file.part(lambda name: _host_merges(network, name)).updates.items():
            key = PREFIX + name
            before = parts[key] if key in parts else _taken_out(clone, key)
            parts[key] = (*before, Part(update, update.strength * factor))
    merged = clone.add_patches({key: MergePatch(of_key) for key, of_key in parts.items()})
    assert set(merged) == set(parts), "the host knows every parameter of the network"
    return clone


def _host_merges(network: nn.Module, name: str) -> bool:
    """The host's loader patches the parameters of innermost modules alone: `modulation`, of blocks, stays as it is."""
    module = network.get_submodule(name.rpartition(".")[0])
    return not any(True for child in module.children() for _ in child.parameters())


def _taken_out(clone: ModelPatcher, key: str) -> tuple[Part, ...]:
    """Ours on one parameter, removed from the clone: together with the new ones it is one patch again."""
    entries = clone.patches.get(key, [])
    ours = [entry[1] for entry in entries if isinstance(entry[1], MergePatch)]
    if ours:
        clone.patches[key] = [e for e in entries if not isinstance(e[1], MergePatch)]
    return tuple(part for patch in ours for part in patch.loaded_keys)


def _require_mergeable(model: ModelPatcher, file: AppliedFile) -> None:
    if file.changes:
        raise UserError(
            f"A row has the strength schedule {file.schedule}, and mode is merge.",
            "Merged into the weights, a LoRA has one strength for the whole run.",
            "Set mode to inject, or take the schedule out of the row.",
        )
    for name in file.updates:
        weight, _, convert = get_key_weight(model.model, PREFIX + name)
        dequantised = weight if convert is None else convert(weight, inplace=False)
        if weight.dtype not in FLOATS or dequantised is not weight:
            raise UserError(
                f"The weights of the model are quantised ({name}), and mode is merge.",
                "Only weights of 16 or 32 bits can be merged: in coarser ones most of a LoRA is lost to rounding.",
                "Set mode to inject, which leaves the weights as they are, or load a bf16 or fp16 file.",
            )
