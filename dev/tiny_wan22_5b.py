"""A tiny Wan 2.2 5B with random weights: its network, and its VAE where the host is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from ..wan.lora.files import write_safetensors
from ..wan.miniature.layouts import TransformerSize, transformer_layout
from ..wan.miniature.random_family import random_tensors

CHANNELS = 48
WIDTH = 4
"""Of the VAE's first level, where the real one has 160 and 256."""
SIZE = TransformerSize(layers=2, input_channels=CHANNELS, output_channels=CHANNELS)


def write_5b(path: Path, *, seed: int = 5) -> Path:
    """The file, as the host's stock loader reads it."""
    tensors = random_tensors(transformer_layout(SIZE), torch.Generator().manual_seed(seed))
    config = {"transformer": {"num_heads": SIZE.heads, "text_dim": SIZE.text_width}}
    write_safetensors(path, tensors, {"config": json.dumps(config)})
    return path


def tiny_vae(*, seed: int = 5) -> Any:
    """The host's own VAE object around its own Wan 2.2 network, made narrow. Needs ComfyUI imported.

    The host reads no width off the file, so the class is asked for another one while the file is loaded.
    """
    import comfy.ldm.wan.vae2_2 as host
    import comfy.sd

    real = host.WanVAE

    def narrow(**config: Any) -> Any:
        return real(**{**config, "dim": WIDTH, "dec_dim": WIDTH})

    with mock.patch.object(host, "WanVAE", narrow):
        empty = narrow(z_dim=CHANNELS, temperal_downsample=[False, True, True])
        shapes = {name: tuple(weight.shape) for name, weight in empty.state_dict().items()}
        weights = random_tensors(shapes, torch.Generator().manual_seed(seed))
        return comfy.sd.VAE(sd=weights)
