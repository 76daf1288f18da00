"""The runs over HTTP and on the websocket: each answer has the published shape, each refusal says what to do."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import pytest
from tandem_wan.dev import runs
from tandem_wan.dev.testing import training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow]
SCHEMA = json.loads((Path(__file__).parents[2] / "web" / "jobs.schema.json").read_text())


def shaped(answer, kind):
    jsonschema.validate(answer, {**SCHEMA, "$ref": f"#/$defs/{kind}"})
    return answer


def refused(client, path, *, post=False):
    """Status and error of a request that is refused."""
    body = b"{}" if post else None
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(client.url + path, data=body), timeout=30)
    return caught.value.code, shaped(json.loads(caught.value.read()), "error")["error"]


def test_the_list_the_details_and_the_events_have_the_published_shape(client, base):
    seen = []
    client.run(training_graph("shaped"), seen.append)
    runs.wait_until(client, "shaped", lambda job: job["step"] > 2)
    shaped(client.get("/tandem/jobs"), "list")
    live = shaped(client.get(f"/tandem/jobs/{runs.job(client, 'shaped')['id']}"), "details")
    assert live["position"] == 0 and live["plan"]["steps"] == live["steps"] == 30
    assert sum(len(points) for points in live["curves"].values()) >= 3
    client.run(_nothing(), seen.append)  # the stream has gathered what was sent meanwhile
    runs.wait_for_end(client, "shaped")
    client.run(_nothing(), seen.append)
    told = [shaped(e.data, "summary") for e in seen if e.kind == "tandem.job"]
    states = [summary["state"] for summary in told if summary["name"] == "shaped"]
    assert states[0] == "queued" and states[-1] == "done" and "running" in states
    done = shaped(client.get(f"/tandem/jobs/{live['id']}"), "details")
    assert (done["state"], done["checkpoints"][-1], done["position"]) == ("done", 30, None)
    assert sorted(p[0] for points in done["curves"].values() for p in points) == list(range(1, 31))


def test_ids_and_wishes_that_make_no_sense_are_refused_with_what_to_do(client, base):
    client.run(training_graph("refused", mode="wait"))
    known = runs.job(client, "refused")["id"]
    assert refused(client, "/tandem/jobs/..%2f..%2fsecret")[0] == 400
    assert refused(client, "/tandem/jobs/0123456789ABCDEF")[0] == 400
    status, error = refused(client, "/tandem/jobs/0123456789abcdef")
    assert status == 404 and "no run with the id 0123456789abcdef" in error["came"]
    for action in ("pause", "resume", "stop"):
        status, error = refused(client, f"/tandem/jobs/{known}/{action}", post=True)
        assert status == 409 and "refused is done" in error["came"]
        assert refused(client, f"/tandem/jobs/nonsense/{action}", post=True)[0] == 400
    client.run(training_graph("refused_live"))
    live = runs.wait_until(client, "refused_live", lambda job: job["state"] == "running")["id"]
    assert shaped(client.post(f"/tandem/jobs/{live}/pause", {}), "details")
    runs.wait_until(client, "refused_live", lambda job: job["state"] == "paused")
    assert shaped(client.post(f"/tandem/jobs/{live}/stop", {}), "details")
    assert runs.wait_for_end(client, "refused_live")["message"] == "stopped by hand"


def test_one_run_works_and_the_others_wait_in_order(client, base):
    for name in ("first", "second", "third"):
        client.run(training_graph(name))
    runs.wait_until(client, "first", lambda job: job["step"] > 0)
    listed = {job["name"]: job for job in runs.jobs(client)}
    assert [listed[name]["position"] for name in ("first", "second", "third")] == [0, 1, 2]
    assert [listed[name]["state"] for name in ("second", "third")] == ["queued", "queued"]
    runs.ask(client, "second", "stop")
    assert runs.job(client, "second")["state"] == "stopped"
    assert runs.wait_for_end(client, "first")["state"] == "done"
    assert runs.wait_for_end(client, "third")["state"] == "done"
    ended = {name: runs.events(base, name, "StepDone")[-1]["time"] for name in ("first", "third")}
    assert runs.events(base, "third", "StepDone")[0]["time"] > ended["first"]
    assert runs.events(base, "second", "StepDone") == []


def test_the_same_prompt_queued_again_leaves_the_run_alone_and_never_trains_twice(client, base):
    for _ in range(3):
        client.run(training_graph("again"))
    assert [job["name"] for job in runs.jobs(client)].count("again") == 1
    runs.wait_for_end(client, "again")
    client.free()  # forgets every cached output, so that the trainer runs again
    graph = training_graph("again")
    client.run(graph)
    assert [step for step, *_ in runs.losses(base, "again")] == list(range(1, 31))


def test_a_small_node_pauses_resumes_and_stops(client, base):
    client.run(training_graph("by_node"))
    runs.wait_until(client, "by_node", lambda job: job["step"] > 0)
    assert "by_node" in _control(client, "pause", "")
    at = runs.wait_until(client, "by_node", lambda job: job["state"] == "paused")["step"]
    _control(client, "resume", "by_node")
    runs.wait_until(client, "by_node", lambda job: job["step"] > at)
    _control(client, "stop", "by_node")
    assert runs.wait_for_end(client, "by_node")["state"] == "stopped"
    with pytest.raises(Exception, match="No run called 'by_node' is in this ComfyUI now"):
        _control(client, "stop", "by_node")


@pytest.mark.parametrize("give_back", ["keep", "free"])
def test_what_is_given_back_does_not_change_what_is_learnt(client, base, give_back):
    """`offload` is the default of all other tests."""
    client.run(training_graph("reference", mode="wait"))
    name = f"gives_{give_back}"
    client.run(training_graph(name, give_back=give_back))
    for _ in range(3):
        before = runs.wait_until(client, name, lambda job: job["step"] > 0)["step"]
        client.run(_nothing())
        runs.wait_until(client, name, lambda job, b=before: job["step"] > b)
    assert runs.wait_for_end(client, name)["state"] == "done"
    assert runs.losses(base, name) == runs.losses(base, "reference")


def _control(client, action, name):
    graph = {
        "1": {
            "class_type": "TandemJobControl",
            "inputs": {"action": action, "name": name},
            "_meta": {"title": "control"},
        },
        "2": {
            "class_type": "PreviewAny",
            "inputs": {"source": ["1", 0]},
            "_meta": {"title": "status"},
        },
    }
    return client.run(graph)["outputs"]["2"]["text"][0]


def _nothing():
    show = {
        "class_type": "PreviewAny",
        "inputs": {"source": f"{time.time()}"},
        "_meta": {"title": "show"},
    }
    return {"1": show}
