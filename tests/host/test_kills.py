"""A server that ends while a run is on, by Ctrl-C or by force: the list tells the truth and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import torch
from safetensors.torch import load_file
from tandem_wan.dev import runs
from tandem_wan.dev.server import HostServer
from tandem_wan.dev.testing import number_of, sampling_graph, training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow]
KILLS = int(os.environ.get("TANDEM_KILLS", "0")) // 10
"""Each costs the start of a server: `make proof` has ten."""


def test_killed_in_every_state_a_run_is_cut_off_and_goes_on_exactly(server, client, base):
    """On a server of its own, over the same folders."""
    client.run(_training("unharmed"))
    assert runs.wait_for_end(client, "unharmed")["state"] == "done"

    with _server(base) as own, own.client() as client:
        client.run(_training("killed"))
        client.run(_training("killed_second"))
        runs.wait_until(client, "killed", lambda j: j["step"] >= 12)
        assert runs.job(client, "killed_second")["state"] == "queued"
        _kill(own)
    reached = runs.losses(base, "killed")[-1][0]

    with _server(base) as own, own.client() as client:
        found, second = runs.job(client, "killed"), runs.job(client, "killed_second")
        assert (found["state"], second["state"]) == ("cut off", "cut off")
        assert (found["step"], second["step"]) == (reached, 0)
        assert f"goes on from step {_resumable(client, 'killed')}" in found["text"]
        client.run(_training("killed"))
        runs.wait_until(client, "killed", lambda j: j["step"] > reached)
        client.queue(_long_prompt())
        runs.wait_until(client, "killed", lambda j: j["state"] == "parked")
        _kill(own)

    with _server(base) as own, own.client() as client:
        assert runs.job(client, "killed")["state"] == "cut off"
        client.run(_training("killed"))
        runs.wait_until(client, "killed", lambda j: j["state"] == "running")
        runs.ask(client, "killed", "pause")
        runs.wait_until(client, "killed", lambda j: j["state"] == "paused")
        _kill(own)

    with _server(base) as own, own.client() as client:
        assert runs.job(client, "killed")["state"] == "cut off"
        client.run(_training("killed"))
        client.run(_training("killed_second"))
        for name in ("killed", "killed_second"):
            assert runs.wait_for_end(client, name)["state"] == "done"
            assert _last_of_each_step(base, name) == runs.losses(base, "unharmed")
            assert _weights(base, name) == _weights(base, "unharmed")


def test_a_server_that_is_ended_saves_the_step_it_is_at(server, client, base):
    with _server(base) as own, own.client() as client:
        client.run(_training("ended"))
        runs.wait_until(client, "ended", lambda j: j["step"] >= 12)
        os.kill(own._process.pid, signal.SIGINT)
        own._process.wait(30)
        assert "Stopped server" in own.tail(80)
    reached = runs.losses(base, "ended")[-1][0]
    with _server(base) as own, own.client() as client:
        found = runs.job(client, "ended")
        assert found["state"] == "cut off" and "ComfyUI ended" in found["text"]
        assert found["step"] == reached == _resumable(client, "ended")
        client.run(_training("ended"))
        assert runs.wait_for_end(client, "ended")["state"] == "done"
    steps = [step for step, *_ in runs.losses(base, "ended")]
    assert steps == list(range(1, 31)), "no step was lost or made twice"


def test_a_server_that_is_terminated_saves_the_step_it_is_at_and_the_run_is_resumed_over_http(
    server, client, base
):
    """SIGTERM is what `kill` and `docker stop` send. The run's own workflow is in its folder."""
    with _server(base) as own, own.client() as client:
        client.run(_training("terminated"))
        runs.wait_until(client, "terminated", lambda j: j["step"] >= 9)
        assert _terminated(own) == -signal.SIGTERM
    reached = runs.losses(base, "terminated")[-1][0]
    with _server(base) as own, own.client() as client:
        found = runs.job(client, "terminated")
        assert found["state"] == "cut off" and "ComfyUI ended" in found["text"]
        assert found["step"] == reached == _resumable(client, "terminated")
        assert "is queued as prompt" in runs.ask(client, "terminated", "resume")["message"]
        _until(lambda: runs.job(client, "terminated")["state"] != "cut off")
        assert runs.wait_for_end(client, "terminated")["state"] == "done"
        assert _terminated(own) == -signal.SIGTERM, "and without a run at once"
    steps = [step for step, *_ in runs.losses(base, "terminated")]
    assert steps == list(range(1, 31)), "no step was lost or made twice"


