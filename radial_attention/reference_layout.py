"""The block layout of the authors' published code, bit for bit, for comparison with it.

Its square blocks run across the frames' borders, and a block is kept only where enough of it is needed: a tenth of
the pairs that the rule keeps may be missing, at the first and last rows of a frame even of the frame itself. Where the
sequence is no multiple of the block that code cannot run; here what is left at the end sees and is seen by all.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from .grid import TokenGrid
from .layout import Spans, merged
from .rule import RadialRule

KEPT = 4
"""Layouts; one of 300 frames at 720p has some megabytes."""
COLUMN_SHARE, KEPT_SHARE = 1 / 3, 0.6
"""A block is kept when of the columns that anything is needed of, more than the second share are needed by more than
the first share of its rows."""


class ReferenceLayout:
    """`Layout` with blocks of `block` tokens from the beginning of the grid on."""

    def __init__(self, grid: TokenGrid, rule: RadialRule, block: int = 128) -> None:
        if grid.before:
            raise ValueError("the reference layout has no tokens before the grid")
        self.grid, self.rule, self.block = grid, rule, block

    @property
    def tokens(self) -> int:
        return self.grid.tokens

    @property
    def tiles(self) -> int:
        return -(-self.tokens // self.block)

    def queries(self, tile: int) -> tuple[int, int]:
        return tile * self.block, min((tile + 1) * self.block, self.tokens)

    def keys(self, tile: int) -> Spans:
        seen = np.flatnonzero(self.blocks[tile])
        spans = np.stack([seen * self.block, (seen + 1) * self.block], axis=1)
        return merged(np.minimum(spans, self.tokens))

    def pairs(self) -> int:
        sizes = np.full(self.tiles, self.block)
        sizes[-1] = self.tokens - (self.tiles - 1) * self.block
        return int(sizes @ self.blocks @ sizes)

    @property
    def nbytes(self) -> int:
        """Memory that the layout takes."""
        return self.blocks.nbytes

    @cached_property
    def blocks(self) -> np.ndarray:
        """(tiles, tiles) bool."""
        grid, size = self.grid, self.block
        whole = grid.video // size
        blocks = np.zeros((self.tiles + 1, self.tiles + 1), dtype=bool)
        per_frame = -(-grid.frame // size)
        sinks = self.rule.sinks(grid.frames)
        for query in range(grid.frames):
            for key in range(grid.frames):
                reach = (
                    grid.frame if key in sinks else self.rule.reach(abs(query - key), grid.frame)
                )
                if reach is None:
                    continue
                (row, top), (column, left) = (divmod(f * grid.frame, size) for f in (query, key))
                kept = _frame_pair(grid.frame, reach, top, left, size)
                target = blocks[row : row + per_frame, column : column + per_frame]
                target |= kept[: target.shape[0], : target.shape[1]]
        blocks = blocks[: self.tiles, : self.tiles]
        blocks[whole:], blocks[:, whole:] = True, True
        return blocks


@lru_cache(maxsize=KEPT)
def reference_layout(grid: TokenGrid, rule: RadialRule, block: int = 128) -> ReferenceLayout:
    """The layout of a grid, made once."""
    return ReferenceLayout(grid, rule, block)


@lru_cache(maxsize=4096)
def _frame_pair(frame: int, reach: int, top: int, left: int, size: int) -> np.ndarray:
    """The blocks kept of one pair of frames whose first tokens lie `top` and `left` tokens within a block."""
    count = -(-frame // size)
    columns = np.arange(frame)
    needed = np.zeros((count, count), dtype=np.int64)
    enough = np.zeros((count, count), dtype=np.int64)
    at = (columns + left) // size
    inside = at < count
    for block in range(count):
        first, end = max(block * size - top, 0), min((block + 1) * size - top, frame)
        rows = np.minimum(end, columns + reach + 1) - np.maximum(first, columns - reach)
        for table, least in ((needed, 0.0), (enough, COLUMN_SHARE)):
            chosen = inside & (rows / size > least)
            table[block] = np.bincount(at[chosen], minlength=count)[:count]
    return enough > KEPT_SHARE * needed
