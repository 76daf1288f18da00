"""An optimizer's memory in 8 bits a number, by blocks (Dettmers et al. 2022), in torchao's codes."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch

from ...wan.errors import UserError

BLOCK = 256
"""Numbers that share a scale."""
LEAST = 4096
"""A smaller tensor is kept in float32: there is little to save, and its numbers differ more."""
MISSING = "torchao is not installed: AdamW with 32-bit states takes the place of 8-bit AdamW."


def is_installed() -> bool:
    """Whether the library that knows the codes is there."""
    return find_spec("torchao") is not None


def fits_blocks(tensor: torch.Tensor) -> bool:
    """Whether a tensor is large enough, and divides into whole blocks."""
    return tensor.numel() >= LEAST and tensor.numel() % BLOCK == 0


def encode(value: torch.Tensor, *, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 codes in the value's shape, and a float32 scale for each block."""
    quant = quant_functions()
    scaled, scale = quant.scale_tensor(value.contiguous(), BLOCK)
    return quant.quantize_8bit_with_qmap(scaled, _map(signed, value.device)), scale


def decode(codes: torch.Tensor, scale: torch.Tensor, *, signed: bool) -> torch.Tensor:
    """The float32 values that codes and scales stand for."""
    return quant_functions().dequant_with_qmap(codes, _map(signed, codes.device), scale)


def quant_functions() -> ModuleType:
    """torchao's functions for the codes. They run as they are: its own optimizers compile theirs at the first step,
    which takes a C++ compiler and half a minute."""
    try:
        from torchao.optim import quant_utils
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"torchao cannot be loaded ({error}).",
            "The 8-bit optimizers need it, in a version that fits torch.",
            "Install it (pip install torchao), or choose adamw in the plan.",
        ) from error
    return quant_utils


@cache
def _map(signed: bool, device: torch.device) -> torch.Tensor:
    """The number between -1 and 1 that each code stands for."""
    return torch.tensor(quant_functions().create_dynamic_map(signed=signed), device=device)
