"""The best pair under the run's name, each expert at its own step; and checkpoints that are not kept."""

import json
import os
import shutil
from itertools import count
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tandem_wan.training.checkpoints import PUBLISHING, STATE_FILE, CheckpointStore
from tandem_wan.training.mending import mend_runs
from tandem_wan.training.plans.settings import PruneSettings
from tandem_wan.training.records import LOCK, write_record
from tandem_wan.wan.lora.files import read_metadata, read_tensors, tandem_metadata
from tandem_wan.wan.lora.pairing import find_pair

ROLES = ("high_noise", "low_noise")
NAME = "mermaid"


class Killed(BaseException):
    """Nothing runs after it, no clean-up either."""


def write(store, steps, states=2, run="r1"):
    """Checkpoints as a run leaves them: a small file an expert, and what resuming needs in the newest."""
    for step in steps:
        store.file(step, "high_noise").parent.mkdir(parents=True, exist_ok=True)
        for role in ROLES:
            entry = {"pair_id": run, "expert": role, "step": step, "name": NAME}
            layer = "diffusion_model.blocks.0.ffn.0"
            tensors = {
                f"{layer}.lora_{part}.weight": torch.full((2, 2), float(step)) for part in "AB"
            }
            save_file(tensors, store.file(step, role), metadata={"tandem": json.dumps(entry)})
    for step in sorted(steps)[-states:]:
        (store.file(step, "high_noise").parent / STATE_FILE).write_bytes(b"state")


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "tandem" / NAME, NAME)
    write(store, range(100, 700, 100))
    record = {"id": "r1", "state": "stopped", "step": 600, "message": ""}
    write_record(store.folder, record | {"identity": {"name": NAME, "plan": {}}})
    return store


@pytest.fixture
def loras(tmp_path):
    return tmp_path / "loras"


def published(loras):
    paths = {role: loras / f"{NAME}_{role}.safetensors" for role in ROLES}
    return {
        role: tandem_metadata(read_metadata(path))["step"]
        for role, path in paths.items()
        if path.is_file()
    }


