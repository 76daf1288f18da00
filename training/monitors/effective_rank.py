"""How many directions a LoRA really uses, of as many as its rank has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch

from ...wan.families import Role
from ...wan.lora.adapters import AdapterSet, LoraAdapter
from .curves import Line, Points


class Adapted(Protocol):
    """An expert's adapters."""

    adapters: AdapterSet


def effective_rank(adapters: Iterable[LoraAdapter]) -> float | None:
    """Mean over the adapters of exp(entropy of the singular values of up @ down, as shares of their sum): 1 to the
    rank (Roy and Vetterli 2007, definition 1). None while no adapter changes anything."""
    ranks = [rank for adapter in adapters if (rank := _of_one(adapter)) is not None]
    return math.fsum(ranks) / len(ranks) if ranks else None


def effective_ranks(trainers: Mapping[Role, Adapted]) -> dict[str, float]:
    """Of every expert whose LoRA changes something."""
    ranks = {role: effective_rank(t.adapters.values()) for role, t in trainers.items()}
    return {role: rank for role, rank in ranks.items() if rank is not None}


def ranks_of(lines: Iterable[Line]) -> dict[Role, Points]:
    """(step, effective rank) of each expert, from the checkpoints that a run's events tell of: the last of each step,
    as `measured` has its steps."""
    told: dict[int, dict[Role, float]] = {}
    for line in lines:
        if line.get("event") == "StateChanged":
            told = {step: ranks for step, ranks in told.items() if step <= line["step"]}
        elif line.get("event") == "CheckpointSaved":
            told[line["step"]] = line.get("effective_rank", {})
    points: dict[Role, Points] = {}
    for step, ranks in sorted(told.items()):
        for role, rank in ranks.items():
            points.setdefault(role, []).append((step, rank))
    return points


@torch.no_grad()
def _of_one(adapter: LoraAdapter) -> float | None:
    # up = Q R and down^T = P S, so up @ down = Q (R S^T) P^T: the small matrix has the same singular values.
    up, down = (
        torch.linalg.qr(factor.float(), mode="r").R for factor in (adapter.up, adapter.down.T)
    )
    core = up @ down.T
    if not core.isfinite().all():
        return None
    values = torch.linalg.svdvals(core).double()
    total = values.sum().item()
    return torch.special.entr(values / total).sum().exp().item() if total > 0 else None
