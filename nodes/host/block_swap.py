"""An expert of which some blocks stay in main memory: how the host is told, and how it finds the model afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from comfy.model_management import (
    is_device_cpu,
    load_models_gpu,
    module_size,
    unload_model_and_clones,
)
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import nn

from ...wan.errors import UserError
from .block_ring import block_weights

KEY = "tandem_swap"
PREFIX = "diffusion_model.blocks"


def swapped_blocks(blocks: nn.ModuleList, count: int) -> dict[int, nn.Module]:
    """`count` of the blocks, spread evenly: while one that is resident computes, the next one that is not is brought.

    Raises `UserError` where there are not so many.
    """
    total = len(blocks)
    if not 0 <= count <= total:
        raise UserError(
            f"swap_blocks is {count}.",
            f"This model has {total} blocks: it can be 0 (none) to {total}.",
            f"Set swap_blocks to {total} at most.",
        )
    return {i: blocks[i] for i in range(total) if (i + 1) * count // total > i * count // total}


def require_swappable(patcher: ModelPatcher, count: int) -> dict[int, nn.Module]:
    """The blocks of a Wan MODEL that are swapped. Raises `UserError` where it has fewer, or they cannot be."""
    blocks = swapped_blocks(patcher.model.diffusion_model.blocks, count)
    for block in blocks.values():
        block_weights(block)
    _require_bare(patcher, blocks)
    return blocks


def _require_bare(patcher: ModelPatcher, blocks: Mapping[int, nn.Module]) -> None:
    """The host merges a LoRA when it brings a layer to the device, and these blocks it never brings."""
    starts = tuple(f"{PREFIX}.{index}." for index in blocks)
    if any(key.startswith(starts) for key in patcher.patches):
        raise UserError(
            "swap_blocks is on, and the model came with a LoRA that ComfyUI merges into its weights.",
            "Blocks that stay in main memory are brought as they are in the file.",
            "Put the LoRA on with Tandem Apply Stack, which adds it beside the weights, or set swap_blocks to 0.",
        )


def load_around(
    patcher: ModelPatcher, blocks: Mapping[int, nn.Module], memory_required: float
) -> None:
    """The host's own load of everything but `blocks`, whose weights it leaves in main memory. In inference mode.

    After training the host finds a model that it has loaded in part: see `leave_streamed`.
    """
    if any(not is_device_cpu(weight.device) for weight in _weights(blocks)):
        # A prompt has had all of it on the device. This puts merged LoRAs back as well.
        unload_model_and_clones(patcher)
    whole = patcher.model_size()
    patcher.size = whole - sum(module_size(block) for block in blocks.values())
    try:
        with _anchored(blocks):
            load_models_gpu([patcher], memory_required=memory_required, force_full_load=True)
    finally:
        patcher.size = whole
        for module in _modules(blocks):
            vars(module).pop("comfy_patched_weights", None)
    if is_device_cpu(patcher.load_device):
        # Main memory is where it computes, so all of it is loaded.
        patcher.model.model_loaded_weight_memory = whole
    else:
        _pin(patcher, blocks)


def leave_streamed(patcher: ModelPatcher, blocks: Mapping[int, nn.Module]) -> None:
    """Marks the blocks as the host marks layers that it has left in main memory (`ModelPatcher.load`): it can sample
    with them, or bring them when there is room."""
    for module in _modules(blocks):
        if hasattr(module, "comfy_cast_weights") and not hasattr(module, "prev_comfy_cast_weights"):
            module.prev_comfy_cast_weights = module.comfy_cast_weights  # type: ignore[assignment]
            module.comfy_cast_weights = True  # type: ignore[assignment]
    patcher.model.model_lowvram = True


@contextmanager
def _anchored(blocks: Mapping[int, nn.Module]) -> Iterator[None]:
    """While entered, nobody moves the blocks: `module.to` changes nothing, and the host takes them for loaded."""

    def stay(fn: object, recurse: bool = True) -> None:
        del fn, recurse

    modules = _modules(blocks)
    for module in modules:
        module._apply = stay  # type: ignore[assignment]
        module.comfy_patched_weights = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in modules:
            del module._apply


def _pin(patcher: ModelPatcher, blocks: Mapping[int, nn.Module]) -> None:
    """Has the host lock the weights in main memory, from where they are copied beside the computation; nothing is
    copied for it. They stay while the run changes experts, since locking takes seconds; the host takes them off a layer
    that it moves, and off all when it unloads the model."""
    for index, block in blocks.items():
        for name, _ in block.named_parameters():
            patcher.pin_weight_to_device(f"{PREFIX}.{index}.{name}")
    patcher.remove_callbacks_with_key(CallbacksMP.ON_DETACH, KEY)
    patcher.add_callback_with_key(CallbacksMP.ON_DETACH, KEY, _unpin)


def _unpin(patcher: ModelPatcher, unpatch_all: bool) -> None:
    """What lies directly on a block belongs to no layer of the host's, and it moves that without a look at the lock."""
    del unpatch_all
    for key in [key for key in patcher.pinned if key.count(".") == PREFIX.count(".") + 2]:
        patcher.unpin_weight(key)


def _modules(blocks: Mapping[int, nn.Module]) -> list[nn.Module]:
    return [module for block in blocks.values() for module in block.modules()]


def _weights(blocks: Mapping[int, nn.Module]) -> Iterator[torch.Tensor]:
    return (w.value for block in blocks.values() for w in block_weights(block))
