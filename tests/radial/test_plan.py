"""The layout covers every pair that the rule keeps, whatever the size, and counts what it covers."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.dev.radial_strategies import GRIDS, PLANS, RULES, token_mask
from tandem_wan.radial_attention.grid import TokenGrid
from tandem_wan.radial_attention.layout import dense_mask, density, merged
from tandem_wan.radial_attention.plan import RadialPlan, radial_plan
from tandem_wan.radial_attention.rule import RadialRule


@given(plan=PLANS)
@settings(max_examples=150)
def test_every_pair_of_the_rule_is_kept_and_no_tile_is_kept_for_nothing(plan):
    wanted, kept = token_mask(plan.grid, plan.rule), dense_mask(plan)
    assert not (wanted & ~kept).any()
    edges = [plan.queries(t) for t in range(plan.tiles)]
    keys = RadialPlan(plan.grid, plan.rule, plan.key_tile)
    for first, end in edges:
        for begin, stop in (keys.queries(t) for t in range(keys.tiles)):
            block = kept[first:end, begin:stop]
            assert block.all() == block.any() == wanted[first:end, begin:stop].any()


@given(plan=PLANS)
@settings(max_examples=150)
def test_tiles_are_the_whole_sequence_in_order_and_pairs_are_counted(plan):
    edges = [plan.queries(t) for t in range(plan.tiles)]
    assert edges[0][0] == 0 and edges[-1][1] == plan.tokens
    assert all(a[1] == b[0] for a, b in pairwise(edges))
    mask = dense_mask(plan)
    assert plan.pairs() == mask.sum()
    assert density(plan) == pytest.approx(mask.mean())
    assert mask.any(axis=1).all()


@given(grid=GRIDS, rule=RULES)
def test_an_own_frame_the_neighbours_and_the_sinks_are_seen_whole(grid, rule):
    plan = RadialPlan(grid, rule, 4)
    kept = dense_mask(plan)[grid.before : grid.before + grid.video]
    frames = kept[:, grid.before : grid.before + grid.video].reshape(
        grid.frames, grid.frame, grid.frames, grid.frame
    )
    for query in range(grid.frames):
        for key in {query - 1, query, query + 1, *rule.sinks(grid.frames)} & set(
            range(grid.frames)
        ):
            assert frames[query, :, key].all()


@given(
    width=st.integers(16, 96).map(lambda n: n * 16),
    height=st.integers(16, 96).map(lambda n: n * 16),
    frames=st.integers(1, 401),
    decay=st.sampled_from([0.2, 0.8, 1.0]),
)
@settings(max_examples=60)
def test_at_any_real_size_it_is_made_and_frames_near_by_are_whole(width, height, frames, decay):
    grid = TokenGrid((frames - 1) // 4 + 1, -(-height // 16), -(-width // 16))
    plan = RadialPlan(grid, RadialRule(decay=decay))
    assert 0 < density(plan) <= 1
    for tile in {0, plan.tiles // 2, plan.tiles - 1}:
        seen = np.zeros(grid.tokens, dtype=bool)
        for first, end in plan.keys(tile):
            seen[first:end] = True
        frame = plan.queries(tile)[0] // grid.frame
        for near in {0, frame - 1, frame, frame + 1} & set(range(grid.frames)):
            assert seen[near * grid.frame : (near + 1) * grid.frame].all()


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=8).map(
        lambda pairs: np.array([[a, a + n] for a, n in pairs]).reshape(-1, 2)
    )
)
def test_merged_spans_hold_the_same_tokens_in_order_and_touch_nowhere(spans):
    told = merged(spans)
    assert [t for a, b in told for t in range(a, b)] == sorted(
        {t for a, b in spans for t in range(a, b)}
    )
    assert (told[1:, 0] > told[:-1, 1]).all()


def test_a_table_and_not_the_square_of_the_tokens_is_kept():
    plan = RadialPlan(TokenGrid(81, 45, 80), RadialRule())
    density(plan)
    assert plan._table.nbytes + plan._edges.nbytes < 2e6


def test_equal_questions_get_the_same_plan_and_others_another():
    grid = TokenGrid(5, 4, 4)
    first = radial_plan(grid, RadialRule())
    assert radial_plan(TokenGrid(5, 4, 4), RadialRule()) is first
    others = (
        radial_plan(grid._replace(after=1), RadialRule()),
        radial_plan(grid, RadialRule(decay=0.3)),
        radial_plan(grid, RadialRule(), 32),
    )
    assert all(other is not first for other in others)


@pytest.mark.parametrize("grid", [TokenGrid(0, 4, 4), TokenGrid(3, 0, 4)])
def test_a_grid_without_tokens_is_refused(grid):
    with pytest.raises(ValueError, match="1 or more"):
        RadialPlan(grid, RadialRule())
