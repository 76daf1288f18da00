"""What shapes say when they do not fit: which Wan model the file is for, and which one is here."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from torch import nn

from .bases import SIZES, TASKS

Shape = tuple[int, ...]

PATCH_EMBEDDING = "patch_embedding.weight"
"""The first layer: (width, input channels, 1, 2, 2)."""


def parameter_shapes(network: nn.Module) -> dict[str, Shape]:
    """Every parameter of a network by name, with the shape that it computes with.

    A quantised layer is no `nn.Linear`, its stored shape is packed, and its weight may be no parameter at all.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    for name, module in network.named_modules():
        inputs, outputs = (getattr(module, f"{side}_features", None) for side in ("in", "out"))
        if isinstance(inputs, int) and isinstance(outputs, int):
            shapes[f"{name}.weight"] = (outputs, inputs)
            if getattr(module, "bias", None) is not None:
                shapes[f"{name}.bias"] = (outputs,)
    return shapes


def network_width(parameters: Mapping[str, Shape]) -> int | None:
    """Width of a Wan network, from its first layer or its first query layer."""
    for name in (PATCH_EMBEDDING, "blocks.0.self_attn.q.weight"):
        if name in parameters:
            return parameters[name][0]
    return None


def other_model(target: str, theirs: Shape, parameters: Mapping[str, Shape]) -> str | None:
    """A sentence on the two models when the file's shape of `target` belongs to another known one, else None."""
    ours, width = parameters[target], network_width(parameters)
    if target == PATCH_EMBEDDING and theirs[0] == ours[0]:
        return _other_task(theirs, ours)
    # A layer's inputs and outputs are compared flat, as factors give them.
    if width is None:
        return None
    for one, other in zip(theirs, (ours[0], prod(ours[1:])), strict=False):
        if one != other and other == width and one in SIZES:
            return f"the file is for {_model(one)}; the model is {_model(width)}"
    return None


def is_other_task(target: str, theirs: Shape, parameters: Mapping[str, Shape]) -> bool:
    """Whether the shapes differ in nothing but the input channels: text-to-video against image-to-video."""
    ours = parameters[target]
    return target == PATCH_EMBEDDING and theirs[0] == ours[0] and _channels(theirs, ours) in TASKS


def _model(width: int) -> str:
    return f"Wan {SIZES[width]} (width {width})" if width in SIZES else f"of width {width}"


def _other_task(theirs: Shape, ours: Shape) -> str:
    file, model = (
        f"{TASKS.get(channels, 'another task')} ({channels} input channels)"
        for channels in (_channels(theirs, ours), ours[1])
    )
    return f"the file's first layer is for {file}; the model's is for {model}"


def _channels(theirs: Shape, ours: Shape) -> int:
    return prod(theirs[1:]) // prod(ours[2:])
