"""What a run will take: operations, memory and disk, by arithmetic alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ...wan.lora.adapters import pick_layers
from ...wan.shapes import ClipSize, latent_size
from ..checkpoints import KEPT_STATES
from ..data.dataset import Clip, Dataset
from ..optimizers.names import is_kahan
from .network_sizes import IMAGE_WIDTH, PATCH, NetworkSize
from .plan import TrainingPlan

FLOAT32 = 4
ATTENTION_BACKWARD = 2.5
"""Operations of a fused attention's backward pass over those of its forward pass: four products, and the scores
computed again (Dao et al. 2022, algorithm 4)."""
# What a block keeps for its backward pass, counted on ComfyUI's own Wan network with adapters on every layer: tensors
# of tokens x width, of tokens x feed-forward width, of tokens x rank, of text x width, of text x rank.
KEPT_WIDE, KEPT_FFN, KEPT_RANK, KEPT_TEXT, KEPT_TEXT_RANK = 15, 2, 8, 3, 2
WORKING_WIDE, WORKING_FFN = 4, 2
"""Gradients and products under way inside one block (our guess)."""
OPTIMIZER_BYTES = {"automagic": 5, "adamw 8-bit": 2, "adamw 8-bit kahan": 2, "prodigy": 16}
"""For each trained number; AdamW has two float32."""
REMAINDER = 2
"""What bfloat16 numbers keep beside them with Kahan summation."""
ADAMW_BYTES = 8
TOKENS_PER_WORD = 2


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations of one sample."""

    linear: float
    """The network's own linear layers, forward."""
    blocks: float
    """The part of `linear` inside the blocks."""
    attention: float
    """Forward."""
    lora: float
    """The adapters, forward."""
    linear_backward: float
    """Gradients with respect to what goes into the layers; frozen weights need none of their own."""
    lora_backward: float

    @property
    def forward(self) -> float:
        return self.linear + self.attention + self.lora

    def training(self, *, recompute: bool, attention_backward: float = ATTENTION_BACKWARD) -> float:
        """Forward, backward, and the blocks' forward again if they are recomputed."""
        backward = self.linear_backward + attention_backward * self.attention + self.lora_backward
        again = self.blocks + self.attention + self.lora if recompute else 0.0
        return self.forward + again + backward


def sample_flops(network: NetworkSize, plan: TrainingPlan, tokens: int) -> Flops:
    """Of one sample of so many tokens. A product of (n, k) and (k, m) counts 2 n k m."""

    def product(layer: str) -> float:
        shape = network.layers[layer]
        return 2.0 * network.layer_tokens(layer, tokens) * shape.inputs * shape.outputs

    linear = {layer: product(layer) for layer in network.layers}
    patches = 2.0 * tokens * network.input_channels * PATCH * network.width
    attended = tokens + network.text_tokens + network.image_tokens
    attention = 4.0 * network.num_blocks * tokens * attended * network.width
    lora = {layer: _lora_flops(network, plan, layer, tokens) for layer in targets(network, plan)}
    return Flops(
        linear=sum(linear.values()) + patches,
        blocks=sum(flops for layer, flops in linear.items() if layer.startswith("blocks.")),
        attention=attention,
        lora=sum(lora.values()),
        linear_backward=sum(f for layer, f in linear.items() if _passes_gradient(layer)),
        # The two factors' own gradients, and what passes through them.
        lora_backward=sum(f * (2 if _passes_gradient(n) else 1.5) for n, f in lora.items()),
    )


def targets(network: NetworkSize, plan: TrainingPlan) -> list[str]:
    """The layers that get an adapter."""
    return pick_layers(network.layers, plan.lora.targets)


def lora_params(network: NetworkSize, plan: TrainingPlan) -> int:
    """Trained numbers of one expert."""
    shapes = [network.layers[layer] for layer in targets(network, plan)]
    return sum(plan.lora.rank * (shape.inputs + shape.outputs) for shape in shapes)


@dataclass(frozen=True, kw_only=True)
class DeviceBytes:
    """What lies on the device while a micro-batch is computed."""

    weights: float
    """One expert's."""
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
    params, experts = lora_params(network, plan), len(plan.roles())
    kept, number = remembered_bytes(plan), number_bytes(plan)
    # The numbers and what goes with them, their gradients, and a copy in the dtype of the forward pass.
    adapters = params * (experts * (number + kept) + number + network.compute_bytes)
    return DeviceBytes(
        weights=network.weight_bytes,
        adapters=adapters,
        activations=activation_bytes(network, plan, tokens),
    )


