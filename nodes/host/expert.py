"""An expert whose weights ComfyUI holds: the very MODEL that the graph samples with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_management import (
    load_models_gpu,
    soft_empty_cache,
    unload_model_and_clones,
)
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...wan.conditions import ImageCondition
from ...wan.expert import Attention, LinearShape
from ...wan.families import Role, SigmaRange
from ...wan.lora.adapters import AdapterSet
from .borders import differentiable_ops, normal_weights
from .injection import KEY, adapter_sets, with_adapters
from .wan_models import linear_layers, require_wan, require_whole


class HostExpert:
    """`wan.expert.Expert` over a MODEL. The MODEL itself is never changed: adapters go on a clone of its patcher,
    which shares the weights."""

    def __init__(
        self,
        model: ModelPatcher,
        role: Role,
        sigma_range: SigmaRange,
        *,
        checkpoint_blocks: bool = True,
        batch_shape: tuple[int, ...] = (1, 16, 1, 8, 8),
    ) -> None:
        self.role: Role = role
        self.sigma_range = sigma_range
        self._model = model
        self._network = require_wan(model, f"model ({role})")
        self._checkpoint_blocks = checkpoint_blocks
        self._batch_shape = batch_shape
        self._clone: ModelPatcher | None = None

    @property
    def device(self) -> torch.device:
        return self._model.load_device

    def layers(self) -> Mapping[str, LinearShape]:
        return linear_layers(self._network)

    def attach(self, adapters: AdapterSet) -> None:
        self._clone = with_adapters(self._model, [adapters])

    def detach(self) -> None:
        if self._clone is not None:
            self._clone.eject_model()
            self._clone.remove_injections(KEY)
            self._clone = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        patcher = self._clone or self._model
        # The host's own way to bring weights: it ejects and unpatches whatever another clone left in the
        # shared modules. Inference mode, because weights moved outside of it break the next prompt.
        # Whole, because a layer that is streamed in computes from a buffer that the next layer overwrites,
        # and the backward pass would read it again.
        with torch.inference_mode():
            load_models_gpu(
                [patcher], memory_required=self._activation_bytes(), force_full_load=True
            )
        require_whole(patcher)
        with ExitStack() as stack:
            stack.enter_context(normal_weights(self._network))
            for adapter in (a for adapters in adapter_sets(patcher) for a in adapters.values()):
                # A stack that stays in while training was made in a prompt, as the network was.
                stack.enter_context(normal_weights(adapter))
            stack.enter_context(differentiable_ops())
            if self._checkpoint_blocks:
                stack.enter_context(_checkpointed(self._network.blocks))
            # Off again before anybody else uses the shared layers, whatever of the host's comes first.
            stack.callback(patcher.eject_model)
            yield

    def unload(self) -> None:
        patcher = self._clone or self._model
        with torch.inference_mode():
            unload_model_and_clones(patcher)
            soft_empty_cache()

    def _activation_bytes(self) -> float:
        """Room for one forward pass by the host's own estimate, and for what every block keeps for the
        backward pass: its input, in the dtype of the model."""
        model = self._model.model
        batch, _, frames, height, width = self._batch_shape
        tokens = batch * frames * math.ceil(height / 2) * math.ceil(width / 2)
        kept = (
            tokens
            * self._network.dim
            * len(self._network.blocks)
            * model.get_dtype_inference().itemsize
        )
        return model.memory_required([2 * batch, *self._batch_shape[1:]]) + kept

    def velocity(
        self,
        x_t: torch.Tensor,
        sigma: torch.Tensor,
        context: torch.Tensor,
        image_condition: ImageCondition | None,
        attention: Attention | None = None,
    ) -> torch.Tensor:
        patcher = self._clone or self._model
        dtype = patcher.model.get_dtype_inference()
        features = None
        if image_condition is not None:
            x_t = torch.cat([x_t, image_condition.channels()], dim=1)
            features = image_condition.clip_vision
        timestep = patcher.get_model_object("model_sampling").timestep(sigma).float()
        options = {"optimized_attention_override": _attention_override(attention, sigma)}
        velocity = self._network(
            x_t.to(dtype),
            timestep,
            context=context.to(dtype),
            clip_fea=None if features is None else features.to(dtype),
            transformer_options=options,
        )
        return velocity.float()


@contextmanager
def _checkpointed(blocks: nn.ModuleList) -> Iterator[None]:
    """Each block's activations are computed again in the backward pass instead of being kept."""
    patched_before = [vars(block).get("forward") for block in blocks]
    for index, block in enumerate(blocks):
        block.forward = _recomputing(block.forward, index)
    try:
        yield
    finally:
        for block, before in zip(blocks, patched_before, strict=True):
            del block.forward
            if before is not None:
                block.forward = before


def _recomputing(forward: Callable[..., torch.Tensor], index: int) -> Callable[..., torch.Tensor]:
    def recomputed(
        *args: Any, transformer_options: Mapping[str, Any], **kwargs: Any
    ) -> torch.Tensor:
        # The host writes the index of the block at hand into one shared dict; by the time of the backward
        # pass it names the last block, so every block keeps its own.
        options = {**transformer_options, "block_index": index}
        out = checkpoint(forward, *args, transformer_options=options, use_reentrant=False, **kwargs)
        assert out is not None
        return out

    return recomputed


def _attention_override(
    attention: Attention | None, sigma: torch.Tensor
) -> Callable[..., torch.Tensor]:
    """PyTorch's attention, which always has a backward pass, or the one that was handed in for self-attention."""

    def override(
        chosen: Callable[..., torch.Tensor],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        **kwargs: Any,
    ) -> torch.Tensor:
        del chosen
        options = kwargs.get("transformer_options", {})
        grid = tuple(options.get("grid_sizes", ()))
        if attention is None or q.shape[1] != torch.Size(grid).numel() or k.shape[1] != q.shape[1]:
            return attention_pytorch(q, k, v, heads, **kwargs)
        q, k, v = (rearrange(t, "b l (n d) -> b l n d", n=heads) for t in (q, k, v))
        out = attention(q, k, v, block=options["block_index"], grid=grid, sigma=sigma)
        return rearrange(out, "b l n d -> b l (n d)")

    return override
