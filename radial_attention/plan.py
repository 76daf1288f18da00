"""The block layout of a video: tiles that begin anew with each frame, and cover every pair that the rule keeps.

What a tile sees of another frame depends on their distance alone, so the whole layout is a small table; nothing of it
grows with the square of the tokens.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from .grid import TokenGrid
from .layout import Spans, merged
from .rule import RadialRule

TILE = 64
"""Tokens of a tile at real sizes."""
KEPT_PLANS = 16


class RadialPlan:
    """`Layout` of one grid under one rule. Equal arguments give equal plans; nothing in it changes.

    tile: queries that see the same keys. key_tile: keys that are seen together; 0 is as `tile`.
    """

    def __init__(
        self, grid: TokenGrid, rule: RadialRule, tile: int = TILE, key_tile: int = 0
    ) -> None:
        if min(grid.frames, grid.height, grid.width, tile) < 1:
            raise ValueError(f"a grid of {grid} and tiles of {tile} tokens: all are 1 or more")
        self.grid, self.rule, self.tile = grid, rule, tile
        self.key_tile = key_tile or tile
        self._per_frame = -(-grid.frame // tile)
        """Tiles of a frame; its last one may be shorter."""
        self._before = -(-grid.before // tile)
        self._after = -(-grid.after // tile)

    @property
    def tokens(self) -> int:
        return self.grid.tokens

    @property
    def tiles(self) -> int:
        return self._before + self.grid.frames * self._per_frame + self._after

    def queries(self, tile: int) -> tuple[int, int]:
        grid, size = self.grid, self.tile
        if tile < self._before:
            return tile * size, min((tile + 1) * size, grid.before)
        tile -= self._before
        frame, within = divmod(tile, self._per_frame)
        if frame < grid.frames:
            start = grid.before + frame * grid.frame
            return start + within * size, start + min((within + 1) * size, grid.frame)
        start = grid.before + grid.video
        within = tile - grid.frames * self._per_frame
        return start + within * size, start + min((within + 1) * size, grid.after)

    def keys(self, tile: int) -> Spans:
        grid = self.grid
        frame, within = divmod(tile - self._before, self._per_frame)
        if tile < self._before or frame >= grid.frames:
            return np.array([[0, grid.tokens]])
        others = np.arange(grid.frames)
        spans = self._table[np.abs(others - frame), within].copy()
        spans[list(self.rule.sinks(grid.frames))] = (0, grid.frame)
        starts = grid.before + others[:, None] * grid.frame
        # An empty span stays empty wherever it is moved to.
        spans = spans + starts
        around = [[0, grid.before], [grid.before + grid.video, grid.tokens]]
        return merged(np.concatenate([spans, np.asarray(around)]))

    def pairs(self) -> int:
        grid = self.grid
        rows = np.diff(self._edges)
        seen = (self._table[..., 1] - self._table[..., 0]) @ rows
        """Of two frames, by their distance."""
        distances = np.arange(grid.frames)
        count = np.where(distances == 0, grid.frames, 2 * (grid.frames - distances))
        total = int(count @ seen)
        for sink in self.rule.sinks(grid.frames):
            total += int((grid.frame**2 - seen[np.abs(distances - sink)]).sum())
        extra = grid.before + grid.after
        return total + extra * grid.tokens + grid.video * extra

    @property
    def nbytes(self) -> int:
        """Memory that the plan takes."""
        return self._table.nbytes + self._edges.nbytes

    @cached_property
    def _edges(self) -> np.ndarray:
        """Where the tiles of a frame begin, and where the last one ends."""
        return np.minimum(np.arange(self._per_frame + 1) * self.tile, self.grid.frame)

    @cached_property
    def _table(self) -> np.ndarray:
        """(distance, tile, 2): the span of a frame that a tile of another one sees, whole tiles; (0, 0) is nothing."""
        frame, size, edges = self.grid.frame, self.key_tile, self._edges
        table = np.zeros((self.grid.frames, self._per_frame, 2), dtype=np.int64)
        for distance in range(self.grid.frames):
            reach = self.rule.reach(distance, frame)
            if reach is None:
                continue
            # Every tile that holds a key within reach of any of the rows.
            first = np.maximum(edges[:-1] - reach, 0) // size * size
            last = np.minimum(edges[1:] - 1 + reach, frame - 1)
            table[distance, :, 0] = first
            table[distance, :, 1] = np.minimum((last // size + 1) * size, frame)
        return table


@lru_cache(maxsize=KEPT_PLANS)
def radial_plan(
    grid: TokenGrid, rule: RadialRule, tile: int = TILE, key_tile: int = 0
) -> RadialPlan:
    """The plan of a grid, made once."""
    return RadialPlan(grid, rule, tile, key_tile)
