"""The published code's layout: its published densities, and the rule of its blocks written out."""

import numpy as np
import pytest
from tandem_wan.dev.radial_strategies import token_mask
from tandem_wan.radial_attention.grid import TokenGrid
from tandem_wan.radial_attention.layout import dense_mask, density
from tandem_wan.radial_attention.plan import RadialPlan
from tandem_wan.radial_attention.reference_layout import ReferenceLayout
from tandem_wan.radial_attention.rule import RadialRule


@pytest.mark.parametrize(
    ("size", "frames", "decay", "expected"),
    [
        ((768, 1280), 69, 0.2, 0.2871),
        ((768, 1280), 161, 1.0, 0.2639),
        ((720, 1280), 253, 1.0, 1 - 0.8083),
        ((720, 1280), 509, 1.0, 1 - 0.8837),
    ],
)
def test_densities_are_the_published_ones(size, frames, decay, expected):
    grid = TokenGrid((frames - 1) // 4 + 1, size[0] // 16, size[1] // 16)
    assert density(ReferenceLayout(grid, RadialRule(decay=decay))) == pytest.approx(
        expected, abs=1e-4
    )


def slow_blocks(grid: TokenGrid, rule: RadialRule, size: int) -> np.ndarray:
    """Block by block on a canvas for each pair of frames, as the published description goes."""
    whole = grid.tokens // size
    blocks = np.zeros((whole + grid.frame // size + 2,) * 2, dtype=bool)
    count = -(-grid.frame // size)
    for query in range(grid.frames):
        for key in range(grid.frames):
            reach = grid.frame if key == 0 else rule.reach(abs(query - key), grid.frame)
            if reach is None:
                continue
            top, left = query * grid.frame % size, key * grid.frame % size
            canvas = np.zeros((top + count * size, left + count * size), dtype=bool)
            places = np.arange(grid.frame)
            band = np.abs(places[:, None] - places[None]) <= reach
            part = canvas[top : top + grid.frame, left : left + grid.frame]
            part |= band[: part.shape[0], : part.shape[1]]
            for a in range(count):
                for b in range(count):
                    block = canvas[a * size : (a + 1) * size, b * size : (b + 1) * size]
                    share = block.sum(axis=0) / size
                    if (share > 0).any() and (share > 1 / 3).sum() / (share > 0).sum() > 0.6:
                        row, column = query * grid.frame // size, key * grid.frame // size
                        blocks[row + a, column + b] = True
    return blocks[:whole, :whole]


@pytest.mark.parametrize(
    ("grid", "size", "decay"),
    [
        (TokenGrid(8, 4, 6), 8, 0.2),
        (TokenGrid(8, 4, 5), 16, 0.5),
        (TokenGrid(16, 3, 5), 8, 1.0),
        (TokenGrid(24, 5, 7), 8, 0.2),
        (TokenGrid(32, 2, 7), 16, 0.2),
        (TokenGrid(9, 8, 8), 8, 0.8),
    ],
)
def test_blocks_are_those_of_its_description(grid, size, decay):
    rule = RadialRule(decay=decay, floor=size, decimation=16)
    assert grid.tokens % size == 0
    ours = ReferenceLayout(grid, rule, size)
    assert (ours.blocks == slow_blocks(grid, rule, size)).all()
    assert ours.pairs() == dense_mask(ours).sum()


def test_what_is_left_of_the_sequence_sees_and_is_seen_by_all():
    grid = TokenGrid(5, 3, 7, after=4)
    layout = ReferenceLayout(grid, RadialRule(floor=2, decimation=4), 8)
    mask = dense_mask(layout)
    rest = grid.video // 8 * 8
    assert mask[rest:].all() and mask[:, rest:].all()
    assert layout.pairs() == mask.sum()


def test_it_loses_pairs_of_the_rule_that_the_exact_layout_keeps():
    """Why it is not the default."""
    grid, rule = TokenGrid(16, 5, 7), RadialRule(floor=3, decimation=8)
    wanted = token_mask(grid, rule)
    assert not (wanted & ~dense_mask(RadialPlan(grid, rule, 8))).any()
    lost = (wanted & ~dense_mask(ReferenceLayout(grid, rule, 8))).sum() / wanted.sum()
    assert 0.005 < lost < 0.2
