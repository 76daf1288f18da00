"""An expert whose weights ComfyUI holds: the very MODEL that the graph samples with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from comfy.model_management import (
    is_device_cpu,
    load_models_gpu,
    soft_empty_cache,
    unload_model_and_clones,
)
from comfy.model_patcher import ModelPatcher

from ...wan.conditions import ImageCondition
from ...wan.expert import Attention, LinearShape
from ...wan.families import Role, SigmaRange
from ...wan.lora.adapters import AdapterSet
from .attention_override import attention_override
from .block_ring import BUFFERS, BlockRing, block_weights, buffer_bytes
from .block_swap import leave_streamed, load_around, require_swappable
from .borders import differentiable_ops, normal_weights
from .checkpointing import InputsInRam, checkpointed, release_pinned
from .injection import KEY, adapter_sets, with_adapters
from .radial_training import training_attention
from .wan_models import linear_layers, require_wan, require_whole


class HostExpert:
    """`wan.expert.Expert` over a MODEL. The MODEL itself is never changed: adapters go on a clone of its patcher,
    which shares the weights.

    swap_blocks: so many blocks' weights stay in main memory and are brought when their block computes.
    offload_activations: what the blocks keep for the backward pass waits in main memory. Both need `checkpoint_blocks`.
    A MODEL that carries radial attention computes with it here too, unless another attention is handed in.
    """

    def __init__(
        self,
        model: ModelPatcher,
        role: Role,
        sigma_range: SigmaRange,
        *,
        checkpoint_blocks: bool = True,
        batch_shape: tuple[int, ...] = (1, 16, 1, 8, 8),
        swap_blocks: int = 0,
        offload_activations: bool = False,
    ) -> None:
        assert checkpoint_blocks or not (swap_blocks or offload_activations), "a plan refuses it"
        self.role: Role = role
        self.sigma_range = sigma_range
        self._model = model
        self._network = require_wan(model, f"model ({role})")
        self._checkpoint_blocks = checkpoint_blocks
        self._batch_shape = batch_shape
        self._swapped = require_swappable(model, swap_blocks)
        self._offload = offload_activations
        self._clone: ModelPatcher | None = None
        self._left_in_part = False
        """Whether the host has the model on the device without its swapped blocks."""
        self._attention = training_attention(model)

    @property
    def device(self) -> torch.device:
        return self._model.load_device

    def layers(self) -> Mapping[str, LinearShape]:
        return linear_layers(self._network)

    def attach(self, adapters: AdapterSet) -> None:
        self._clone = with_adapters(self._model, [adapters])

    def detach(self) -> None:
        if self._left_in_part:
            self.unload()
        if self._offload and not is_device_cpu(self.device):
            release_pinned()
        if self._clone is not None:
            self._clone.eject_model()
            self._clone.remove_injections(KEY)
            self._clone = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        patcher = self._clone or self._model
        with torch.inference_mode():
            self._load(patcher)
        require_whole(patcher)
        with ExitStack() as stack:
            stack.enter_context(normal_weights(self._network))
            for adapter in (a for adapters in adapter_sets(patcher) for a in adapters.values()):
                # A stack that stays in while training was made in a prompt, as the network was.
                stack.enter_context(normal_weights(adapter))
            stack.enter_context(differentiable_ops())
            if self._checkpoint_blocks:
                self._enter_checkpointing(stack, patcher)
            # Off again before anybody else uses the shared layers, whatever of the host's comes first.
            stack.callback(patcher.eject_model)
            yield

    def _load(self, patcher: ModelPatcher) -> None:
        """The host's own way to bring weights: it ejects and unpatches whatever another clone left in the shared
        modules. In inference mode, because weights moved outside of it break the next prompt.

        Whole, but for the swapped blocks: a layer that the host streams computes from a buffer that the next layer
        overwrites, and the backward pass would read it again. Swapped blocks have buffers of their own (block_ring.py).
        """
        needed = self._activation_bytes()
        if self._swapped:
            load_around(patcher, self._swapped, needed)
        else:
            load_models_gpu([patcher], memory_required=needed, force_full_load=True)

    def _enter_checkpointing(self, stack: ExitStack, patcher: ModelPatcher) -> None:
        device, ring = patcher.load_device, None
        if self._swapped:
            if not is_device_cpu(device):
                self._left_in_part = True
                stack.callback(leave_streamed, patcher, self._swapped)
            ring = BlockRing(self._swapped, device)
            stack.callback(ring.close)
        dropout = any(a.dropout for adapters in adapter_sets(patcher) for a in adapters.values())
        blocks = checkpointed(
            self._network.blocks,
            lend=ring.lend if ring else None,
            inputs=InputsInRam(device) if self._offload else None,
            random=dropout,
        )
        stack.enter_context(blocks)

    def unload(self) -> None:
        patcher = self._clone or self._model
        self._left_in_part = False
        with torch.inference_mode():
            unload_model_and_clones(patcher)
            soft_empty_cache()

    def _activation_bytes(self) -> float:
        """Room for one forward pass by the host's own estimate, for what every block keeps for the backward pass
        (its input, in the dtype of the model), and for the buffers of the swapped blocks."""
        model = self._model.model
        batch, _, frames, height, width = self._batch_shape
        tokens = batch * frames * math.ceil(height / 2) * math.ceil(width / 2)
        # Of inputs in main memory, one is in use and one on its way.
        inputs = 2 if self._offload else len(self._network.blocks)
        kept = tokens * self._network.dim * inputs * model.get_dtype_inference().itemsize
        sizes = (buffer_bytes(block_weights(block)) for block in self._swapped.values())
        buffers = min(BUFFERS, len(self._swapped)) * max(sizes, default=0)
        return model.memory_required([2 * batch, *self._batch_shape[1:]]) + kept + buffers

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
        text = {context.shape[1]} | ({features.shape[1]} if features is not None else set())
        own = attention or self._attention
        options = {"optimized_attention_override": attention_override(own, sigma, text)}
        velocity = self._network(
            x_t.to(dtype),
            timestep,
            context=context.to(dtype),
            clip_fea=None if features is None else features.to(dtype),
            transformer_options=options,
        )
        return velocity.float()
