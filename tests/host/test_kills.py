"""A server that ends while a run is on, by Ctrl-C or by force: the list tells the truth and nothing is lost."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from safetensors.torch import load_file
from tandem_wan.dev import runs
from tandem_wan.dev.server import HostServer
from tandem_wan.dev.testing import number_of, sampling_graph, training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow]


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


def _training(name):
    graph = training_graph(name)
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
