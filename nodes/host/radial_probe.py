"""How far sparse attention is from dense, block by block, measured on a run as it goes.

Both are computed of the same queries, keys and values. What is told apart is the decay: each call also measures one
other decay in turn, so that a report can say which is the smallest that is good enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ...radial_attention.attention import prepared
from ...radial_attention.settings import RadialSettings

if TYPE_CHECKING:
    from .radial_calls import RadialCall
    from .radial_record import RadialRecord

DECAYS = (0.1, 0.2, 0.4, 0.8)
GOOD_ENOUGH = 0.2
"""Relative error of a block's attention. Sparse attention that is chosen anew in each call is at 0.17 to 0.22 on Wan
where it is in use (comfy-kitchen, pull request 179)."""


def probed(
    call: RadialCall,
    block: int,
    args: Sequence[Any],
    heads: int,
    dense: Callable[..., torch.Tensor],
    named: Mapping[str, Any],
    *,
    sparse_out: torch.Tensor | None = None,
    dense_out: torch.Tensor | None = None,
) -> None:
    """Measures one call of self-attention, of which one of both ways has been computed."""
    radial = call.radial
    settings, record = radial.patch.settings, radial.record
    with torch.no_grad():
        exact = (dense(*args, **named) if dense_out is None else dense_out).float()
        sparse = call.sparse(args[:3], heads) if sparse_out is None else sparse_out
        record.errors[settings.decay, block].append(_distance(sparse, exact))
        decay = DECAYS[record.model_calls % len(DECAYS)]
        if decay == settings.decay:
            return
        other = prepared(
            replace(settings, decay=decay), call.grid, args[0].device, backend=radial.patch.backend
        )
        record.errors[decay, block].append(_distance(call.sparse(args[:3], heads, other), exact))


def _distance(sparse: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Of the whole output, relative to it; stays on the device."""
    return torch.linalg.vector_norm(sparse.float() - exact) / torch.linalg.vector_norm(exact)


class Proposal(NamedTuple):
    """What a probe advises."""

    decay: float
    dense_layers: str
    errors: dict[int, float]
    """By block, at the decay that the run had."""


def proposal(record: RadialRecord, settings: RadialSettings) -> Proposal | None:
    """From what was measured; None where nothing was."""
    by_decay: dict[float, dict[int, float]] = {}
    for (decay, block), errors in record.errors.items():
        by_decay.setdefault(decay, {})[block] = mean(torch.stack(errors).float().cpu().tolist())
    if settings.decay not in by_decay:
        return None
    good = [d for d in sorted(by_decay) if median(by_decay[d].values()) <= GOOD_ENOUGH]
    decay = good[0] if good else max(by_decay)
    apart = sorted(block for block, error in by_decay[decay].items() if error > GOOD_ENOUGH)
    return Proposal(decay, _list(apart), by_decay[settings.decay])


def _list(blocks: Sequence[int]) -> str:
    """`0-1,5` of 0, 1, 5; `none` of nothing."""
    parts: list[list[int]] = []
    for block in blocks:
        if parts and parts[-1][-1] == block - 1:
            parts[-1].append(block)
        else:
            parts.append([block])
    return ",".join(f"{p[0]}" if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts) or "none"
