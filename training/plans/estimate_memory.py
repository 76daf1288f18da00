"""What a run keeps in memory, by arithmetic alone; tests/comfy/test_memory_estimate.py counts tensors against it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...wan.families import Role
from ..layer_settings import layer_settings
from ..optimizers.names import is_kahan
from .network_sizes import PATCH, NetworkSize
from .plan import TrainingPlan

FLOAT32 = 4
SWAP_BUFFERS = 2
"""Swapped blocks that are on the device at a time: the one at work, and the next."""
INPUTS_AT_HAND = 2
"""Block inputs on the device at a time when they wait in main memory: the one in use, and the next."""
# What a block keeps for its backward pass, counted on ComfyUI's own Wan network with adapters on every layer: tensors
# of tokens x width, of tokens x feed-forward width, of tokens x rank, of text x width, of text x rank.
KEPT_WIDE, KEPT_FFN, KEPT_RANK, KEPT_TEXT, KEPT_TEXT_RANK = 15, 2, 8, 3, 2
WORKING_FFN = 2
"""Gradients under way inside one block: most where its feed-forward part begins, as tensors of tokens x its width."""
ROTATION = 64 * 4 * FLOAT32
"""Bytes of a token's rotary embedding: a float32 matrix of 2 x 2 for each of 64 pairs of channels."""
OPTIMIZER_BYTES = {"automagic": 5, "adamw 8-bit": 2, "adamw 8-bit kahan": 2, "prodigy": 16}
"""For each trained number; AdamW has two float32."""
REMAINDER = 2
"""What bfloat16 numbers keep beside them with Kahan summation."""
ADAMW_BYTES = 8


def lora_params(network: NetworkSize, plan: TrainingPlan, role: Role | None = None) -> int:
    """Trained numbers of one expert; without a role, of the one that has the most."""
    if role is None:
        return max(lora_params(network, plan, each) for each in plan.roles())
    chosen = layer_settings(plan, role, network.layers)
    shapes = {name: network.layers[name] for name in chosen}
    return sum(own.rank * (shapes[n].inputs + shapes[n].outputs) for n, own in chosen.items())


@dataclass(frozen=True, kw_only=True)
class DeviceBytes:
    """What lies on the device while a micro-batch is computed."""

    weights: float
    """One expert's, without the swapped blocks, and the buffers through which those pass."""
    adapters: float
    """Of all trained experts: weights, optimizer, and one expert's gradients."""
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.adapters + self.activations


def number_bytes(plan: TrainingPlan) -> int:
    """Of each trained number."""
    return FLOAT32 if plan.lora.dtype == "float32" else FLOAT32 // 2


def remembered_bytes(plan: TrainingPlan) -> int:
    """What the optimizer and the average keep for each trained number."""
    state = OPTIMIZER_BYTES.get(plan.optimizer.name, ADAMW_BYTES)
    if is_kahan(plan.optimizer.name) and plan.lora.dtype != "float32":
        state += REMAINDER
    return state + (FLOAT32 if plan.optimizer.ema else 0)


def device_bytes(network: NetworkSize, plan: TrainingPlan, tokens: int) -> DeviceBytes:
    """With one expert on the device; `tokens` of the largest clip."""
    params = sum(lora_params(network, plan, role) for role in plan.roles())
    swapped = swapped_bytes(network, plan)
    buffers = min(SWAP_BUFFERS, plan.swap_blocks) * block_weight_bytes(network)
    return DeviceBytes(
        weights=network.weight_bytes - swapped + buffers,
        adapters=params * (number_bytes(plan) + remembered_bytes(plan))
        + gradient_bytes(network, plan),
        activations=activation_bytes(network, plan, tokens),
    )


def block_weight_bytes(network: NetworkSize) -> float:
    """Of one block."""
    numbers = sum(
        s.inputs * s.outputs for n, s in network.layers.items() if n.startswith("blocks.")
    )
    return network.weight_bytes * numbers / network.num_params / network.num_blocks


def swapped_bytes(network: NetworkSize, plan: TrainingPlan) -> float:
    """Weights of the expert at work that stay in main memory."""
    return min(plan.swap_blocks, network.num_blocks) * block_weight_bytes(network)


def offloaded_bytes(
    network: NetworkSize, plan: TrainingPlan, tokens: int, *, pinned: bool = False
) -> float:
    """Activations that wait in main memory. Of pinned memory PyTorch takes a power of two for each tensor."""
    if not plan.offload_activations:
        return 0.0
    each = _wide(network, plan, tokens)
    return network.num_blocks * (2.0 ** math.ceil(math.log2(each)) if pinned else each)


def gradient_bytes(network: NetworkSize, plan: TrainingPlan) -> float:
    """Of one expert's micro-batch, beside the sum of those before it."""
    once = lora_params(network, plan) * number_bytes(plan)
    return once * (2.0 if plan.accumulate > 1 else 1.0)


def activation_bytes(network: NetworkSize, plan: TrainingPlan, tokens: int) -> float:
    """What is kept for the backward pass of a micro-batch, and what one block works with."""
    block, blocks = kept_bytes(network, plan, tokens), network.num_blocks
    wide = _wide(network, plan, tokens)
    working = WORKING_FFN * wide * network.ffn_width / network.width
    shared = _shared_bytes(network, plan, tokens)
    # A block's part is free when its gradients are there: both are never there for all blocks.
    gradients = lora_params(network, plan) * number_bytes(plan) * (1 - 1 / blocks)
    if not plan.checkpoint_blocks:
        return max(blocks * block - gradients, block) + working + shared
    inputs = min(INPUTS_AT_HAND, blocks) if plan.offload_activations else blocks
    return max(inputs * wide - gradients, wide) + block + working + shared


def kept_bytes(network: NetworkSize, plan: TrainingPlan, tokens: int) -> float:
    """What one block keeps for its backward pass, for a whole micro-batch."""
    d, text = network.width, network.text_tokens
    rank = _mean_rank(network, plan)
    numbers = tokens * (KEPT_WIDE * d + KEPT_FFN * network.ffn_width + KEPT_RANK * rank)
    numbers += text * (KEPT_TEXT * d + KEPT_TEXT_RANK * rank)
    copies = 0.0
    if number_bytes(plan) != network.compute_bytes:
        # The factors in the dtype of the forward pass.
        copies = lora_params(network, plan) / network.num_blocks * network.compute_bytes
    return numbers * network.compute_bytes * plan.batch + copies


def _shared_bytes(network: NetworkSize, plan: TrainingPlan, tokens: int) -> float:
    """What there is once for all blocks: latents in float32 (input, noise, target, prediction), rotation, text, and
    what the head keeps."""
    latents = PATCH * FLOAT32 * (network.input_channels + 3 * network.latent_channels)
    text = network.text_tokens * network.width * network.compute_bytes
    sample = tokens * latents + text
    return plan.batch * sample + tokens * ROTATION + _wide(network, plan, tokens)


def _wide(network: NetworkSize, plan: TrainingPlan, tokens: int) -> float:
    """One tensor of a micro-batch's tokens x width."""
    return float(tokens * network.width * network.compute_bytes * plan.batch)


def _mean_rank(network: NetworkSize, plan: TrainingPlan) -> float:
    """Over the layers of the expert that has the most; 0 where nothing is trained."""
    chosen = max(
        (layer_settings(plan, role, network.layers) for role in plan.roles()),
        key=lambda layers: sum(own.rank for own in layers.values()),
    )
    return sum(own.rank for own in chosen.values()) / len(chosen) if chosen else 0.0
