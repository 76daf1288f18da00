"""What a block layout says: which tokens each tile of queries sees, as spans of the sequence."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Spans = np.ndarray
"""(count, 2) int64: first token and the one after the last, in order, none touching the next."""


class Layout(Protocol):
    """Tiles of neighbouring queries, each with the keys that all of its rows see."""

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        ...

    @property
    def tiles(self) -> int:
        """Number of tiles; in order they are the whole sequence."""
        ...

    def queries(self, tile: int) -> tuple[int, int]:
        """First token of the tile, and the one after its last."""
        ...

    def keys(self, tile: int) -> Spans:
        """What the tile sees."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory that the layout takes."""
        ...

    def pairs(self) -> int:
        """Query and key tokens that are computed with each other, over all tiles."""
        ...


def density(layout: Layout) -> float:
    """Share of all pairs of tokens that are computed, 0 to 1; 1 / density is what a kernel can gain at most."""
    return layout.pairs() / layout.tokens**2


def merged(spans: np.ndarray) -> Spans:
    """Spans in order, with those that touch made one; empty ones are dropped."""
    spans = spans[spans[:, 1] > spans[:, 0]]
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    begins = np.r_[True, spans[1:, 0] > ends[:-1]]
    first = np.flatnonzero(begins)
    last = np.r_[first[1:], len(spans)] - 1
    return np.stack([spans[first, 0], ends[last]], axis=1)


def dense_mask(layout: Layout) -> np.ndarray:
    """(tokens, tokens) bool: the whole layout written out. For tests and pictures of small sizes."""
    mask = np.zeros((layout.tokens, layout.tokens), dtype=bool)
    for tile in range(layout.tiles):
        first, end = layout.queries(tile)
        for begin, stop in layout.keys(tile):
            mask[first:end, begin:stop] = True
    return mask
