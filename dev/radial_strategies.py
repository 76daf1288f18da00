"""Random grids, rules and layouts, small enough to be written out."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ..radial_attention.grid import TokenGrid
from ..radial_attention.plan import RadialPlan
from ..radial_attention.rule import RadialRule

RULES = st.builds(
    RadialRule,
    decay=st.sampled_from([0.05, 0.2, 0.5, 1.0]),
    floor=st.integers(0, 12),
    decimation=st.sampled_from([1, 4, 8, 16, 32]),
    sink=st.sampled_from(["first", "first and last", "none"]),
)
GRIDS = st.builds(
    TokenGrid,
    frames=st.integers(1, 12),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    before=st.integers(0, 9),
    after=st.integers(0, 9),
)
PLANS = st.builds(
    RadialPlan, GRIDS, RULES, st.sampled_from([1, 3, 4, 8, 16]), st.sampled_from([0, 1, 4, 8])
)


def token_mask(grid: TokenGrid, rule: RadialRule) -> np.ndarray:
    """Every pair of tokens that the rule keeps, one by one."""
    mask = np.ones((grid.tokens, grid.tokens), dtype=bool)
    places = np.arange(grid.frame)
    apart = np.abs(places[:, None] - places[None, :])
    for query in range(grid.frames):
        for key in range(grid.frames):
            reach = rule.reach(abs(query - key), grid.frame)
            kept = apart <= (-1 if reach is None else reach)
            if key in rule.sinks(grid.frames):
                kept = np.ones_like(kept)
            row, column = (grid.before + f * grid.frame for f in (query, key))
            mask[row : row + grid.frame, column : column + grid.frame] = kept
    return mask
