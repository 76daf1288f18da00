"""The shape of a UMT5 text encoder, read off its own tensors, whatever its size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from .errors import UserError

# Wan pads every prompt to 512 tokens (Wan-Video/Wan2.2, wan/configs/shared_config.py, text_len).
TEXT_TOKENS = 512
METADATA_KEY = "tandem_text_encoder"


class TextEncoderShape(NamedTuple):
    """A UMT5's configuration under the names of its `config.json`, and the padded prompt length."""

    config: dict[str, int]
    tokens: int


def text_encoder_shape(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str], name: str
) -> TextEncoderShape:
    """From tensor shapes alone; only the prompt length (`tokens`) comes from the metadata, if given.

    Raises `UserError` when the tensors are not a UMT5 encoder with its tokenizer.
    """
    first = "encoder.block.0.layer."
    needed = {
        "embedding": "shared.weight",
        "relative bias": f"{first}0.SelfAttention.relative_attention_bias.weight",
        "attention": f"{first}0.SelfAttention.q.weight",
        "feed-forward": f"{first}1.DenseReluDense.wi_1.weight",
        "tokenizer": "spiece_model",
    }
    if missing := [what for what, key in needed.items() if key not in shapes]:
        raise UserError(
            f"{name} has no {', no '.join(missing)}.",
            "A UMT5 text encoder holds its layers and its sentencepiece model (`spiece_model`).",
            "Choose a umt5 file made for ComfyUI.",
        )
    vocabulary, width = shapes["shared.weight"]
    heads = shapes[needed["relative bias"]][1]
    blocks = {key.split(".")[2] for key in shapes if key.startswith("encoder.block.")}
    config = {
        "d_model": width,
        "d_ff": shapes[needed["feed-forward"]][0],
        "d_kv": shapes[needed["attention"]][0] // heads,
        "num_heads": heads,
        "num_layers": len(blocks),
        "vocab_size": vocabulary,
    }
    tokens = json.loads(metadata.get(METADATA_KEY, "{}")).get("tokens", TEXT_TOKENS)
    return TextEncoderShape(config, int(tokens))
