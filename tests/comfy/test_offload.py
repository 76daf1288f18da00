"""What blocks keep for the backward pass waits in main memory: the same bits come back, and nothing else goes there."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.loop import train

pytestmark = pytest.mark.comfy


@pytest.fixture
def stores(monkeypatch):
    """Every store that is made for a run."""
    from tandem_wan.nodes.host import expert
    from tandem_wan.nodes.host.checkpointing import InputsInRam

    made = []
    monkeypatch.setattr(
        expert, "InputsInRam", lambda device: made.append(InputsInRam(device)) or made[-1]
    )
    return made


def test_a_run_with_its_activations_in_main_memory_is_the_same_run(pair, encoded, stores):
    runs = []
    for memory in ({}, {"offload_activations": True}, {"offload_activations": True, "batch": 2}):
        losses, plan = [], rig.plan(steps=4, swap_every=2, **memory)
        with rig.training():
            trainers = rig.trainers(plan, pair, encoded)
            train(
                plan,
                trainers,
                save=lambda *a: None,
                listen=lambda e, seen=losses: seen.append(e.loss),
            )
        factors = [p.detach() for t in trainers.values() for p in t.adapters.parameters()]
        runs.append((losses, factors))
    assert runs[0][0] == runs[1][0] != runs[2][0]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))
    assert len(stores) == 4, "one each time an expert is in use, where it is asked for"


def test_what_goes_there_is_each_block_s_input_once_and_nothing_that_all_blocks_share(
    pair, encoded, stores
):
    """4 blocks, tokens of 3 x 4 x 4, width 128, float32. Rotation, modulation and text are one for all blocks."""
    _micro_batch(pair, encoded, offload_activations=True)
    assert stores[0].bytes_kept == 4 * (3 * 4 * 4) * 128 * 4


def test_no_block_s_input_is_kept_where_it_computes(pair, encoded, monkeypatch):
    """The inputs' own memory is free again before the backward pass begins; without it, it is not."""
    assert _inputs_alive(pair, encoded, monkeypatch, offload_activations=True) <= 1
    assert _inputs_alive(pair, encoded, monkeypatch) == 4


def test_a_store_that_brings_back_the_input_of_another_block_is_seen_to_be_wrong(
    pair, encoded, monkeypatch
):
    from tandem_wan.nodes.host.checkpointing import _Kept

    expected = _micro_batch(pair, encoded)
    taken, take = [], _Kept.take

    def stale(kept):
        taken.append(take(kept))
        return taken[max(0, len(taken) - 2)]

    monkeypatch.setattr(_Kept, "take", stale)
    found = _micro_batch(pair, encoded, offload_activations=True)
    assert any(not torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def _micro_batch(pair, encoded, **memory):
    trainer = rig.trainers(rig.plan(steps=2, **memory), pair, encoded)["low_noise"]
    return rig.gradients_of_one_micro_batch(trainer)


def _inputs_alive(pair, encoded, monkeypatch, **memory):
    """How many of the four blocks' inputs live when the forward pass has ended."""
    trainer = rig.trainers(rig.plan(steps=2, **memory), pair, encoded)["low_noise"]
    network, inputs, alive = pair["low_noise"].model.diffusion_model, [], []
    handles = [
        module.register_forward_pre_hook(lambda _, args: inputs.append(weakref.ref(args[0])))
        for module in network.blocks
    ]
    real = trainer.expert.velocity

    def velocity(*args, **kwargs):
        out = real(*args, **kwargs)
        gc.collect()
        alive.append(sum(ref() is not None for ref in inputs))
        return out

    monkeypatch.setattr(trainer.expert, "velocity", velocity)
    rig.gradients_of_one_micro_batch(trainer)
    for handle in handles:
        handle.remove()
    return alive[0]