def die_at(monkeypatch, number):
    """Kills before file operation `number`, from 0; every later one is not done either. Returns how many were done."""
    counter = count()
    done = []

    def mortal(operation):
        def call(*args, **given):
            if next(counter) >= number:
                raise Killed
            done.append(operation.__name__)
            return operation(*args, **given)

        return call

    in_os = [(os, name) for name in ("replace", "unlink", "rmdir")]
    for owner, name in (*in_os, (shutil, "copyfile"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, mortal(getattr(owner, name)))
    return done


def test_each_expert_is_published_at_its_own_step_and_says_which(store, loras):
    steps = {"high_noise": 300, "low_noise": 500}
    final = store.publish(steps, loras)
    assert published(loras) == steps
    for role, step in steps.items():
        assert final[role].read_bytes() == store.file(step, role).read_bytes()
    assert sorted(path.name for path in loras.iterdir()) == sorted(p.name for p in final.values())
    assert not (store.folder / PUBLISHING).exists()


def test_such_a_pair_is_found_as_a_pair_among_all_checkpoints(store, loras):
    store.publish({"high_noise": 300, "low_noise": 500}, loras)
    roots = (loras, store.folder.parent)
    files = {p.relative_to(r).as_posix(): p for r in roots for p in r.rglob("*.safetensors")}
    assert len(files) == 14
    for name, path in files.items():
        pairing = find_pair(name, files, lambda other: read_metadata(files[other]))
        assert pairing.verdict == "pair"
        assert files[pairing.partner(name)].parent == path.parent


def test_a_kill_at_any_moment_of_publishing_is_mended_at_the_next_start(store, loras, monkeypatch):
    store.publish({"high_noise": 100, "low_noise": 200}, loras)
    seen = set()
    for number in count():
        steps = {"high_noise": 300 + 100 * (number % 2), "low_noise": 500 + 100 * (number % 2)}
        before = published(loras)
        with monkeypatch.context() as patched:
            done = die_at(patched, number)
            try:
                store.publish(steps, loras)
            except Killed:
                seen.add((published(loras) == before, published(loras) == steps))
            else:
                break
        mend_runs(store.folder.parent, loras)
        assert published(loras) in (before, steps)
        store.clear_unpublished(ROLES, loras)
        left = {path.name for path in [*loras.iterdir(), *store.folder.glob("publish*")]}
        assert left == {f"{NAME}_{role}.safetensors" for role in ROLES}
    assert done.count("replace") == 3 and len(seen) >= 3, "one new and one old was among them"


def test_what_is_not_this_runs_is_never_replaced_by_mending(store, loras):
    other = CheckpointStore(store.folder.parent / "other", NAME)
    write(other, [100], run="r2")
    other.publish(dict.fromkeys(ROLES, 100), loras)
    (store.folder / PUBLISHING).write_text(json.dumps(dict.fromkeys(ROLES, 300)))
    mend_runs(store.folder.parent, loras)
    assert published(loras) == dict.fromkeys(ROLES, 100)
    assert not (store.folder / PUBLISHING).exists()


def test_half_a_note_of_what_was_published_keeps_nobody_from_starting(store, loras):
    store.publish(dict.fromkeys(ROLES, 300), loras)
    for rubbish in (b"", b"{", b"\xff"):
        (store.folder / PUBLISHING).write_bytes(rubbish)
        mend_runs(store.folder.parent, loras)
        assert not (store.folder / PUBLISHING).exists()
    assert published(loras) == dict.fromkeys(ROLES, 300)


def test_a_run_that_somebody_trains_or_that_is_broken_is_left_alone(store, loras, caplog):
    aside = store.folder / ".step_000100.0123abcd"
    aside.mkdir()
    with FileLock(store.folder / LOCK):
        mend_runs(store.folder.parent, loras)
    assert aside.is_dir()
    record = store.folder / "job.json"
    whole = record.read_bytes()
    record.write_bytes(b"{")
    mend_runs(store.folder.parent, loras)
    assert aside.is_dir() and "cannot be mended" in caplog.text
    record.write_bytes(whole)
    mend_runs(store.folder.parent, loras)
    assert not aside.exists() and store.steps() == list(range(100, 700, 100))


def slow_prune(steps, states, last, every, keep):
    """Step by step, in the words of the settings."""
    if last == 0 and every == 0:
        return list(steps)
    left = []
    for place, step in enumerate(steps):
        newest_first = len(steps) - place
        is_last = newest_first <= last or newest_first == 1
        if is_last or step in keep or newest_first <= states or (every and step % every == 0):
            left.append(step)
    return left


@given(
    st.sets(st.integers(1, 30), min_size=1, max_size=12),
    st.integers(0, 2),
    st.integers(0, 5),
    st.integers(0, 4),
    st.sets(st.integers(1, 30), max_size=3),
)
def test_what_stays_is_what_the_settings_say(tmp_path_factory, steps, states, last, every, keep):
    store = CheckpointStore(tmp_path_factory.mktemp("run"), NAME)
    steps = sorted(10 * step for step in steps)
    for step in steps:
        store.file(step, "high_noise").parent.mkdir()
    for step in steps[len(steps) - states :] if states else []:
        (store.file(step, "high_noise").parent / STATE_FILE).touch()
    every, keep = 10 * every, {10 * step for step in keep}
    gone = store.prune(PruneSettings(last=last, every=every), keep)
    left = slow_prune(steps, states, last, every, keep)
    assert store.steps() == left and sorted([*left, *gone]) == steps
    assert {path.name for path in store.folder.iterdir()} == {f"step_{s:06d}" for s in left}


def test_a_kill_at_any_moment_of_pruning_leaves_whole_checkpoints_alone(store, loras, monkeypatch):
    keep, settings = {200}, PruneSettings(last=1)
    write(store, [700, 800])
    (store.file(500, "high_noise").parent / STATE_FILE).unlink()
    (store.file(600, "high_noise").parent / STATE_FILE).unlink()
    for number in count():
        with monkeypatch.context() as patched:
            die_at(patched, number)
            try:
                store.prune(settings, keep)
            except Killed:
                pass
            else:
                break
        assert store.steps()[-2:] == [700, 800] and 200 in store.steps()
        for step in store.steps():
            for role in ROLES:
                tensors = read_tensors(store.file(step, role))
                assert all((t == step).all() for t in tensors.values())
        assert store.resumable_step() == 800
        mend_runs(store.folder.parent, loras)
        assert not list(store.folder.glob(".step_*"))
    assert store.steps() == [200, 700, 800] and number > 3


def test_a_checkpoint_that_somebody_reads_where_that_forbids_it_stays_and_ends_nothing(
    store, monkeypatch, caplog
):
    whole = os.replace

    def refuse(source, target):
        if "step_000200" in str(source):
            raise PermissionError(13, "in use")
        whole(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        store.prune(PruneSettings(last=1), ())
    assert store.steps() == [200, 500, 600] and "step_000200" in caplog.text
    assert store.prune(PruneSettings(last=1), ()) == [200]
