"""Muon: updates whose every direction is about equally long, for matrices and convolutions."""

import pytest
import torch
from tandem_wan.wan.miniature.recipe.muon import MATCHED_RMS, Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 24), (8, 40), (40, 8)])
def test_singular_values_come_near_1_and_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.3 and values[: len(values) * 3 // 4].min() > 0.6
    # In the basis of the matrix it is diagonal.
    inside = left.T @ found @ right.T
    assert (inside - inside.diag().diag()).abs().max() < 1e-3


def test_an_update_is_as_large_as_adams():
    weight = torch.zeros(32, 16, 3, 3, requires_grad=True)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.01).step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.01 * MATCHED_RMS, rel=0.3)
    assert (weight * weight.grad).sum() < 0


def test_momentum_carries_on_when_the_gradient_ends():
    weight = torch.zeros(8, 8, requires_grad=True)
    muon = Muon([weight], lr=0.01)
    weight.grad = torch.eye(8)
    muon.step()
    before = weight.detach().clone()
    weight.grad = torch.zeros(8, 8)
    muon.step()
    assert (weight - before).diagonal().max() < -0.001
