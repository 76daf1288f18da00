"""Tile-gather attention against masked attention in double precision, forwards and backwards."""

import pytest
import torch
from hypothesis import given, settings
from tandem_wan.dev.radial_strategies import PLANS
from tandem_wan.radial_attention.dense import masked_attention
from tandem_wan.radial_attention.gather import gather_attention
from tandem_wan.radial_attention.grid import TokenGrid
from tandem_wan.radial_attention.layout import dense_mask, density
from tandem_wan.radial_attention.plan import RadialPlan
from tandem_wan.radial_attention.reference_layout import ReferenceLayout
from tandem_wan.radial_attention.rule import RadialRule
from torch.nn import functional as F

SPARSE = RadialRule(decay=0.2, floor=2, decimation=16)
PLAN = RadialPlan(TokenGrid(9, 5, 7, before=3, after=5), SPARSE, 8)


def inputs(layout, *, batch=1, heads=2, width=8, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, layout.tokens, heads, width)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def error(ours, expected) -> float:
    return ((ours.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float64, 1e-12)]
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "layout", [PLAN, ReferenceLayout(TokenGrid(8, 5, 7, after=5), SPARSE, 16)], ids=["plan", "ref"]
)
def test_it_is_masked_attention_forwards_and_backwards(layout, batch, dtype, most):
    assert density(layout) < 0.8
    ours = inputs(layout, batch=batch, dtype=dtype, heads=5)
    exact = [t.detach().double().requires_grad_() for t in ours]
    out, expected = gather_attention(*ours, layout), masked_attention(*exact, layout)
    assert out.dtype == dtype
    assert error(out, expected) < most
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = torch.autograd.grad(out, ours, grad)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    assert max(map(error, found, wanted)) < most


@given(plan=PLANS)
@settings(max_examples=40)
def test_so_it_is_for_any_layout(plan):
    ours = inputs(plan, dtype=torch.float64, heads=1, width=4)
    exact = [t.detach().requires_grad_() for t in ours]
    out, expected = gather_attention(*ours, plan), masked_attention(*exact, plan)
    torch.testing.assert_close(out, expected)
    found = torch.autograd.grad(out.square().sum(), ours)
    for a, b in zip(found, torch.autograd.grad(expected.square().sum(), exact), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_those_of_finite_differences():
    plan = RadialPlan(TokenGrid(5, 2, 3), RadialRule(floor=1, decimation=8), 4)
    assert density(plan) < 1
    q, k, v = inputs(plan, heads=1, width=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: gather_attention(*x, plan), (q, k, v))


def test_a_layout_that_keeps_all_is_plain_attention():
    plan = RadialPlan(TokenGrid(4, 5, 7), RadialRule(decay=8.0, floor=1000, decimation=1), 8)
    assert density(plan) == 1
    q, k, v = inputs(plan)
    plain = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
    assert error(gather_attention(q, k, v, plan), plain.transpose(1, 2)) < 1e-6


def test_what_a_query_does_not_see_cannot_change_it():
    q, k, v = (t.detach() for t in inputs(PLAN))
    before = gather_attention(q, k, v, PLAN)
    seen = torch.from_numpy(dense_mask(PLAN))
    for query in (3, 100, PLAN.tokens - 6):
        hidden = ~seen[query]
        assert hidden.any() or query >= PLAN.tokens - 5
        other_k, other_v = k.clone(), v.clone()
        other_k[:, hidden], other_v[:, hidden] = 1e9, float("nan")
        after = gather_attention(q, other_k, other_v, PLAN)
        assert torch.equal(after[:, query], before[:, query])


def test_inputs_that_lie_otherwise_in_memory_give_the_same():
    q, k, v = (t.detach() for t in inputs(PLAN, batch=2, heads=4))
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    assert error(gather_attention(*turned, PLAN), gather_attention(q, k, v, PLAN)) < 1e-6
