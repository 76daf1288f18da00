"""What a file is that holds no LoRA, or a LoRA for another kind of model."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import UserError
from .header import LoraHeader
from .parts import split_key

# The first line that fits any key of a file speaks.
LORAS_OF: tuple[tuple[str, str], ...] = (
    (r"double_blocks|single_blocks|single_transformer_blocks", "Flux or HunyuanVideo"),
    (r"joint_blocks", "Stable Diffusion 3"),
    (r"(?:down|up|input|output)_blocks|mid_block", "Stable Diffusion"),
    (r"(?<!lora_)transformer_blocks", "LTX-Video, Qwen-Image or a similar model"),
    (r"^lora_te|^text_encoder|encoder[._]block[._]\d+[._]layer", "a text encoder"),
)
MODELS: tuple[tuple[str, str], ...] = (
    (r"blocks\.\d+\.self_attn\.[qkvo]\.weight$", "a whole Wan model"),
    (r"blocks\.\d+\.attn1\.to_[qkv]\.weight$", "a whole Wan model with diffusers' names"),
    (r"(?:encoder|decoder)\.(?:downsamples|upsamples|down_blocks|up_blocks|conv1)\b", "a VAE"),
    (r"encoder\.block\.\d+\.layer|^token_embedding|^shared\.weight$", "a text encoder"),
    (r"vision_model|^visual\.", "an image encoder"),
    (r"double_blocks|transformer_blocks|input_blocks", "a whole model of another kind"),
    (r"\.(?:weight|bias)$", "a model's own weights"),
)


def lora_of(keys: Iterable[str]) -> str | None:
    """The kind of model, other than Wan, that a LoRA's keys are for; None when they do not tell."""
    return _first(LORAS_OF, list(keys))


def require_lora(header: LoraHeader, name: str) -> None:
    """Raises `UserError` when no tensor of the file `name` is part of a LoRA, and says what the file looks like."""
    keys = list(header.tensors)
    if any(split_key(key).part not in (None, "alpha") for key in keys):
        return
    found = _first(MODELS, keys)
    looks = f" It looks like {found}." if found else ""
    example = f", {keys[0]} for example" if keys else ""
    raise UserError(
        f"{name} holds no LoRA: none of its {len(keys)} tensors is part of one{example}.{looks}",
        "A LoRA's keys end in lora_A / lora_B, lora_down / lora_up, lokr_, hada_ or diff.",
        "Choose a LoRA file; a whole model is loaded with Load Diffusion Model.",
    )


def _first(table: tuple[tuple[str, str], ...], keys: list[str]) -> str | None:
    for pattern, words in table:
        search = re.compile(pattern).search
        if any(search(key) for key in keys):
            return words
    return None
