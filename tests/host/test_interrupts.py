"""What can come between: interrupts, freed memory, prompts that fail, a MODEL that the host forgets."""

from __future__ import annotations

import json
import time

import pytest
import torch
from tandem_wan.dev import runs
from tandem_wan.dev.errors import PromptFailed, PromptInterrupted
from tandem_wan.dev.testing import number_of, sampled, sampling_graph, training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow]


@pytest.fixture(scope="module")
def calm(server, base):
    """The losses of a run in larger pictures, whose micro-batches last long enough to be hit."""
    with server.client() as client:
        client.run(_training("calm_large"))
        assert runs.wait_for_end(client, "calm_large")["state"] == "done"
    return runs.losses(base, "calm_large")


@pytest.fixture(scope="module")
def plain(server, base):
    """What a prompt gives when nothing trains, and what the process looks like then."""
    with server.client() as client:
        return sampled(client, base, "undisturbed"), _look(client)


def test_a_prompt_finds_no_trace_of_training_in_the_models(client, base, calm, plain):
    """Its one node looks at once, at moments that fall anywhere into a micro-batch."""
    _start(client, "looked_at")
    for number in range(12):
        time.sleep(0.4 + 0.029 * number)
        look = _look(client)
        assert (look["in_training"], look["hooks"], look["patched_forwards"]) == (False, 0, 0)
        assert look["queue_wrapped"] and look["providers"] == ["PromptGuard"]
        assert look["ours"] == ["tandem-training"], "the run was over before it was looked at"
    _ends_as_if_alone(client, base, "looked_at", calm, plain)


def test_an_interrupt_reaches_the_prompt_that_runs(client, base, calm, plain):
    _start(client, "hit_running")
    for _ in range(2):
        prompt = client.queue(_long_prompt())
        _follow_until(client, prompt, lambda event: event.kind == "progress")
        client.interrupt()
        with pytest.raises(PromptInterrupted):
            client.follow(prompt)
    _ends_as_if_alone(client, base, "hit_running", calm, plain)


def test_an_interrupt_reaches_the_prompt_that_waits_for_the_models(client, base, calm, plain):
    """It is sent between the prompt's begin, which the host tells, and its first node."""
    _start(client, "hit_waiting")
    for _ in range(6):
        prompt = client.queue(_long_prompt())
        _follow_until(client, prompt, lambda event: event.kind == "execution_start")
        client.interrupt()
        with pytest.raises(PromptInterrupted):
            client.follow(prompt)
        runs.wait_until(client, "hit_waiting", lambda j: j["state"] == "running")
    _ends_as_if_alone(client, base, "hit_waiting", calm, plain)


def test_an_interrupt_for_nobody_leaves_the_run_alone(client, base, calm, plain):
    _start(client, "hit_alone")
    for _ in range(10):
        client.interrupt()
        time.sleep(0.15)
    # The host's worker wakes up now and then for its own garbage, and the run stands aside for a moment.
    runs.wait_until(client, "hit_alone", lambda job: job["state"] == "running")
    _ends_as_if_alone(client, base, "hit_alone", calm, plain)


def test_freed_and_unloaded_memory_comes_back(client, base, calm, plain):
    _start(client, "freed")
    for unload, forget in ((True, False), (False, True), (True, True)) * 2:
        client.free(unload_models=unload, free_memory=forget)
        before = runs.job(client, "freed")["step"]
        runs.wait_until(client, "freed", lambda j, b=before: j["step"] > b)
    _ends_as_if_alone(client, base, "freed", calm, plain)


def test_a_model_that_the_host_has_forgotten_is_trained_on(client, base, calm, plain):
    """The cache is emptied, so the next prompt loads the file anew, beside the one in training."""
    _start(client, "forgotten")
    client.free(unload_models=True, free_memory=True)
    assert torch.equal(sampled(client, base, "another_copy"), plain[0])
    assert runs.job(client, "forgotten")["step"] < 30
    _ends_as_if_alone(client, base, "forgotten", calm, plain)


def test_prompts_that_fail_and_prompts_in_a_row_do_not_stop_the_run(client, base, calm, plain):
    _start(client, "among_failures")
    waiting = [client.queue(_raising()), client.queue(_probing(1)), client.queue(_raising())]
    for number, prompt in enumerate(waiting):
        if number == 1:
            client.follow(prompt)
        else:
            with pytest.raises(PromptFailed, match="raised on purpose"):
                client.follow(prompt)
    assert runs.job(client, "among_failures")["step"] < 30
    _ends_as_if_alone(client, base, "among_failures", calm, plain)


def test_pause_resume_and_stop(client, base, calm, plain):
    _start(client, "paused")
    runs.ask(client, "paused", "pause")
    at = runs.wait_until(client, "paused", lambda j: j["state"] == "paused")["step"]
    assert torch.equal(sampled(client, base, "while_paused"), plain[0])
    time.sleep(0.5)
    assert (
        runs.job(client, "paused")["step"] == at and runs.job(client, "paused")["state"] == "paused"
    )
    runs.ask(client, "paused", "resume")
    runs.wait_until(client, "paused", lambda j: j["step"] > at)
    runs.ask(client, "paused", "stop")
    stopped = runs.wait_for_end(client, "paused")
    assert stopped["state"] == "stopped" and at < stopped["step"] < 30
    client.run(_training("paused"))  # the very same prompt: it goes on where it was
    _ends_as_if_alone(client, base, "paused", calm, plain)


def _start(client, name):
    client.run(_training(name))
    runs.wait_until(client, name, lambda j: j["step"] > 0)


def _ends_as_if_alone(client, base, name, calm, plain):
    samples, look = plain
    assert runs.wait_for_end(client, name)["state"] == "done"
    assert runs.losses(base, name) == calm
    assert torch.equal(sampled(client, base, f"after_{name}"), samples)
    after = _look(client)
    left_behind = ("in_training", "hooks", "patched_forwards", "gradients", "grad_mode")
    for what in (*left_behind, "inference_mode", "queue_wrapped", "providers", "ours"):
        assert after[what] == look[what], what


def _training(name):
    graph = training_graph(name)
    size = {"width": 128, "height": 128}
    graph[number_of(graph, "Clips to learn from")]["inputs"] |= size
    return graph


def _long_prompt():
    """Another seed each time, so that it really samples."""
    return sampling_graph(
        "long", lambda _, h, low: (h, low), steps=400, seed=time.monotonic_ns() % 2**32
    )


def _probing(nonce):
    graph = sampling_graph("probe", lambda _, high, low: (high, low))
    high = number_of(graph, "High-noise expert: runs first")
    probe = {
        "class_type": "TestProbe",
        "inputs": {"model": [high, 0], "nonce": nonce},
        "_meta": {"title": "probe"},
    }
    return {high: graph[high], "probe": probe}


def _raising():
    graph = _probing(0)
    graph["probe"] |= {
        "class_type": "TestRaise",
        "inputs": {"model": graph["probe"]["inputs"]["model"]},
    }
    return graph


def _look(client):
    entry = client.run(_probing(time.monotonic_ns() % 2**31))
    return json.loads(entry["outputs"]["probe"]["text"][0])


def _follow_until(client, prompt, reached):
    class _Reached(Exception):  # noqa: N818 - it is no error
        pass

    def listen(event):
        if reached(event):
            raise _Reached

    with pytest.raises(_Reached):
        client.follow(prompt, listen)
