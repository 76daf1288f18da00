"""Settings at work: for a grid and a device, which layout is computed by which backend, and how dense that is."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from .backends import AUTO, TILES, Backend, choose_backend
from .grid import TokenGrid
from .layout import Layout, density
from .settings import RadialSettings


class Prepared(NamedTuple):
    """The attention of one grid."""

    layout: Layout
    backend: Backend
    density: float
    """Share of all pairs that is computed, 0 to 1."""

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q, k, v: (batch, tokens, heads, width). Returns q's shape and dtype."""
        return self.backend(q, k, v, self.layout)


@lru_cache(maxsize=32)
def prepared(
    settings: RadialSettings,
    grid: TokenGrid,
    device: torch.device,
    *,
    backend: str = AUTO,
    training: bool = False,
) -> Prepared:
    """The attention of a grid, prepared once. Raises `BackendError` where the backend asked for cannot run."""
    chosen = choose_backend(
        backend, device, training=training, reference=settings.reference, tile=settings.tile
    )
    layout = settings.layout(grid, TILES.get(chosen.name, 0))
    return Prepared(layout, chosen, density(layout))
