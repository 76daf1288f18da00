"""Trouble in the middle of a run: it says what to do, keeps what it has learnt, and leaves the server as it was.

Memory that is freed and models that are unloaded meanwhile: test_interrupts.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file
from tandem_wan.dev import runs
from tandem_wan.dev.errors import PromptFailed
from tandem_wan.dev.server import HostServer
from tandem_wan.dev.testing import number_of, sampled, sampling_graph, training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow]
AT, WHOLE = 24, 11
"""Two forward passes make a step: this one is the second of step 12."""
CLIPS = "Clips to learn from"
ROLES = ("high_noise", "low_noise")


@pytest.fixture(scope="module")
def calm(server, base):
    """The steps of a run that nothing happens to."""
    with server.client() as client:
        client.run(training_graph("calm_small"))
        assert runs.wait_for_end(client, "calm_small")["state"] == "done"
    return runs.losses(base, "calm_small")


@pytest.fixture(scope="module")
def plain(server, base):
    """What a prompt gives when nothing trains, and what the process looks like then."""
    with server.client() as client:
        return sampled(client, base, "untroubled"), _look(client)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", r"loss is nan and its gradient norm nan\. .*Lower the learning rate"),
        ("no vram", r"ran out of GPU memory at step 11 \(OutOfMemoryError: CUDA out of memory.*swap_blocks to 20 and "
            r"offload_activations on.*goes on from step 11.*fewer frames \(49 instead of 81\).*480p"),
        ("no ram", r"ran out of RAM at step 11 \(RuntimeError: .*DefaultCPUAllocator.*Close other programs.*step 11"),
    ],
)  # fmt: skip
def test_a_run_in_trouble_fails_with_what_to_do_and_goes_on_exactly(
    client, base, calm, plain, kind, message
):
    name = f"trouble_{kind.replace(' ', '_')}"
    client.run(_trouble(kind))
    client.run(training_graph(name))
    failed = runs.wait_for_end(client, name)
    _said(failed, message)
    assert failed["step"] == WHOLE == _resumes_at(client, name)
    _server_is_as_before(client, base, name, plain)
    client.run(training_graph(name))  # the very same prompt
    assert runs.wait_for_end(client, name)["state"] == "done"
    assert runs.losses(base, name) == calm, "each step was made once"
    assert _weights(base, name) == _weights(base, "calm_small")


def test_a_prompt_that_waits_for_its_run_fails_with_the_same_words(client, base, calm, plain):
    client.run(_trouble("no vram"))
    with pytest.raises(PromptFailed, match=r"ran out of GPU memory at step 11.*swap_blocks") as it:
        client.run(training_graph("trouble_waited_for", mode="wait"))
    assert it.value.exception_type.endswith("UserError")
    _server_is_as_before(client, base, "trouble_waited_for", plain)
    client.run(training_graph("trouble_waited_for", mode="wait"))
    assert runs.losses(base, "trouble_waited_for") == calm


def test_clips_that_vanish_before_their_run_begins_are_named_and_others_learn_on(client, base):
    """The run waits behind another one; its clips have not been encoded."""
    folder = base / "input" / "vanishing"
    shutil.copytree(base / "input" / "clips", folder)
    client.run(training_graph("before_vanishing"))
    runs.wait_until(client, "before_vanishing", lambda job: job["step"] > 0)
    runs.ask(client, "before_vanishing", "pause")
    graph = training_graph("vanishing")
    graph[number_of(graph, CLIPS)]["inputs"] |= {"folder": "vanishing", "frames": 5}
    client.run(graph)
    moved = folder.rename(base / "away")
    runs.ask(client, "before_vanishing", "resume")
    failed = runs.wait_for_end(client, "vanishing")
    _said(failed, r"\.mp4 cannot be read any more \(No such file.*from .*vanishing\. Put them back")
    assert runs.job(client, "before_vanishing")["state"] == "done"
    with pytest.raises(Exception, match="vanishing is not there"):
        client.run(graph)
    moved.rename(folder)
    client.run(graph)
    assert runs.wait_for_end(client, "vanishing")["state"] == "done"


def test_clips_that_vanish_while_their_run_is_on_are_not_missed(client, base):
    """It learns from what the cache has of them."""
    folder = base / "input" / "vanished"
    shutil.copytree(base / "input" / "clips", folder)
    graph = training_graph("vanished")
    graph[number_of(graph, CLIPS)]["inputs"]["folder"] = "vanished"
    client.run(graph)
    runs.wait_until(client, "vanished", lambda job: job["step"] > 0)
    shutil.rmtree(folder)
    assert runs.wait_for_end(client, "vanished")["state"] == "done"


def test_a_name_belongs_to_one_run_in_one_process(client, base, calm):
    client.run(training_graph("one_name"))
    runs.wait_until(client, "one_name", lambda job: job["step"] > 0)
    other = training_graph("one_name")
    other[number_of(other, "Plan of the run")]["inputs"]["preset"] = "character"
    with pytest.raises(PromptFailed, match=r"called 'one_name' exists already, and it is another"):
        client.run(other)
    assert runs.wait_for_end(client, "one_name")["state"] == "done"
    assert runs.losses(base, "one_name") == calm


def test_a_name_belongs_to_one_run_in_two_processes(client, base, calm):
    graph = training_graph("shared_name")
    client.run(graph)
    runs.wait_until(client, "shared_name", lambda job: job["step"] > 0)
    runs.ask(client, "shared_name", "pause")
    runs.wait_until(client, "shared_name", lambda job: job["state"] == "paused")
    log = base / f"own_{time.monotonic_ns()}.log"
    with HostServer(base, nodes=("TandemTrainer",), log=log) as own, own.client() as second:
        told = runs.job(second, "shared_name")
        assert (told["state"], told["message"]) == ("paused", "In another process.")
        with pytest.raises(PromptFailed, match=r"is being trained by another process\. .*Wait for"):
            second.run(graph)
        different = training_graph("shared_name")
        different[number_of(different, "Plan of the run")]["inputs"]["preset"] = "character"
        with pytest.raises(PromptFailed, match="exists already, and it is another one"):
            second.run(different)
    runs.ask(client, "shared_name", "resume")
    assert runs.wait_for_end(client, "shared_name")["state"] == "done"
    assert runs.losses(base, "shared_name") == calm


@pytest.fixture
def small_disk(base):
    """The folder of the run `full_disk`, on a disk with room for one checkpoint; called, it makes room for all."""
    folder = base / "output" / "tandem" / "full_disk"
    folder.mkdir(parents=True)

    def mount(options):
        asked = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(asked, capture_output=True, check=False).returncode

    if shutil.which("mount") is None or mount(f"size={_room(base)}") != 0:
        folder.rmdir()
        pytest.skip("no right to mount a disk")
    yield lambda: mount("remount,size=256m")
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


def test_a_full_disk_fails_the_run_and_keeps_the_checkpoint_before(
    client, base, calm, plain, small_disk
):
    client.run(training_graph("full_disk"))
    failed = runs.wait_for_end(client, "full_disk")
    kept = _resumes_at(client, "full_disk")
    assert 0 < kept < failed["step"] < 30
    _said(failed, rf"the disk is full.*MiB are free.*Make room there.*goes on from step {kept}\.")
    pair = [load_file(base / "models" / "loras" / f"full_disk_{r}.safetensors") for r in ROLES]
    assert all(pair), "what was published before is whole"
    _server_is_as_before(client, base, "full_disk", plain)
    assert small_disk() == 0
    client.run(training_graph("full_disk"))
    assert runs.wait_for_end(client, "full_disk")["state"] == "done"
    last = {loss[0]: loss for loss in runs.losses(base, "full_disk")}
    assert sorted(last.values()) == calm
    assert _weights(base, "full_disk") == _weights(base, "calm_small")


def _room(base) -> int:
    """Bytes of one and a half checkpoints."""
    [*_, folder] = sorted((base / "output" / "tandem" / "calm_small").glob("step_*"))
    return int(1.5 * sum(path.stat().st_size for path in folder.iterdir()))


def _said(failed, message):
    assert failed["state"] == "failed", failed
    assert re.search(message, failed["message"], re.DOTALL), failed["message"]
    assert failed["message"] in failed["text"]
    assert len(failed["message"].split(". ")) >= 3, "what came, what can be, what to do"


def _resumes_at(client, name):
    return client.get(f"/tandem/jobs/{runs.job(client, name)['id']}")["resumes_at"]


def _server_is_as_before(client, base, name, plain):
    samples, look = plain
    assert torch.equal(sampled(client, base, f"after_{name}"), samples)
    after = _look(client)
    left_behind = ("in_training", "hooks", "patched_forwards", "gradients", "grad_mode")
    for what in (*left_behind, "inference_mode", "queue_wrapped", "providers", "ours"):
        assert after[what] == look[what], what


def _trouble(kind):
    inputs = {"kind": kind, "at": AT}
    return {"1": {"class_type": "TestTrouble", "inputs": inputs, "_meta": {"title": "trouble"}}}


def _look(client):
    graph = sampling_graph("probe", lambda _, high, low: (high, low))
    high = number_of(graph, "High-noise expert: runs first")
    inputs = {"model": [high, 0], "nonce": time.monotonic_ns() % 2**31}
    probe = {"class_type": "TestProbe", "inputs": inputs, "_meta": {"title": "probe"}}
    entry = client.run({high: graph[high], "probe": probe})
    return json.loads(entry["outputs"]["probe"]["text"][0])


def _weights(base, name):
    files = [base / "models" / "loras" / f"{name}_{role}.safetensors" for role in ROLES]
    return [
        {k: t.reshape(-1).view(torch.uint8).numpy().tobytes() for k, t in load_file(file).items()}
        for file in files
    ]
