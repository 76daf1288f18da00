"""What a change of a parameter does to its layer's output, where the output is linear in that parameter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

Effect = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""effect(input of the layer, change of the parameter): what the layer's output gains."""


def effect_of(layer: nn.Module, parameter: str) -> Effect | None:
    """The effect of `parameter` of `layer`, or None when there is no such formula."""
    if parameter == "bias":
        return _conv_bias if isinstance(layer, _ConvNd) else _bias
    if parameter != "weight":
        return None
    if isinstance(layer, nn.RMSNorm):
        return lambda x, change: F.rms_norm(x, layer.normalized_shape, change, layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return lambda x, change: F.layer_norm(x, layer.normalized_shape, change, None, layer.eps)
    if isinstance(layer, _ConvNd):
        return lambda x, change: layer._conv_forward(x, change, None)
    return None


def _bias(x: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    del x
    return change


def _conv_bias(x: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    return change.reshape(-1, *[1] * (x.ndim - 2))
