"""A Wan 2.2 image-to-video family with random weights: proves that the pipes hold water, no more."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import sentencepiece
import torch

from ..lora.files import write_safetensors
from ..text_encoder import METADATA_KEY
from .layouts import (
    Shapes,
    TextEncoderSize,
    TransformerSize,
    text_encoder_layout,
    transformer_layout,
    vae_layout,
)

CORPUS = (
    "A bicycle race on a sunny street, riders pass the camera.",
    "A man talks in a moving car, trees pass behind the window.",
    "A big rabbit walks through a green meadow under a blue sky.",
    "A woman transforms into a beautiful mermaid with shimmering tail underwater.",
    "The camera pans left, zooms in, rises above the town and turns around.",
    "blurry, still, low quality, watermark, text",
    "red green blue yellow white black circle square triangle moves up down right",
)


class FamilyFiles(NamedTuple):
    """Where a family lies in a host's models folder."""

    high_noise: Path
    low_noise: Path
    vae: Path
    text_encoder: Path


def write_family(
    models_dir: Path,
    *,
    seed: int = 0,
    transformer: TransformerSize = TransformerSize(),  # noqa: B008 - frozen
    text_encoder: TextEncoderSize = TextEncoderSize(),  # noqa: B008 - frozen
    vae_width: int = 4,
    prefix: str = "tiny_wan2.2_i2v",
) -> FamilyFiles:
    """Writes two experts, a VAE and a text encoder where ComfyUI's stock loaders look for them."""
    generator = torch.Generator().manual_seed(seed)
    files = FamilyFiles(
        models_dir / "diffusion_models" / f"{prefix}_high_noise.safetensors",
        models_dir / "diffusion_models" / f"{prefix}_low_noise.safetensors",
        models_dir / "vae" / f"{prefix}_vae.safetensors",
        models_dir / "text_encoders" / f"{prefix}_umt5.safetensors",
    )
    # The host derives heads from the width and knows one text width only; `config` overrides both.
    config = {"transformer": {"num_heads": transformer.heads, "text_dim": transformer.text_width}}
    for path in (files.high_noise, files.low_noise):
        tensors = random_tensors(transformer_layout(transformer), generator)
        write_safetensors(path, tensors, {"config": json.dumps(config)})
    write_safetensors(files.vae, random_tensors(vae_layout(vae_width), generator), {})
    _write_text_encoder(files.text_encoder, text_encoder, generator)
    return files


def random_tensors(shapes: Shapes, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Weights that keep the size of what passes through: norms 1, biases 0, the rest 1 / sqrt(inputs)."""
    return {name: _tensor(name, shape, generator) for name, shape in shapes.items()}


def train_tokenizer(
    sentences: Iterable[str], vocabulary: int, whole_words: Iterable[str] = ()
) -> bytes:
    """A sentencepiece model in UMT5's manner: 0 pads, 1 ends; bytes stand in for unknown letters.

    Each of `whole_words` becomes a piece of its own, however seldom it is.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(sentences)),
        model_writer=model,
        vocab_size=vocabulary,
        model_type="unigram",
        byte_fallback=True,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        user_defined_symbols=[f"\N{LOWER ONE EIGHTH BLOCK}{word}" for word in whole_words],
        minloglevel=2,
    )
    return model.getvalue()


def _write_text_encoder(path: Path, size: TextEncoderSize, generator: torch.Generator) -> None:
    proto = train_tokenizer(CORPUS, size.vocabulary)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto).get_piece_size()
    tensors = random_tensors(text_encoder_layout(replace(size, vocabulary=pieces)), generator)
    tensors["spiece_model"] = torch.frombuffer(bytearray(proto), dtype=torch.uint8)
    write_safetensors(path, tensors, {METADATA_KEY: json.dumps({"tokens": size.tokens})})


def _tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape)
    if name.endswith("gamma") or "norm" in name.rsplit(".", 2)[-2]:
        return torch.ones(shape)
    if name == "shared.weight" or name.endswith("modulation"):
        return torch.randn(shape, generator=generator) * (1.0 if name == "shared.weight" else 0.1)
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
