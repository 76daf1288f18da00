"""What a file is that holds no LoRA, or a LoRA for another kind of model."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import UserError
from .header import LoraHeader
from .parts import split_key

READ = "LoRA (lora_A / lora_B or lora_down / lora_up), DoRA, LoHa (hada_), LoKr (lokr_) and differences (diff, w_norm)"
"""The kinds of file that are read, and the words of their keys."""

# The first line that fits any key of a file speaks.
LORAS_OF: tuple[tuple[str, str], ...] = (
    (r"double_blocks|single_blocks|single_transformer_blocks", "Flux or HunyuanVideo"),
    (r"joint_blocks", "Stable Diffusion 3"),
    (r"(?:down|up|input|output)_blocks|mid_block", "Stable Diffusion"),
    (r"(?<!lora_)transformer_blocks", "LTX-Video, Qwen-Image or a similar model"),
    (r"^lora_te|^text_encoder|encoder[._]block[._]\d+[._]layer", "a text encoder"),
)
# What PEFT and LyCORIS train beside the kinds that are read.
OTHER_KINDS: tuple[tuple[str, str], ...] = (
    (r"\.lambda_layer$|\.[qp]_layer\.weight$", "T-LoRA"),
    (r"\.boft_[RPs]\b", "BOFT"),
    (r"\.oft_(?:blocks|diag)$", "OFT or BOFT"),
    (r"\.oft_[Rrs]\b", "OFT"),
    (r"\.[ab][12]\.weight$|\.bm\.weight$|\.glora_", "GLoRA"),
    (r"\.on_input$|\.ia3_l\b", "IA3"),
    (r"\.vera_lambda_", "VeRA"),
    (r"\.vblora_", "VB-LoRA"),
    (r"\.(?:miss|bone)_", "MiSS"),
    (r"\.hra_u\b", "HRA"),
    (r"\.(?:fourierft|waveft)_", "FourierFT or WaveFT"),
    (
        r"\.(?:randlora|gralora|delora|hira|road|c3a|shira|psoft|ln_tuning)_",
        "another adapter of PEFT",
    ),
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
    """Raises `UserError` when the file `name` cannot be a LoRA of these weights, and says what it looks like.

    It cannot when no tensor is part of a LoRA, and when the training began by changing the model's own weights.
    """
    keys = list(header.tensors)
    if not any(split_key(key).part not in (None, "alpha") for key in keys):
        raise _no_lora(keys, name)
    if start := header.settings.foreign_start:
        raise UserError(
            f"{name} fits a model whose own weights were changed when its training began ({start}).",
            "A LoRA fits the model's own weights; PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ take a part out of them.",
            "Save it with PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA of it.",
        )


def _no_lora(keys: list[str], name: str) -> UserError:
    example = f", {keys[0]} for example" if keys else ""
    can_be = f"These kinds are read: {READ}."
    if kind := _first(OTHER_KINDS, keys):
        return UserError(
            f"{name} is of a kind that is not read, {kind}{example}.",
            can_be,
            "Convert it to one of them with the program that wrote it, or train it as one of them.",
        )
    found = _first(MODELS, keys)
    looks = f" It looks like {found}." if found else ""
    return UserError(
        f"{name} holds no LoRA: none of its {len(keys)} tensors is part of one{example}.{looks}",
        can_be,
        "Choose a LoRA file; a whole model is loaded with Load Diffusion Model.",
    )


def _first(table: tuple[tuple[str, str], ...], keys: list[str]) -> str | None:
    for pattern, words in table:
        search = re.compile(pattern).search
        if any(search(key) for key in keys):
            return words
    return None
