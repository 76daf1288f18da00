"""A run that goes on from another run's result, from its first step to its files."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.start_rig import own_folders
from tandem_wan.training.plans.settings import LoraSettings
from tandem_wan.training.start import read_start
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.files import read_metadata, tandem_metadata
from tandem_wan.wan.lora.stack import LoraStack, Row

pytestmark = pytest.mark.comfy
ROLES = ("high_noise", "low_noise")


@pytest.fixture
def folder(comfy, tmp_path, monkeypatch):
    return own_folders(tmp_path, monkeypatch)


@pytest.fixture
def run(pair, vae, clip, clips, folder, monkeypatch):
    """Trains the three real clips for so many steps and stops there; gives the job."""
    from tandem_wan.nodes.host import run as module
    from tandem_wan.nodes.host.run import open_run, work_of
    from tandem_wan.nodes.host.start import with_start

    monkeypatch.setattr(
        module, "save_pictures", lambda job: None
    )  # they are slow, and nobody looks

    class After(Turns):
        def __init__(self, job, steps):
            self.job, self.steps = job, steps

        def over(self):
            return self.job.step >= self.steps

        def wait(self):
            raise RunStopped

    def run(name, stack=None, *, stop=4):
        setup = rig.setup(pair, vae, clip, clips)
        lora = LoraSettings(rank=4, alpha=4.0)
        plan = replace(setup.plan, steps=4, swap_every=1, save_every=2, lora=lora)
        setup = with_start(replace(setup, plan=plan), stack, name)
        job = open_run(setup, name)
        job.claim()
        for state in ("queued", "running"):
            job.set_state(state)
        try:
            end = work_of(setup, job)(After(job, stop) if stop < 4 else Turns())
        finally:
            job.release()
        for state in ("done",) if end == "done" else ("stopping", "stopped"):
            job.set_state(state)
        return job

    return run


def taught(job):
    return {role: load_file(job.store.file(4, role)) for role in ROLES}


def test_a_finished_run_is_gone_on_from_and_resumes_to_the_bit_when_its_file_is_gone(run, folder):
    from tandem_wan.nodes.host.places import lora_name

    first = run("first")
    high, low = (lora_name(first.store.file(4, role)) for role in ROLES)
    stack = LoraStack((Row(lora=high, lora_low=low),))
    whole = run("whole", stack)
    entry = tandem_metadata(read_metadata(whole.store.file(4, "low_noise")))
    source = entry["started_from"]["low_noise"]
    assert source["file"] == "first/step_000004/first_000004_low_noise.safetensors"
    assert source == read_start(whole.folder).metadata()["low_noise"] and source["strength"] == 1.0
    assert "goes on from first/step_000004" in (whole.folder / "run.log").read_text("utf-8")

    cut = run("cut", stack, stop=2)
    assert cut.store.steps() == [2]
    other = LoraStack((replace(stack.rows[0], high=0.5),))
    with pytest.raises(UserError, match="another start"):
        run("cut", other)
    with pytest.raises(UserError, match="another start"):
        run("cut")
    anew = taught(first)
    shutil.rmtree(first.folder / "step_000004")
    with pytest.raises(UserError, match="is not in a loras folder"):
        run("new", stack)
    resumed = run("cut", stack)
    assert _equal(taught(resumed), taught(whole))
    assert not _equal(taught(resumed), anew), "a run that begins anew learns another LoRA"


def _equal(ours, theirs):
    return all(
        torch.equal(ours[role][key], theirs[role][key]) for role in ROLES for key in ours[role]
    )
