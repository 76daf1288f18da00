"""What can be measured on a file's updates: how large they are, whether they are zero, which file is which."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch

from .adapters import LoraAdapter

Value = TypeVar("Value")

MEASURED = 24
"""Modules that are measured, of some 400: their weights are read once a model, at 0.1-0.2 s each on one CPU core."""
SAMPLED_VALUES = 16
"""Values of each tensor that go into a digest."""

# Ours, not the field's: a useful LoRA of the miniature family measures 0.02-0.15, its first checkpoint 0.003-0.008.
INVISIBLE = 1e-5
FAINT = 1e-3
UNUSUAL = 1.0


class Change(Protocol):
    """The change of one parameter that a file makes at strength 1."""

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        """The change, float32, in the shape of `weight`."""
        ...


class UpdateSize(NamedTuple):
    """How large a file's updates are at strength 1, relative to the weights that they change."""

    median: float | None
    """Of |delta| / |W| (Frobenius norms) over the measured modules; None when no weight could be read."""
    measured: int
    modules: int
    zero: bool
    """Every update of the file is exactly zero."""

    def words(self, strength: float) -> str:
        """How that is to be read at `strength`; the limits are ours."""
        if self.zero:
            return "zero: it changes nothing"
        if self.median is None:
            return "not measured: the weights cannot be read as numbers"
        share = self.median * abs(strength)
        return f"{share:.2g} of the weights (median of {self.measured} modules), {_word(share)}"


class WeightNorms:
    """The norms of one network's parameters, each computed when it is first asked for, then kept."""

    def __init__(self, weight_of: Callable[[str], torch.Tensor | None]) -> None:
        """`weight_of(name)` is the parameter as numbers, or None when it is quantised and cannot be read."""
        self.weight = weight_of
        self._norms: dict[str, float | None] = {}

    def norm(self, name: str) -> float | None:
        """Frobenius norm, or None when the parameter cannot be read as numbers."""
        if name not in self._norms:
            weight = self.weight(name)
            self._norms[name] = None if weight is None else _norm(weight)
        return self._norms[name]


def update_size(
    updates: Mapping[str, Change], weights: WeightNorms, *, at_most: int = MEASURED
) -> UpdateSize:
    """How large the updates are, from at most `at_most` matrices that are spread evenly over the network."""
    shares = []
    for name in spread(_matrices(updates), at_most):
        norm = weights.norm(name)
        change = (
            update_norm(updates[name], lambda name=name: weights.weight(name)) if norm else None
        )
        if norm and change is not None:
            shares.append(change / norm)
    zero = bool(updates) and all(_is_zero(updates[name], weights, name) for name in updates)
    return UpdateSize(
        statistics.median(shares) if shares else None, len(shares), len(updates), zero
    )


def update_norm(update: Change, weight: Callable[[], torch.Tensor | None]) -> float | None:
    """Frobenius norm of the change at strength 1; of low-rank factors, without their product or the weight.

    weight: gives the parameter as numbers, or None when it cannot be read; then there is no norm of other kinds.
    """
    if type(update) is LoraAdapter:
        return low_rank_norm(update.down, update.up) * abs(update.alpha / update.rank)
    found = weight()
    return None if found is None else _norm(update.delta(found))


def low_rank_norm(down: torch.Tensor, up: torch.Tensor) -> float:
    """|up down| for `down` (rank, inputs) and `up` (outputs, rank): trace((A A^T)(B^T B)) of two rank x rank matrices.

    In float64, since the two may cancel.
    """
    with torch.no_grad():
        a, b = down.flatten(1).double(), up.flatten(1).double()
        return ((a @ a.T) * (b.T @ b)).sum().clamp(min=0).sqrt().item()


def spread(items: Sequence[Value], at_most: int) -> list[Value]:
    """`items` when there are few, else `at_most` of them at even distances, the first among them."""
    if len(items) <= at_most:
        return list(items)
    return [items[number * len(items) // at_most] for number in range(at_most)]


def content_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """16 hex digits of names, shapes, dtypes and a fixed sample of values: equal for copies under other names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLED_VALUES)][:SAMPLED_VALUES]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(sample.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _word(share: float) -> str:
    if share < INVISIBLE:
        return "too small to see"
    if share < FAINT:
        return "faint"
    return "unusually large" if share >= UNUSUAL else "a usual size"


def _norm(tensor: torch.Tensor) -> float:
    # Row by row: 70 million squares summed in one float32 are off by 0.6 %, and float64 takes twice as long.
    rows = tensor.detach().reshape(tensor.shape[0] if tensor.ndim > 1 else 1, -1)
    rows = rows.float() if rows.dtype.itemsize == 1 else rows
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32).double().norm().item()


def _matrices(updates: Mapping[str, Change]) -> list[str]:
    """The parameters that are matrices; a file of norms and biases only is measured on those."""
    named = [name for name in updates if name.endswith("weight") and "norm" not in name]
    return named or list(updates)


def _is_zero(update: Change, weights: WeightNorms, name: str) -> bool:
    if type(update) is LoraAdapter:
        return not (bool(update.up.any()) and bool(update.down.any()) and update.alpha)
    weight = weights.weight(name)
    return weight is not None and not bool(update.delta(weight).any())
