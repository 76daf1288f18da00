"""What radial attention can gain at a size, by arithmetic: kernel, whole network, whole run.

Counted for Wan 14B at equal speed of every multiplication. Where attention runs slower than other products, as it
does on most cards, the gain is larger; where weights are brought from main memory in between, it is smaller.
"""

from __future__ import annotations

from typing import NamedTuple

from .grid import TokenGrid
from .settings import RadialSettings, layer_numbers

WIDTH, FEED_FORWARD, LAYERS, TEXT = 5120, 13824, 40, 512
"""Of Wan 2.1 and 2.2 14B (Wan-Video/Wan2.2, wan/configs)."""


def attention_share(tokens: int) -> float:
    """Part of the operations of Wan 14B that is self-attention over so many tokens, 0 to 1."""
    n = float(tokens)
    attention = 4 * n**2 * WIDTH
    projections = (
        12 * n * WIDTH**2
    )  # q, k, v, o of the self-attention; q and o of the cross-attention
    others = 4 * n * WIDTH * FEED_FORWARD + 4 * n * TEXT * WIDTH
    return attention / (attention + projections + others)


class Gain(NamedTuple):
    """What can be gained, as factors of speed."""

    density: float
    share: float
    """Of self-attention in the operations."""
    dense: float
    """Share of the self-attention's calls that see everything."""

    @property
    def kernel(self) -> float:
        """Of one sparse call."""
        return 1 / self.density

    @property
    def whole(self) -> float:
        """Of the whole run, by Amdahl's law."""
        attention = self.dense + (1 - self.dense) * self.density
        return 1 / (1 - self.share + self.share * attention)


def gain(
    settings: RadialSettings,
    grid: TokenGrid,
    density: float,
    *,
    dense_steps: int,
    steps: int,
    layers: int = LAYERS,
) -> Gain:
    """For a run of `steps`, of which `dense_steps` see everything."""
    dense_layers = len(layer_numbers(settings.dense_layers, layers))
    sparse = (1 - dense_steps / steps) * (1 - dense_layers / layers)
    return Gain(density, attention_share(grid.tokens), 1 - sparse)
