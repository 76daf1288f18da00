"""The blocks that flex_attention gets; what it makes of them needs a GPU: uncompiled it looks at no block."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.dev.radial_strategies import GRIDS, RULES
from tandem_wan.radial_attention.dense import masked_attention
from tandem_wan.radial_attention.flex import Filled, flex_attention_over
from tandem_wan.radial_attention.grid import TokenGrid
from tandem_wan.radial_attention.layout import dense_mask
from tandem_wan.radial_attention.plan import RadialPlan
from tandem_wan.radial_attention.rule import RadialRule


@given(grid=GRIDS, rule=RULES, tile=st.sampled_from([4, 16]))
@settings(max_examples=30)
def test_its_blocks_are_the_plans_and_only_the_filling_is_masked(grid, rule, tile):
    plan = RadialPlan(grid, rule, tile)
    filled = Filled(plan, torch.device("cpu"))
    mask = filled.mask
    length = plan.tiles * tile
    blocks = mask.to_dense()[0, 0].bool().repeat_interleave(tile, 0).repeat_interleave(tile, 1)
    kept = torch.zeros(length, length, dtype=torch.bool)
    kept[filled.places[:, None], filled.places] = torch.from_numpy(dense_mask(plan))
    masked = mask.mask_mod(0, 0, torch.arange(length)[:, None], torch.arange(length)[None])
    real = filled.places
    # Rows of the filling are thrown away.
    assert torch.equal((blocks & masked)[real], kept[real])
    whole = mask.full_kv_indices, mask.full_kv_num_blocks
    for row in range(plan.tiles):
        for column in whole[0][0, 0, row, : whole[1][0, 0, row]].tolist():
            first, end = plan.queries(column)
            assert end - first == tile, "a block without a mask has no filling"


@given(grid=GRIDS, tile=st.sampled_from([4, 16]))
def test_what_is_filled_up_comes_back(grid, tile):
    plan = RadialPlan(grid, RadialRule(), tile)
    filled = Filled(plan, torch.device("cpu"))
    x = torch.randn(2, plan.tokens, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filled.take(filled.put(x)), x)
    assert filled.put(x).sum() == pytest.approx(x.sum().item(), abs=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled blocks need a GPU")
def test_compiled_it_is_masked_attention_forwards_and_backwards():
    plan = RadialPlan(TokenGrid(9, 20, 26, before=7), RadialRule(floor=40, decimation=64), 128)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1, plan.tokens, 2, 64, generator=generator).cuda().bfloat16()
    ours, exact = (x.clone().requires_grad_(), x.double().requires_grad_())
    out = flex_attention_over(*ours, plan)
    expected = masked_attention(*exact, plan)
    grad = torch.randn_like(expected)
    [found] = torch.autograd.grad(out, ours, grad.bfloat16())
    [wanted] = torch.autograd.grad(expected, exact, grad)
    for a, b in ((out, expected), (found, wanted)):
        assert (a.double() - b).norm() / b.norm() < 1e-2
