"""A run that was stopped is resumed over HTTP by its own workflow, which lies in its folder."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest
from tandem_wan.dev import runs
from tandem_wan.dev.testing import number_of, training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow]


def test_a_stopped_run_is_resumed_by_its_own_workflow_and_nothing_else_of_it(client, base):
    graph = training_graph("resumed")
    trainer = number_of(graph, "Train both experts")
    graph["status"] = {
        "class_type": "PreviewAny",
        "inputs": {"source": [trainer, 1]},
        "_meta": {"title": "status"},
    }
    page = {"nodes": [], "links": [], "version": 0.4}
    client.follow(client.queue(graph, {"extra_pnginfo": {"workflow": page}}))
    runs.wait_until(client, "resumed", lambda job: job["step"] >= 5)
    runs.ask(client, "resumed", "stop")
    stopped = runs.wait_for_end(client, "resumed")
    assert stopped["state"] == "stopped"
    folder = base / "output" / "tandem" / "resumed"
    kept = json.loads((folder / "prompt.json").read_text())
    assert kept == {number: node for number, node in graph.items() if number != "status"}
    assert json.loads((folder / "workflow.json").read_text()) == page

    said = runs.ask(client, "resumed", "resume")["message"]
    prompt_id = said.removesuffix(".").split()[-1]
    _until(lambda: runs.job(client, "resumed")["state"] != "stopped")
    assert runs.wait_for_end(client, "resumed")["state"] == "done"
    assert [step for step, *_ in runs.losses(base, "resumed")] == list(range(1, 31))
    _until(lambda: client.history(prompt_id))
    entry = client.history(prompt_id)
    assert entry["prompt"][2].keys() == kept.keys() and entry["prompt"][4] == [trainer]
    assert entry["prompt"][3]["extra_pnginfo"] == {"workflow": page}
    status, error = _refused(client, "resumed")
    assert status == 409 and "resumed is done" in error["came"]


def test_a_workflow_that_is_not_valid_any_more_is_refused_with_what_is_wrong(client, base):
    client.run(training_graph("outlived"))
    runs.wait_until(client, "outlived", lambda job: job["step"] >= 2)
    runs.ask(client, "outlived", "stop")
    runs.wait_for_end(client, "outlived")
    moved = (base / "input" / "clips").rename(base / "away_clips")
    try:
        status, error = _refused(client, "outlived")
    finally:
        moved.rename(base / "input" / "clips")
    assert status == 409
    assert "not valid any more: Clips to learn from: " in error["came"]
    assert "clips is not there" in error["came"] and "prompt.json" in error["to_do"]
    assert client.get("/queue") == {"queue_running": [], "queue_pending": []}

    prompt = base / "output" / "tandem" / "outlived" / "prompt.json"
    whole = prompt.read_text()
    prompt.write_text(whole[:50])
    assert "cannot be read" in _refused(client, "outlived")[1]["came"]
    prompt.unlink()
    status, error = _refused(client, "outlived")
    assert status == 409 and "was not kept" in error["came"] and error["to_do"]
    prompt.write_text(whole)
    runs.ask(client, "outlived", "resume")
    _until(lambda: runs.job(client, "outlived")["state"] != "stopped")
    assert runs.wait_for_end(client, "outlived")["state"] == "done"


def _until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def _refused(client, name):
    """Status and error of a resume that is refused."""
    path = f"/tandem/jobs/{runs.job(client, name)['id']}/resume"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(client.url + path, data=b"{}"), timeout=30)
    return caught.value.code, json.loads(caught.value.read())["error"]
