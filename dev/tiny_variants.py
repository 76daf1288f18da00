"""Tiny relatives of the Wan transformer with random weights: VACE, Fun's reference frame, Camera."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..wan.lora.files import write_safetensors
from ..wan.miniature.layouts import Shapes, TransformerSize, transformer_layout
from ..wan.miniature.random_family import random_tensors

VACE_CHANNELS, VACE_BLOCKS = 96, 2


def write_variant(path: Path, kind: str, *, seed: int = 5) -> Path:
    """The file, as the host's stock loader reads it; kind: vace, fun reference, camera."""
    size = TransformerSize(input_channels=36 if kind == "camera" else 16)
    more = {"vace": _vace, "fun reference": _reference, "camera": _camera}[kind](size)
    tensors = random_tensors(transformer_layout(size) | more, torch.Generator().manual_seed(seed))
    config = {"transformer": {"num_heads": size.heads, "text_dim": size.text_width}}
    write_safetensors(path, tensors, {"config": json.dumps(config)})
    return path


def _vace(size: TransformerSize) -> Shapes:
    d = size.width
    block = {k: s for k, s in transformer_layout(size).items() if k.startswith("blocks.0.")}
    shapes: Shapes = {
        "vace_patch_embedding.weight": (d, VACE_CHANNELS, 1, 2, 2),
        "vace_patch_embedding.bias": (d,),
    }
    for index in range(VACE_BLOCKS):
        shapes |= {k.replace("blocks.0", f"vace_blocks.{index}"): s for k, s in block.items()}
        for name in ("before_proj", "after_proj") if index == 0 else ("after_proj",):
            shapes[f"vace_blocks.{index}.{name}.weight"] = (d, d)
            shapes[f"vace_blocks.{index}.{name}.bias"] = (d,)
    return shapes


def _reference(size: TransformerSize) -> Shapes:
    return {"ref_conv.weight": (size.width, 16, 2, 2), "ref_conv.bias": (size.width,)}


def _camera(size: TransformerSize) -> Shapes:
    d = size.width
    shapes: Shapes = {
        "control_adapter.conv.weight": (d, 24 * 64, 2, 2),
        "control_adapter.conv.bias": (d,),
    }
    for name in ("conv1", "conv2"):
        shapes[f"control_adapter.residual_blocks.0.{name}.weight"] = (d, d, 3, 3)
        shapes[f"control_adapter.residual_blocks.0.{name}.bias"] = (d,)
    return shapes
