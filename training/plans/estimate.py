"""What a run will take: operations and disk, by arithmetic alone. Memory: `estimate_memory.py`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ...wan.shapes import ClipSize, latent_size
from ..checkpoints import KEPT_STATES
from ..data.dataset import Clip, Dataset
from ..layer_settings import layer_settings
from .estimate_memory import FLOAT32, lora_params, number_bytes, remembered_bytes
from .network_sizes import IMAGE_WIDTH, PATCH, NetworkSize
from .plan import TrainingPlan
from .trained import trained_dataset

ATTENTION_BACKWARD = 2.5
"""Operations of a fused attention's backward pass over those of its forward pass: four products, and the scores
computed again (Dao et al. 2022, algorithm 4)."""
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
    lora = _lora_flops(network, plan, tokens)
    return Flops(
        linear=sum(linear.values()) + patches,
        blocks=sum(flops for layer, flops in linear.items() if layer.startswith("blocks.")),
        attention=attention,
        lora=sum(lora.values()),
        linear_backward=sum(f for layer, f in linear.items() if _passes_gradient(layer)),
        # The two factors' own gradients, and what passes through them.
        lora_backward=sum(f * (2 if _passes_gradient(n) else 1.5) for n, f in lora.items()),
    )


@dataclass(frozen=True, kw_only=True)
class DiskBytes:
    """What a run writes."""

    cache: float
    """Encoded clips and captions."""
    checkpoints: float
    """LoRA files of all checkpoints, and the newest ones' states to resume from."""
    num_checkpoints: int
    """At most: the best of each expert may be one that is kept anyway."""

    @property
    def total(self) -> float:
        return self.cache + self.checkpoints


def disk_bytes(network: NetworkSize, plan: TrainingPlan, dataset: Dataset) -> DiskBytes:
    """The cache for all clips in all their views, and the checkpoints that the run keeps."""
    num = _kept_checkpoints(plan)
    params = sum(lora_params(network, plan, role) for role in plan.roles())
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
    """Of the whole run: every sample by its own size, as often as it is shown. Losses on clips that are held out are
    not counted."""
    dataset = trained_dataset(plan, dataset)
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


def _kept_checkpoints(plan: TrainingPlan) -> int:
    """Of those that are saved: with pruning the last, those at multiples, the best of each expert, and a new one."""
    saved = sorted({*range(plan.save_every, plan.steps, plan.save_every), plan.steps})
    last, every = plan.prune.last, plan.prune.every
    if not (last or every):
        return len(saved)
    kept = set(saved[-max(last, KEPT_STATES) :])
    kept |= {step for step in saved if every and step % every == 0}
    return min(len(saved), len(kept) + len(plan.roles()) + 1)


def _lora_flops(network: NetworkSize, plan: TrainingPlan, tokens: int) -> dict[str, float]:
    """Of the adapters by layer; of two experts, those of the first."""
    flops = {}
    for layer, own in layer_settings(plan, plan.roles()[0], network.layers).items():
        shape = network.layers[layer]
        wide = shape.inputs + shape.outputs
        flops[layer] = 2.0 * network.layer_tokens(layer, tokens) * own.rank * wide
    return flops


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
