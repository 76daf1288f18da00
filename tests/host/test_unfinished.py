"""What a result gives while its run goes on: waits for it, takes what is there, or nothing."""

from __future__ import annotations

import pytest
from tandem_wan.dev import runs
from tandem_wan.dev.errors import PromptFailed, PromptInterrupted
from tandem_wan.dev.testing import number_of, text_of, training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow]


def test_a_result_that_waits_lends_the_models_to_its_run(client, base):
    """One prompt from start to end, although the trainer itself returns at once."""
    graph = _with_result("lent", "wait")
    entry = client.run(graph)
    assert text_of(graph, entry, "report").startswith("step 30 of 30")
    assert runs.job(client, "lent")["state"] == "done"
    client.run(training_graph("lent_reference", mode="wait"))
    assert runs.losses(base, "lent") == runs.losses(base, "lent_reference")


def test_a_result_that_waits_for_a_run_in_the_queue_lets_the_others_finish_first(client, base):
    client.run(training_graph("ahead"))
    graph = _with_result("behind", "wait")
    entry = client.run(graph)
    assert text_of(graph, entry, "report").startswith("step 30 of 30")
    assert runs.job(client, "ahead")["state"] == "done"


def test_cancel_while_waiting_stops_and_saves_the_run(client, base):
    graph = _with_result("cancelled_wait", "wait")
    prompt = client.queue(graph)
    runs.wait_until(client, "cancelled_wait", lambda job: job["step"] >= 8)
    client.interrupt()
    with pytest.raises(PromptInterrupted):
        client.follow(prompt)
    stopped = runs.job(client, "cancelled_wait")
    assert stopped["state"] == "stopped" and 8 <= stopped["step"] < 30
    assert stopped["message"] == "cancelled"
    entry = client.run(graph)  # the trainer's output was cached, and still the run goes on
    assert text_of(graph, entry, "report").startswith("step 30 of 30")
    assert [step for step, *_ in runs.losses(base, "cancelled_wait")] == list(range(1, 31))


def test_a_run_that_somebody_else_stops_fails_the_prompt_that_waits_with_what_to_do(client, base):
    graph = _with_result("stopped_wait", "wait")
    prompt = client.queue(graph)
    runs.wait_until(client, "stopped_wait", lambda job: job["step"] >= 2)
    runs.ask(client, "stopped_wait", "stop")
    with pytest.raises(PromptFailed, match="Queue it again and it goes on"):
        client.follow(prompt)


def test_latest_gives_the_newest_checkpoint_and_block_nothing_until_the_end(client, base):
    """`video effect` saves every five epochs: seven or eight steps here."""
    client.run(training_graph("growing"))
    runs.wait_until(client, "growing", lambda job: job["step"] > 0)
    runs.ask(client, "growing", "pause")
    runs.wait_until(client, "growing", lambda job: job["state"] == "paused")
    early = client.run(_with_result("growing", "latest"))
    assert "no checkpoint yet" in " ".join(early["blocked"])
    runs.ask(client, "growing", "resume")
    first = runs.wait_until(client, "growing", lambda job: _checkpoints(client, "growing") != [])
    runs.ask(client, "growing", "pause")
    runs.wait_until(client, "growing", lambda job: job["state"] == "paused")
    graph = _with_result("growing", "latest")
    newest = _checkpoints(client, "growing")[-1]
    assert first["step"] <= 30 and newest < 30
    assert text_of(graph, client.run(graph), "report").startswith(f"step {newest} of 30")
    blocked = client.run(_with_result("growing", "block"))
    assert blocked["blocked"] == [] and "report" not in blocked["outputs"], "and nobody complains"
    runs.ask(client, "growing", "resume")
    runs.wait_for_end(client, "growing")
    for unfinished in ("latest", "block"):  # the same prompts as before: not what the host has kept
        graph = _with_result("growing", unfinished)
        assert text_of(graph, client.run(graph), "report").startswith("step 30 of 30")


def _checkpoints(client, name):
    return client.get(f"/tandem/jobs/{runs.job(client, name)['id']}")["checkpoints"]


def _with_result(name, unfinished):
    graph = training_graph(name)
    trainer = number_of(graph, "Train both experts")
    graph["result"] = {
        "class_type": "TandemJobResult",
        "inputs": {"job": [trainer, 0], "unfinished": unfinished},
        "_meta": {"title": "result"},
    }
    graph["report"] = {
        "class_type": "PreviewAny",
        "inputs": {"source": ["result", 3]},
        "_meta": {"title": "report"},
    }
    return graph
