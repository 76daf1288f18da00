"""The kinds of update that files hold for a weight: which tensors make one, of what shape, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from math import prod
from typing import NamedTuple

import torch

from .adapters import LoraAdapter
from .dora import Axis, DoRA
from .hadamard import LoHa
from .kronecker import LoKr
from .parts import Part
from .updates import Update

Shape = tuple[int, ...]
Shapes = Mapping[Part, Shape]
Tensors = Mapping[Part, torch.Tensor]


class Kind(NamedTuple):
    """One kind of change of a weight."""

    name: str
    alternatives: tuple[frozenset[Part], ...]
    """The sets of parts that make it, the usual one first."""
    makes: Callable[[Shapes], Shape | None]
    """(outputs, inputs) of the change, a kernel counted as inputs; None when the parts do not fit together."""
    rank: Callable[[Shapes], int | None]
    build: Callable[[Tensors, int | None, float | None], Update]
    """From the tensors, rank and alpha; both are None for a change without a rank."""

    @property
    def parts(self) -> frozenset[Part]:
        """Every part that belongs to this kind."""
        return frozenset[Part]().union(*self.alternatives)


def magnitude_axis(magnitude: Shape, weight: Shape) -> Axis | None:
    """What a DoRA magnitude holds one number for each of, from its shape; None when it fits neither.

    PEFT writes (outputs,), for a convolution (1, outputs, 1, ...); LyCORIS (outputs, 1) or (1, inputs), for a
    convolution with its kernel's ones behind.
    """
    outputs, inputs, *kernel = weight
    ones = (1,) * len(kernel)
    of_peft = (1, outputs, *ones) if kernel else (outputs,)
    if magnitude in ((outputs,), (outputs, 1), (outputs, 1, *ones), of_peft):
        return "outputs"
    return "inputs" if magnitude in ((inputs,), (1, inputs), (1, inputs, *ones)) else None


def with_magnitude(update: Update, magnitude: torch.Tensor, weight: Shape) -> DoRA:
    """`update` as the direction of a DoRA, for a magnitude that fits."""
    axis = magnitude_axis(tuple(magnitude.shape), weight)
    assert axis is not None
    return DoRA(update, magnitude, axis)


def _matrix_shape(shape: Shape) -> Shape | None:
    outputs, inputs = shape[:1], shape[1:]
    return (*outputs, prod(inputs)) if inputs else None


def _product_shape(left: Shape, right: Shape) -> Shape | None:
    if min(len(left), len(right)) < 2 or prod(left[1:]) != right[0]:
        return None
    return (left[0], prod(right[1:]))


def _tucker_shape(core: Shape, left: Shape, right: Shape) -> Shape | None:
    fits = len(core) >= 2 and len(left) == len(right) == 2 and core[:2] == (left[0], right[0])
    return (left[1], right[1] * prod(core[2:])) if fits else None


def _tucker(core: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(outputs, inputs times kernel) of a core (rank, rank, *kernel); `rebuild_tucker` in LyCORIS."""
    core, left, right = (part.detach().float() for part in (core, left, right))
    return torch.einsum("i j ..., i o, j n -> o n ...", core, left, right).flatten(1)


# A factor of a change: stored whole, or as two matrices, or as two around a core that holds the kernel.
_Factor = tuple[Part, Part, Part, Part]
_LOKR: tuple[_Factor, _Factor] = (
    ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_t1"),
    ("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)
_LOHA: tuple[_Factor, _Factor] = (
    ("hada_w1", "hada_w1_a", "hada_w1_b", "hada_t1"),
    ("hada_w2", "hada_w2_a", "hada_w2_b", "hada_t2"),
)


def _factor_shape(shapes: Shapes, factor: _Factor) -> Shape | None:
    whole, left, right, core = factor
    if whole in shapes:
        return _matrix_shape(shapes[whole])
    if core in shapes:
        return _tucker_shape(shapes[core], shapes[left], shapes[right])
    return _product_shape(shapes[left], shapes[right])


def _factor(tensors: Tensors, factor: _Factor) -> tuple[torch.Tensor, ...]:
    whole, left, right, core = factor
    if whole in tensors:
        return (tensors[whole].flatten(1),)
    if core in tensors:
        return (_tucker(tensors[core], tensors[left], tensors[right]),)
    return (tensors[left].flatten(1), tensors[right].flatten(1))


def _factor_sets(factor: _Factor) -> list[frozenset[Part]]:
    whole, left, right, core = factor
    return [frozenset((whole,)), frozenset((left, right)), frozenset((left, right, core))]


def _lora_shape(shapes: Shapes) -> Shape | None:
    down, up, mid = shapes["down"], shapes["up"], shapes.get("mid")
    if mid is None:
        return _product_shape(up, down)
    square = len(mid) >= 2 and mid[0] == mid[1] == down[0]
    if not square or len(down) < 2 or _product_shape(up, mid) is None:
        return None
    return (up[0], prod(down[1:]) * prod(mid[2:]))


def _lora(tensors: Tensors, rank: int | None, alpha: float | None) -> LoraAdapter:
    assert rank is not None
    down, up = (tensors[part].detach().flatten(1).clone() for part in ("down", "up"))
    if "mid" in tensors:
        # The middle factor holds the kernel; together with `down` it is an ordinary one.
        mid = tensors["mid"].detach()
        down = torch.einsum("m n ..., n i -> m i ...", mid, down.to(mid)).flatten(1)
    return LoraAdapter(down, up, rank if alpha is None else alpha).requires_grad_(False)


def _lokr_shape(shapes: Shapes) -> Shape | None:
    first, second = (_factor_shape(shapes, factor) for factor in _LOKR)
    if first is None or second is None:
        return None
    return (first[0] * second[0], first[1] * second[1])


def _lokr_rank(shapes: Shapes) -> int | None:
    # With both factors whole, LyCORIS and ai-toolkit scale by nothing, whatever alpha their file has.
    return next((shapes[b][0] for b in ("lokr_w2_b", "lokr_w1_b") if b in shapes), None)


def _lokr(tensors: Tensors, rank: int | None, alpha: float | None) -> LoKr:
    first, second = (_factor(tensors, factor) for factor in _LOKR)
    return LoKr(first, second, rank=rank, alpha=alpha)


def _loha_shape(shapes: Shapes) -> Shape | None:
    one, two = (_factor_shape(shapes, factor) for factor in _LOHA)
    return one if one == two else None


def _loha(tensors: Tensors, rank: int | None, alpha: float | None) -> LoHa:
    assert rank is not None
    one, two = (_factor(tensors, factor) for factor in _LOHA)
    return LoHa(one, two, rank=rank, alpha=rank if alpha is None else alpha)


KINDS = (
    Kind(
        "LoRA",
        (frozenset(("down", "up")), frozenset(("down", "up", "mid"))),
        _lora_shape,
        lambda shapes: shapes["down"][0],
        _lora,
    ),
    Kind(
        "LoKr",
        tuple(a | b for a, b in product(*map(_factor_sets, _LOKR))),
        _lokr_shape,
        _lokr_rank,
        _lokr,
    ),
    Kind(
        "LoHa",
        tuple(a | b for a, b in product(*(_factor_sets(factor)[1:] for factor in _LOHA))),
        _loha_shape,
        lambda shapes: shapes["hada_w1_b"][0],
        _loha,
    ),
)
DIFFERENCE = "difference"
