"""Broken numbers, no memory, a full disk: the run says what to do, loses nothing, and goes on when it is asked to."""

import errno
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tandem_wan.training.job import open_job
from tandem_wan.training.loop import train
from tandem_wan.training.troubles import explained
from tandem_wan.wan.errors import UserError

LIMIT_S = 20.0
STEP = 3
"""Steps that are whole when it happens."""


def no_vram(velocity):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


def no_vram_in_a_library(velocity):
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def no_ram(velocity):
    raise MemoryError


def no_ram_for_a_tensor(velocity):
    return velocity + torch.empty(1 << 50, dtype=torch.uint8)  # the allocator's own error


TROUBLES = {
    "nan": (lambda v: v * torch.nan, r"loss is nan.*finite.*Lower the learning rate"),
    "inf": (lambda v: v * torch.inf, r"loss is inf.*finite.*Lower the learning rate"),
    "no vram": (no_vram, r"out of GPU memory at step 3 \(OutOfMemoryError: CUDA out of memory.*must fit.*"
        r"swap_blocks to 20 and offload_activations on.*goes on from step 3.*fewer frames.*480p"),
    "no vram in a library": (no_vram_in_a_library, r"out of GPU memory.*CUBLAS.*swap_blocks"),
    "no ram": (no_ram, r"ran out of RAM at step 3 \(MemoryError\).*Close other programs.*from step 3.*fewer frames"),
    "no ram for a tensor": (no_ram_for_a_tensor, r"ran out of RAM at step 3 \(RuntimeError: .*DefaultCPUAllocator"),
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_run_in_trouble_says_what_to_do_and_goes_on_to_the_weights_of_an_undisturbed_one(
    toys, runs, tmp_path, trouble
):
    happens, message = TROUBLES[trouble]
    job = runs.job()
    run = runs.runner.submit(job, _breaking(toys, job, happens))
    assert run.finished.wait(LIMIT_S)
    assert job.state == "failed" and job.store.resumable_step() == STEP
    assert isinstance(run.error, UserError)
    assert run.error.came and run.error.can_be and run.error.to_do
    with pytest.raises(UserError, match=f"(?s){message}"):
        raise run.error
    assert run.control.why == str(run.error), "the last thing that pages are told"
    again = runs.start(runs.job())
    assert again.finished.wait(LIMIT_S) and again.job.state == "done"
    _same_as_undisturbed(toys, again.job, tmp_path)


def test_the_advice_leaves_out_what_the_plan_has_already(runs):
    job = runs.job()
    lean = replace(
        job.plan, swap_blocks=30, checkpoint_blocks=True, offload_activations=True, batch=2
    )
    job.identity = replace(job.identity, plan=lean)
    said = str(explained(torch.OutOfMemoryError("CUDA out of memory."), job))
    assert "Set swap_blocks to 40 in the plan" in said and "batch 1 instead of 2" in said
    assert "begins again, since nothing was saved yet" in said
    said = str(explained(MemoryError(), job))
    assert "Lower swap_blocks (now 30) and offload_activations, which fill the RAM" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_known_by_its_number(runs, number):
    job = runs.job()
    found = explained(OSError(number, "No space left on device"), job)
    assert isinstance(found, UserError) and "the disk is full" in found.came
    assert "MiB are free" in found.can_be and "Make room there" in found.to_do


def test_other_errors_stay_as_they_are(runs):
    for error in (KeyError("x"), RuntimeError("shapes differ"), PermissionError(13, "no")):
        assert explained(error, runs.job()) is error


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB; `small_disk(size)` makes it another."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(options):
        asked = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(asked, capture_output=True, check=False).returncode

    try:
        if mount("size=256k") != 0:
            pytest.skip("no right to mount a disk")
    except FileNotFoundError:
        pytest.skip("no mount here")
    yield folder, lambda size: mount(f"remount,size={size}")
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_costs_no_more_than_the_steps_since_the_last_checkpoint(
    toys, small_disk, tmp_path
):
    folder, make = small_disk
    runs = toys.runs(folder)
    first = runs.start(runs.job(steps=40))
    assert first.finished.wait(LIMIT_S)
    assert first.job.state == "failed" and "the disk is full" in first.error.came
    kept = first.job.store.resumable_step()
    assert 0 < kept < 40 and f"goes on from step {kept}" in first.error.to_do
    left = {p.name for p in first.job.folder.iterdir()}
    assert not {name for name in left if name.startswith(".")}, "what was half written is away"
    assert make("64m") == 0
    again = runs.start(runs.job(steps=40))
    assert again.finished.wait(LIMIT_S) and again.job.state == "done"
    _same_as_undisturbed(toys, again.job, tmp_path, steps=40)
    runs.end()


def test_the_checkpoint_library_tells_of_a_full_disk_as_we_understand_it(runs, small_disk):
    folder, _ = small_disk
    with pytest.raises(Exception, match="os error 28") as caught:
        save_file({"x": torch.zeros(1 << 20)}, folder / "x")
    assert "the disk is full" in str(explained(caught.value, runs.job()))


def _breaking(toys, job, happens):
    """Trains until a forward pass goes wrong."""

    def save(step, trainers):
        job.store.save(step, trainers, job.metadata("T"))

    def work(turns):
        trainers = toys.trainers(job.plan)
        for trainer in trainers.values():
            trainer.expert.after_velocity = lambda call, v: happens(v) if job.step == STEP else v
        return train(job.plan, trainers, save=save, listen=job.listen, turns=turns)

    return work


def _same_as_undisturbed(toys, job, tmp_path, **plan):
    alone = toys.runs(tmp_path / "alone")
    other = alone.job(**plan)
    assert alone.start(other).finished.wait(LIMIT_S)
    alone.end()
    trained = [toys.trainers(job.plan) for _ in range(2)]
    for trainers, one in zip(trained, (job, other), strict=True):
        assert one.store.resume(trainers) == one.plan.steps
    assert toys.same(*map(toys.weights, trained))
    assert job.losses() == open_job(alone.root, other.identity).losses()
