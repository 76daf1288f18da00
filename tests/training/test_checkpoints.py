"""Checkpoints come as pairs or not at all, say what they are, and a resumed run equals an unbroken one."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tandem_wan.training import checkpoints
from tandem_wan.training.checkpoints import STATE_FILE, CheckpointStore, lora_file_name
from tandem_wan.training.loop import train
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.files import read_metadata, read_tensors, tandem_metadata
from tandem_wan.wan.lora.keys import match_lora

METADATA = {"name": "mermaid", "trigger": "MERMAID", "pair_id": "0123"}


def train_and_save(toys, plan, trainers, store, *, first_step=0, until=None):
    """Trains up to `until` and returns (loss, rate) of every step done."""
    events = []
    train(
        plan,
        trainers,
        save=lambda step, t: store.save(step, t, METADATA),
        listen=events.append,
        first_step=first_step,
        turns=toys.stop_when(lambda: until is not None and first_step + len(events) >= until),
    )
    return [(e.step, e.role, e.loss, e.grad_norm, e.rate) for e in events]


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "run", "mermaid")


@pytest.mark.parametrize("cuts", [[8], [1, 2, 3], [10, 11, 19]], ids=str)
@pytest.mark.parametrize("optimizer", ["adamw", "automagic", "adamw 8-bit kahan"])
def test_a_resumed_run_equals_the_unbroken_one_to_the_last_bit(toys, tmp_path, optimizer, cuts):
    plan = toys.plan(optimizer, steps=20, accumulate=2, batch=2, dropout=0.2)
    unbroken = toys.trainers(plan)
    events = train_and_save(toys, plan, unbroken, CheckpointStore(tmp_path / "unbroken", "x"))

    store, pieces, at = CheckpointStore(tmp_path / "cut", "x"), [], 0
    for until in [*cuts, None]:
        torch.manual_seed(until or 0)  # a new process has other random numbers
        trainers = toys.trainers(plan)
        assert store.resume(trainers) == at
        pieces += train_and_save(toys, plan, trainers, store, first_step=at, until=until)
        at = until
    assert pieces == events
    assert toys.same(toys.weights(trainers), toys.weights(unbroken))


def test_dropout_and_the_seed_do_matter_to_a_run(toys, store):
    losses = [
        train_and_save(toys, plan, toys.trainers(plan), CheckpointStore(store.folder / str(i), "x"))
        for i, plan in enumerate(
            toys.plan(steps=6, **changes) for changes in ({}, {"dropout": 0.2}, {"seed": 1})
        )
    ]
    assert losses[0] != losses[1] != losses[2] != losses[0]


def test_a_run_that_was_cancelled_by_an_exception_resumes_like_any_other(toys, store):
    plan = toys.plan(steps=12, accumulate=2)
    unbroken = toys.trainers(plan)
    events = train_and_save(toys, plan, unbroken, CheckpointStore(store.folder / "unbroken", "x"))

    def cancel(call):
        if call == 3:
            raise KeyboardInterrupt

    broken, done = toys.trainers(plan), []
    broken["high_noise"].expert.before_velocity = cancel
    train(
        plan,
        broken,
        save=lambda step, t: store.save(step, t, METADATA),
        listen=done.append,
        turns=toys.stop_when(interrupts=(KeyboardInterrupt,)),
    )
    again = toys.trainers(plan)
    first_step = store.resume(again)
    assert first_step == len(done) == 1
    assert train_and_save(toys, plan, again, store, first_step=first_step) == events[first_step:]
    assert toys.same(toys.weights(again), toys.weights(unbroken))


def test_a_finished_run_resumes_at_its_end_and_trains_no_more(toys, store):
    plan = toys.plan(steps=4)
    trainers = toys.trainers(plan)
    train_and_save(toys, plan, trainers, store)
    again = toys.trainers(plan)
    assert store.resume(again) == 4
    assert train_and_save(toys, plan, again, store, first_step=4) == []
    assert toys.same(toys.weights(again), toys.weights(trainers))


def test_a_new_folder_resumes_at_0(toys, store):
    trainers = toys.trainers(toys.plan())
    fresh = toys.weights(trainers)
    assert store.resume(trainers) == 0
    assert store.steps() == []
    assert toys.same(toys.weights(trainers), fresh)


def test_both_files_hold_what_was_trained_and_read_back_as_loras(toys, store):
    plan = toys.plan(steps=6)
    trainers = toys.trainers(plan)
    train_and_save(toys, plan, trainers, store)
    for role, trainer in trainers.items():
        path = store.file(6, role)
        assert path.name == f"mermaid_000006_{role}.safetensors"
        layers = trainer.expert.layers()
        shapes = {f"{layer}.weight": (s.outputs, s.inputs) for layer, s in layers.items()}
        matched = match_lora(read_tensors(path), shapes)
        assert matched.leftovers == ()
        assert matched.updates.keys() == trainer.adapters.updates().keys()
        for layer, adapter in trainer.adapters.items():
            found = matched.updates[f"{layer}.weight"]
            assert torch.equal(found.down, adapter.down)
            assert torch.equal(found.up, adapter.up)
            assert found.alpha == plan.lora.alpha


def test_metadata_names_run_expert_step_rank_alpha_and_trigger(toys, store):
    plan = toys.plan(steps=6, rank=3)
    train_and_save(toys, plan, toys.trainers(plan), store)
    for role in plan.roles():
        metadata = read_metadata(store.file(6, role))
        assert tandem_metadata(metadata) == {
            **METADATA,
            "expert": role,
            "step": 6,
            "rank": 3,
            "alpha": 4.0,
        }
        assert metadata["ss_network_dim"] == "3"
        assert metadata["ss_network_alpha"] == "4.0"
        assert metadata["ss_steps"] == "6"
        assert metadata["modelspec.title"] == metadata["ss_output_name"] == "mermaid"
        assert metadata["modelspec.trigger_phrase"] == "MERMAID"


def test_only_the_two_newest_checkpoints_keep_what_resuming_needs(toys, store):
    plan = toys.plan(steps=9, save_every=3)
    train_and_save(toys, plan, toys.trainers(plan), store)
    assert store.steps() == [3, 6, 9]
    kept = sorted(path.parent.name for path in store.folder.rglob(STATE_FILE))
    assert kept == ["step_000006", "step_000009"]
    assert all(store.file(step, role).is_file() for step in (3, 6, 9) for role in plan.roles())


def test_steps_are_in_the_order_of_numbers_and_strangers_are_no_steps(store):
    for name in ("step_000010", "step_000009", "step_1000000", "step_x", ".step_000011.ab", "plan"):
        (store.folder / name).mkdir(parents=True)
    assert store.steps() == [9, 10, 1_000_000]


def dying_save_file(files_before_death: int):
    """Writes so many files whole, then dies in the middle of the next."""
    whole, written = checkpoints.save_file, []

    def save_file(tensors, path, metadata=None):
        if len(written) == files_before_death:
            Path(path).write_bytes(b"\x08\x00\x00")
            raise KeyboardInterrupt
        written.append(path)
        whole(tensors, path, metadata=metadata)

    return save_file


@pytest.mark.parametrize("killed", [False, True], ids=["interrupted", "killed"])
@pytest.mark.parametrize("files", [0, 1, 2])
def test_a_crash_between_the_files_leaves_the_checkpoint_before(
    toys, store, monkeypatch, files, killed
):
    plan = toys.plan(steps=8, save_every=4)
    with monkeypatch.context() as patched:
        trainers = toys.trainers(plan)
        train_and_save(toys, plan, trainers, store, until=4)
        kept = toys.weights(trainers)
        patched.setattr(checkpoints, "save_file", dying_save_file(files))
        if killed:  # nothing runs after a kill, no clean-up either
            patched.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
            patched.setattr(Path, "unlink", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            store.save(5, trainers, METADATA)
    assert store.steps() == [4]
    loras = {path.name for path in store.folder.rglob("*.safetensors")}
    assert loras == {f"mermaid_000004_{role}.safetensors" for role in plan.roles()}
    again = toys.trainers(plan)
    assert store.resume(again) == 4
    assert [path.name for path in store.folder.iterdir()] == ["step_000004"]
    assert toys.same(toys.weights(again), kept)
    store.save(5, again, METADATA)
    assert store.steps() == [4, 5]


def test_a_crash_at_the_rename_leaves_no_step_folder(toys, store, monkeypatch):
    trainers = toys.trainers(toys.plan())

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space"):
            store.save(5, trainers, METADATA)
    assert store.steps() == []
    assert list(store.folder.iterdir()) == []


def test_publishing_puts_the_pair_under_the_runs_name(toys, store, tmp_path):
    plan = toys.plan(steps=6, save_every=3)
    train_and_save(toys, plan, toys.trainers(plan), store)
    target = tmp_path / "loras"
    for step in (3, 6):
        final = store.publish(dict.fromkeys(plan.roles(), step), target)
        assert {path.name for path in target.iterdir()} == {
            "mermaid_high_noise.safetensors",
            "mermaid_low_noise.safetensors",
        }
        for role in plan.roles():
            assert final[role].read_bytes() == store.file(step, role).read_bytes()
            assert tandem_metadata(read_metadata(final[role]))["step"] == step


def test_a_failed_copy_leaves_the_published_pair_as_it_was(toys, store, tmp_path, monkeypatch):
    plan = toys.plan(steps=6, save_every=3)
    train_and_save(toys, plan, toys.trainers(plan), store)
    final = store.publish(dict.fromkeys(plan.roles(), 3), tmp_path / "loras")
    before = {role: path.read_bytes() for role, path in final.items()}
    copied = []

    def second_copy_fails(source, target):
        Path(target).write_bytes(b"half")
        copied.append(source)
        if len(copied) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", second_copy_fails)
    with pytest.raises(OSError, match="No space"):
        store.publish(dict.fromkeys(plan.roles(), 6), tmp_path / "loras")
    assert {role: path.read_bytes() for role, path in final.items()} == before
    assert len(list((tmp_path / "loras").iterdir())) == 2


def test_a_single_models_file_has_the_plain_name():
    assert lora_file_name("mermaid", "single") == "mermaid.safetensors"
    assert lora_file_name("mermaid", "high_noise") == "mermaid_high_noise.safetensors"


def test_a_loss_that_is_no_number_leaves_a_checkpoint_that_can_be_resumed(toys, store):
    plan = toys.plan(steps=10)
    trainers = toys.trainers(plan)
    trainers["low_noise"].expert.after_velocity = lambda call, v: (
        v * (float("nan") if call == 1 else 1)
    )
    with pytest.raises(UserError):
        train_and_save(toys, plan, trainers, store)
    again = toys.trainers(plan)
    step = store.resume(again)
    assert step > 0
    kept = toys.weights(again)
    assert all(weight.isfinite().all() for role in kept for weight in kept[role])
    assert len(train_and_save(toys, plan, again, store, first_step=step)) == 10 - step
    assert json.loads(read_metadata(store.file(10, "low_noise"))["tandem"])["step"] == 10


@pytest.mark.parametrize("optimizer", ["adamw", "automagic"])
def test_what_a_resumed_optimizer_remembers_goes_where_the_weights_go(toys, store, optimizer):
    """A state that stays behind on the CPU would end a run that goes on on a GPU."""
    plan = toys.plan(optimizer)
    train_and_save(toys, plan, toys.trainers(plan), store, until=8)
    resumed = toys.trainers(plan)
    assert store.resume(resumed) == 8
    for trainer in resumed.values():
        trainer.to(torch.device("meta"))
        states = list(trainer.optimizer.state.items())
        assert states
        for _, state in states:
            devices = {name: v.device.type for name, v in state.items()}
            assert devices == {n: "meta" if v.ndim else "cpu" for n, v in state.items()}
            assert "meta" in devices.values()


def test_a_run_whose_newest_checkpoint_is_gone_or_broken_goes_on_from_the_one_before(toys, store):
    plan = toys.plan(save_every=3)
    train_and_save(toys, plan, toys.trainers(plan), store, until=9)
    (store.folder / "step_000009" / STATE_FILE).write_bytes(b"cut off by a power cut")
    assert store.resume(toys.trainers(plan)) == 6
    shutil.rmtree(store.folder / "step_000009")
    trainers = toys.trainers(plan)
    assert store.resume(trainers) == 6
    train_and_save(toys, plan, trainers, store, first_step=6, until=9)
    assert store.resume(toys.trainers(plan)) == 9


def test_a_step_that_is_done_again_takes_the_place_of_one_that_cannot_be_resumed(toys, store):
    plan = toys.plan(save_every=3)
    train_and_save(toys, plan, toys.trainers(plan), store, until=6)
    for state in store.folder.rglob(STATE_FILE):
        state.unlink()
    trainers = toys.trainers(plan)
    assert store.resume(trainers) == 0
    train_and_save(toys, plan, trainers, store, until=3)
    assert store.steps() == [3, 6]
    assert store.resume(toys.trainers(plan)) == 3
    assert list(store.folder.glob(".*")) == []


def test_a_checkpoint_that_was_being_replaced_when_the_process_died_comes_back(
    toys, store, monkeypatch
):
    trainers = toys.trainers(toys.plan())
    store.save(5, trainers, METADATA)
    (store.folder / "step_000005" / STATE_FILE).unlink()
    replace, renamed = os.replace, []

    def dying_before_the_second_folder(source, target):
        if Path(source).is_dir():
            renamed.append(target)
            if len(renamed) == 2:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dying_before_the_second_folder)
        patched.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            store.save(5, trainers, METADATA)
    assert store.steps() == []
    store.clear()
    assert store.steps() == [5]
    assert store.file(5, "high_noise").is_file()
    assert [path.name for path in store.folder.iterdir()] == ["step_000005"]


def test_a_state_that_cannot_be_read_is_written_again_when_its_step_is_made_again(toys, store):
    plan = toys.plan(steps=6, save_every=2)
    train_and_save(toys, plan, toys.trainers(plan), store)
    newest = store.file(6, "high_noise").with_name(STATE_FILE)
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    trainers = toys.trainers(plan)
    assert store.resume(trainers) == 4
    assert store.resumable_step() == 4, "what cannot be read is nothing to go on from"
    train_and_save(toys, plan, trainers, store, first_step=4)
    assert store.resume(toys.trainers(plan)) == 6 and newest.read_bytes() == whole


def test_an_error_in_the_midst_of_an_update_is_not_saved(toys, store):
    plan = toys.plan(steps=6, save_every=2)
    unbroken, broken = toys.trainers(plan), toys.trainers(plan)
    train_and_save(toys, plan, unbroken, CheckpointStore(store.folder / "unbroken", "x"))
    optimizer, steps = broken["high_noise"].optimizer, []
    take = optimizer.step

    def step_and_fail():
        take()
        steps.append(1)
        if len(steps) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    optimizer.step = step_and_fail
    with pytest.raises(torch.OutOfMemoryError):
        train_and_save(toys, plan, broken, store)
    resumed = toys.trainers(plan)
    first = store.resume(resumed)
    train_and_save(toys, plan, resumed, store, first_step=first)
    assert toys.same(toys.weights(resumed), toys.weights(unbroken))


def test_a_file_is_said_to_have_the_rank_and_alpha_of_most_of_its_layers(toys, store):
    """Not of its widest: one pattern may widen a layer or two."""
    plan = toys.plan(steps=6, rank=3)
    trainers = toys.trainers(plan)
    for trainer in trainers.values():
        adapter = next(iter(trainer.adapters.values()))
        assert len(trainer.adapters) > 2
        adapter.alpha = 64.0
    train_and_save(toys, plan, trainers, store)
    for role in plan.roles():
        assert read_metadata(store.file(6, role))["ss_network_alpha"] == "4.0"
