"""A tiny Wan 2.1 image-to-video network with random weights: one model, which takes CLIP vision's features too."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..wan.lora.files import write_safetensors
from ..wan.miniature.layouts import TransformerSize, transformer_layout
from ..wan.miniature.random_family import random_tensors

SEEN = 1280
"""Width of CLIP vision's features."""


def write_wan21(path: Path, *, seed: int = 3) -> Path:
    """The file, as the host's stock loader reads it."""
    size = TransformerSize()
    shapes = transformer_layout(size) | _image_layers(size)
    tensors = random_tensors(shapes, torch.Generator().manual_seed(seed))
    for index, wide in {0: SEEN, 4: size.width}.items():
        # Random as the scale of a norm is, under a name that the generator would not know for one.
        tensors[f"img_emb.proj.{index}.weight"] = tensors.pop(f"img_emb.proj.{index}.norm.weight")
        tensors[f"img_emb.proj.{index}.bias"] = torch.zeros(wide)
    config = {"transformer": {"num_heads": size.heads, "text_dim": size.text_width}}
    write_safetensors(path, tensors, {"config": json.dumps(config)})
    return path


def _image_layers(size: TransformerSize) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (out, into) in {1: (SEEN, SEEN), 3: (size.width, SEEN)}.items():
        shapes[f"img_emb.proj.{index}.weight"] = (out, into)
        shapes[f"img_emb.proj.{index}.bias"] = (out,)
    for index, wide in {0: SEEN, 4: size.width}.items():
        shapes[f"img_emb.proj.{index}.norm.weight"] = (wide,)
    for block in range(size.layers):
        layer = f"blocks.{block}.cross_attn"
        for name in ("k_img", "v_img"):
            shapes[f"{layer}.{name}.weight"] = (size.width, size.width)
            shapes[f"{layer}.{name}.bias"] = (size.width,)
        shapes[f"{layer}.norm_k_img.weight"] = (size.width,)
    return shapes
