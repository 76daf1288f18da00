"""Quantised copies of small models, in the two forms in which public files come."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

FORMS = ("scaled_fp8", "comfy_quant")
FP8_MAX = 448
"""Greatest number of float8_e4m3fn."""


def quantise(source: Path, target: Path, form: str) -> None:
    """Writes the linear layers of every block as float8 with one scale each, as ComfyUI's loader reads them."""
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(source)
    for key in [k for k in tensors if k.startswith("blocks.") and tensors[k].ndim == 2]:
        scale = tensors[key].abs().max() / FP8_MAX
        tensors[key] = (tensors[key] / scale).to(torch.float8_e4m3fn)
        layer = key.removesuffix(".weight")
        if form == "scaled_fp8":
            tensors[f"{layer}.scale_weight"] = scale
        else:
            conf = json.dumps({"format": "float8_e4m3fn"}).encode()
            tensors[f"{layer}.weight_scale"] = scale
            tensors[f"{layer}.comfy_quant"] = torch.tensor(list(conf), dtype=torch.uint8)
    if form == "scaled_fp8":
        tensors["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(tensors, target, metadata=metadata)
