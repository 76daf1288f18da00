"""The ring alone, on plain layers: what it brings when, and that it never refills what is at work."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

pytestmark = pytest.mark.comfy


def ring_of(count, **settings):
    from tandem_wan.nodes.host.block_ring import BlockRing

    blocks = {2 * n: nn.Linear(3, 5) for n in range(count)}
    for index, block in blocks.items():
        nn.init.constant_(block.weight, float(index))
        nn.init.constant_(block.bias, -float(index))
    return blocks, BlockRing(blocks, torch.device("cpu"), **settings)


def lent(blocks, ring, index):
    """What a block computes with while it is lent its weights."""
    with ring.lend(index):
        block = blocks[index]
        assert block.weight.untyped_storage().data_ptr() in {
            buffer.room.untyped_storage().data_ptr() for buffer in ring.buffers
        }
        return block(torch.ones(3)).tolist()


def up_and_down(indices):
    return [*indices, *reversed(indices)]


@pytest.mark.parametrize(("buffers", "ahead"), [(2, 1), (3, 1), (3, 2), (4, 3)])
def test_every_block_but_the_first_is_there_before_it_is_asked_for(buffers, ahead):
    """Through three micro-batches: up in the forward pass, down in the backward pass."""
    blocks, ring = ring_of(6, buffers=buffers, ahead=ahead)
    late = []
    for index in up_and_down(list(blocks)) * 3:
        if ring._holding(index) is None:
            late.append(index)
        lent(blocks, ring, index)
    assert late == [0]


def test_with_as_many_buffers_as_blocks_each_is_brought_once():
    blocks, ring = ring_of(4, buffers=9, ahead=3)
    for index in up_and_down(list(blocks)) * 3:
        lent(blocks, ring, index)
    assert len(ring.buffers) == 4 and ring.fills == 4
    assert ring.bytes_moved == 4 * (3 * 5 + 5) * 4


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 3),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
)
def test_in_any_order_each_block_computes_with_its_own_weights(count, buffers, ahead, order):
    """Wrong guesses of what comes next, previews and repeated forward passes: they cost copies and nothing else."""
    blocks, ring = ring_of(count, buffers=buffers, ahead=ahead)
    own = {index: list(block.parameters()) for index, block in blocks.items()}
    for index in (2 * (number % count) for number in order):
        assert lent(blocks, ring, index) == [2.0 * index] * 5
        assert ring._at_work.holds == index, "brought away from under the block's own backward pass"
    for index, block in blocks.items():
        assert all(a is b for a, b in zip(own[index], block.parameters(), strict=True))


def test_other_blocks_keep_their_own_weights_and_cost_nothing():
    blocks, ring = ring_of(2)
    with ring.lend(1):
        assert all(block.weight.is_leaf for block in blocks.values())
    assert ring.fills == 0


def test_a_block_whose_computation_is_cut_off_has_its_own_weights_again():
    blocks, ring = ring_of(2)
    own = [p for block in blocks.values() for p in block.parameters()]
    with pytest.raises(KeyboardInterrupt), ring.lend(2):
        raise KeyboardInterrupt
    assert all(
        a is b for a, b in zip(own, chain(*(b.parameters() for b in blocks.values())), strict=True)
    )
