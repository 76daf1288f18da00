"""What the host finds when a run with swapped blocks has given its models back: a model that it can count."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.loop import train

pytestmark = pytest.mark.comfy


@pytest.fixture(autouse=True)
def _device_of_its_own(monkeypatch):
    from comfy.model_patcher import ModelPatcher

    _answer_as_a_device(monkeypatch)
    monkeypatch.setattr(ModelPatcher, "pin_weight_to_device", lambda _, key: None)


def _answer_as_a_device(monkeypatch):
    """This processor answers that it is none."""
    from tandem_wan.nodes.host import block_swap, expert

    monkeypatch.setattr(block_swap, "is_device_cpu", lambda _: False)
    monkeypatch.setattr(expert, "is_device_cpu", lambda _: False)


@pytest.mark.parametrize("give_back", ["keep", "offload", "free"])
def test_a_prompt_that_can_load_only_a_part_counts_all_that_is_there(pair, encoded, give_back):
    """The host fills a device in an order of its own. Blocks that lay there out of that order would stay beside what it
    loads, and the room that sampling needs would be gone."""
    _run(pair, encoded, give_back=give_back, swap_blocks=3)
    for model in pair.values():
        _partly_loaded(model.clone())
        assert 0 < _resident(model) <= model.loaded_size() < model.model_size()


def _partly_loaded(prompt):
    """As `load_models_gpu` has it when there is room for 70 % of the model."""
    room = 0.7 * prompt.model_size() - prompt.loaded_size()
    with torch.inference_mode():
        prompt.partially_load(torch.device("cpu"), extra_memory=room)


def _resident(model):
    """Bytes of the layers that the host has brought to the device and not taken off again."""
    from comfy.model_management import module_size

    layers = (m for m in model.model.modules() if getattr(m, "comfy_patched_weights", False))
    return sum(module_size(layer) for layer in layers)


def test_locks_stay_while_experts_change_and_none_is_left(pair, encoded, monkeypatch):
    """Locking gigabytes takes seconds, and with order joint the experts change at every step."""
    from comfy import model_management
    from tandem_wan.nodes.host import block_swap

    held, locked = set(), Counter()

    def lock(weight):
        new = weight.data_ptr() not in held
        held.add(weight.data_ptr())
        locked[weight.data_ptr()] += new
        return new

    monkeypatch.undo()
    _answer_as_a_device(monkeypatch)
    # Or the swapped blocks would seem to lie on it.
    monkeypatch.setattr(block_swap, "_weights", lambda _: iter(()))
    monkeypatch.setattr(model_management, "pin_memory", lock)
    monkeypatch.setattr(model_management, "unpin_memory", lambda w: held.remove(w.data_ptr()))
    _run(pair, encoded, order="joint", swap_blocks=3, offload_activations=True)
    for model in pair.values():
        matrices = [p for p in model.model.diffusion_model.blocks[1:].parameters() if p.ndim == 2]
        assert {locked[p.data_ptr()] for p in matrices} == {1}
        assert not model.pinned
    assert not held


def test_pinned_memory_is_given_back_once_the_run_is_over(pair, encoded, monkeypatch):
    from tandem_wan.nodes.host import expert

    events = []
    monkeypatch.setattr(expert, "release_pinned", lambda: events.append("released"))
    _run(pair, encoded, listen=events.append, offload_activations=True)
    assert events[4:] == ["released"] * 2
    events.clear()
    _run(pair, encoded, listen=events.append)
    assert "released" not in events


def test_every_store_copies_in_one_stream(monkeypatch):
    """What came back in another stream's memory could not be used again by this one."""
    from tandem_wan.nodes.host.checkpointing import InputsInRam

    made = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or object())
    stores = [InputsInRam(torch.device("cuda", 7)) for _ in range(3)]
    assert made == [torch.device("cuda", 7)]
    assert len({store._stream for store in stores}) == 1


def test_the_first_copy_into_a_ring_waits_for_what_had_its_memory_before(monkeypatch):
    """PyTorch gives memory away that the device still works with, to whoever goes on in the same stream."""
    from tandem_wan.nodes.host import block_ring

    waits = []

    class Stream:
        def __init__(self, device):
            self.wait_stream = waits.append

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "at work")
    monkeypatch.setattr(block_ring, "_Buffer", lambda size, device: size)
    block_ring.BlockRing({0: torch.nn.Linear(2, 2)}, torch.device("cuda", 0))
    assert waits == ["at work"]


def _run(pair, encoded, *, listen=lambda e: None, give_back="offload", **settings):
    from tandem_wan.nodes.host.run import given_back

    plan = rig.plan(steps=4, swap_every=1, **settings)
    with rig.training():
        trainers = rig.trainers(plan, pair, encoded)
        train(
            plan,
            trainers,
            save=lambda *a: None,
            listen=listen,
            give_back=given_back(plan, give_back),
        )