def activation_bytes(network: NetworkSize, plan: TrainingPlan, tokens: int) -> float:
    """What is kept for the backward pass of a micro-batch, and what one block works with."""
    block, blocks = kept_bytes(network, plan, tokens), network.num_blocks
    wide = tokens * network.width * network.compute_bytes * plan.batch
    working = WORKING_WIDE * wide + WORKING_FFN * wide * network.ffn_width / network.width
    if plan.checkpoint_blocks:
        return blocks * wide + block + working
    return blocks * block + working


def kept_bytes(network: NetworkSize, plan: TrainingPlan, tokens: int) -> float:
    """What one block keeps for its backward pass, for a whole micro-batch."""
    d, text = network.width, network.text_tokens
    rank = plan.lora.rank if targets(network, plan) else 0
    numbers = tokens * (KEPT_WIDE * d + KEPT_FFN * network.ffn_width + KEPT_RANK * rank)
    numbers += text * (KEPT_TEXT * d + KEPT_TEXT_RANK * rank)
    return numbers * network.compute_bytes * plan.batch


@dataclass(frozen=True, kw_only=True)
class DiskBytes:
    """What a run writes."""

    cache: float
    """Encoded clips and captions."""
    checkpoints: float
    """LoRA files of all checkpoints, and the newest ones' states to resume from."""
    num_checkpoints: int

    @property
    def total(self) -> float:
        return self.cache + self.checkpoints


def disk_bytes(network: NetworkSize, plan: TrainingPlan, dataset: Dataset) -> DiskBytes:
    """The cache for all clips in all their views, and every checkpoint of the run."""
    num = math.ceil(plan.steps / plan.save_every)
    params = lora_params(network, plan) * len(plan.roles())
    number, average = number_bytes(plan), FLOAT32 if plan.optimizer.ema else 0
    # While a checkpoint is written the two before it still have their states.
    states = min(num, KEPT_STATES + 1) * params * (number + remembered_bytes(plan))
    captions = {clip.caption for clip in dataset.clips}
    cache = sum(_view_bytes(network, dataset, clip) * len(clip.views) for clip in dataset.clips)
    cache += sum(_caption_bytes(network, text) for text in captions)
    return DiskBytes(
        cache=cache, checkpoints=num * params * (number + average) + states, num_checkpoints=num
    )


def run_flops(network: NetworkSize, plan: TrainingPlan, dataset: Dataset) -> float:
    """Of the whole run: every sample by its own size, as often as it is shown."""
    counts = dataset.counts()
    if not counts.shown:
        return 0.0
    known: dict[int, float] = {}
    shown = 0.0
    for clip in dataset.clips:
        tokens = network.tokens(dataset.clip_size(clip))
        if tokens not in known:
            flops = sample_flops(network, plan, tokens)
            known[tokens] = flops.training(recompute=plan.checkpoint_blocks)
        shown += clip.repeats * known[tokens]
    return shown / counts.shown * plan.steps * plan.accumulate * plan.batch


def largest_clip(network: NetworkSize, sizes: Iterable[ClipSize]) -> ClipSize:
    """The size with the most tokens, which decides the memory."""
    return max(sizes, key=network.tokens)


def _lora_flops(network: NetworkSize, plan: TrainingPlan, layer: str, tokens: int) -> float:
    shape = network.layers[layer]
    return (
        2.0 * network.layer_tokens(layer, tokens) * plan.lora.rank * (shape.inputs + shape.outputs)
    )


def _passes_gradient(layer: str) -> bool:
    """Whether what goes into the layer depends on an adapter before it: not the text, not the first block's input."""
    if layer.startswith(("text_embedding", "time_", "img_emb", "blocks.0.self_attn.q")):
        return False
    if layer.startswith(("blocks.0.self_attn.k", "blocks.0.self_attn.v")):
        return False
    return not layer.endswith(("cross_attn.k", "cross_attn.v", ".k_img", ".v_img"))


def _view_bytes(network: NetworkSize, dataset: Dataset, clip: Clip) -> float:
    size = latent_size(dataset.clip_size(clip))
    cells = math.prod(size) / (4 if network.latent_channels == 48 else 1)
    takes_image = network.input_channels > network.latent_channels
    latents = cells * network.latent_channels * (2 if takes_image else 1)
    return FLOAT32 * (latents + network.image_tokens * IMAGE_WIDTH)


def _caption_bytes(network: NetworkSize, caption: str) -> float:
    width = network.layers["text_embedding.0"].inputs
    tokens = min(network.text_tokens, TOKENS_PER_WORD * len(caption.split()) + 1)
    return float(FLOAT32 * tokens * width)