def test_a_second_signal_ends_a_server_that_cannot_save_at_once(server, client, base):
    with _server(base) as own, own.client() as client:
        trouble = {"class_type": "TestTrouble", "inputs": {"kind": "slow", "at": 24}}
        client.run({"1": trouble | {"_meta": {"title": "trouble"}}})
        client.run(_training("stuck"))
        runs.wait_until(client, "stuck", lambda j: j["step"] >= 11)
        time.sleep(1.0)
        os.kill(own._process.pid, signal.SIGTERM)
        time.sleep(1.5)
        assert own._process.poll() is None, "it waits for the micro-batch"
        began = time.monotonic()
        assert _terminated(own) == -signal.SIGTERM
        assert time.monotonic() - began < 3
    with _server(base) as own, own.client() as client:
        found = runs.job(client, "stuck")
        assert found["state"] == "cut off" and 11 - _resumable(client, "stuck") <= 8


@pytest.mark.skipif(not KILLS, reason="in make proof: TANDEM_KILLS=100")
def test_killed_at_random_a_run_with_previews_ends_as_if_it_had_not_been(server, client, base):
    """Anywhere: while clips are encoded, in a step, a preview or a checkpoint."""
    began = time.monotonic()
    client.run(_training("unkilled", preview_every=10))
    assert runs.wait_for_end(client, "unkilled")["state"] == "done"
    seconds, draw = time.monotonic() - began, random.Random(7)
    killed = False
    for _ in range(KILLS):
        with _server(base) as own, own.client() as other:
            if killed and _over_after_a_kill(other, base, "often_killed"):
                break
            other.run(_training("often_killed", preview_every=10))
            time.sleep(draw.uniform(0, seconds / 3))
            _kill(own)
            killed = True
    client.run(_training("often_killed", preview_every=10))
    assert runs.wait_for_end(client, "often_killed")["state"] == "done"
    assert _last_of_each_step(base, "often_killed") == runs.losses(base, "unkilled")
    assert _weights(base, "often_killed") == _weights(base, "unkilled")
    left = [path for path in base.rglob(".*") if "often_killed" in str(path)]
    assert not left, "something was left"


def _over_after_a_kill(client, base, name) -> bool:
    """Whether the run is done; if not, it has lost no more steps than lie between two checkpoints."""
    found = runs.job(client, name)
    assert found["state"] in ("cut off", "done")
    told = [step for step, *_ in runs.losses(base, name)]
    assert (told[-1] if told else 0) - _resumable(client, name) <= 8
    return found["state"] == "done"


def _terminated(server):
    """The exit code of a server that was sent SIGTERM."""
    os.kill(server._process.pid, signal.SIGTERM)
    return server._process.wait(15)


def _until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def _server(base):
    return HostServer(base, nodes=("TandemTrainer",), log=base / f"own_{time.monotonic_ns()}.log")


def _kill(server):
    os.killpg(server._process.pid, signal.SIGKILL)
    server._process.wait()


def _resumable(client, name):
    return client.get(f"/tandem/jobs/{runs.job(client, name)['id']}")["resumes_at"]


def _last_of_each_step(base, name):
    """What a killed run did again counts as done last."""
    return sorted({loss[0]: loss for loss in runs.losses(base, name)}.values())


def _training(name, **trainer):
    graph = training_graph(name, **trainer)
    size = {"width": 128, "height": 128}
    graph[number_of(graph, "Clips to learn from")]["inputs"] |= size
    return graph


def _long_prompt():
    return sampling_graph("long", lambda _, high, low: (high, low), steps=2000, seed=5)


def _weights(base, name):
    files = [
        base / "models" / "loras" / f"{name}_{role}_noise.safetensors" for role in ("high", "low")
    ]
    return [
        {k: t.reshape(-1).view(torch.uint8).numpy().tobytes() for k, t in load_file(file).items()}
        for file in files
    ]
