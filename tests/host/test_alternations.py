"""Two hundred changes of hands: memory, threads and file handles stay flat, and so do the results."""

from __future__ import annotations

import json
import statistics

import pytest
import torch
from tandem_wan.dev import runs
from tandem_wan.dev.testing import number_of, sampled, sampling_graph, training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]
TIMES = 200


def test_two_hundred_alternations_leave_nothing_behind(client, base):
    reference = sampled(client, base, "alternated_alone", steps=2)
    client.run(_training("alternated"))
    looks = []
    for number in range(TIMES):
        before = runs.job(client, "alternated")["step"]
        runs.wait_until(client, "alternated", lambda job, b=before: job["step"] > b)
        if number % 10 == 0:
            assert torch.equal(sampled(client, base, "alternated", steps=2), reference), number
        looks.append(_look(client, number))
    runs.ask(client, "alternated", "stop")
    made = runs.wait_for_end(client, "alternated")["step"]
    states = [event["state"] for event in runs.events(base, "alternated", "StateChanged")]
    assert states.count("parked") >= TIMES

    client.run(_training("alone"))
    runs.wait_until(client, "alone", lambda job: job["step"] >= made)
    runs.ask(client, "alone", "stop")
    runs.wait_for_end(client, "alone")
    assert runs.losses(base, "alternated") == runs.losses(base, "alone")[:made]

    for look in looks:
        assert (look["in_training"], look["hooks"], look["patched_forwards"]) == (False, 0, 0)
    # The first tenth warms up: threads of pools, pages of allocators.
    early, late = looks[TIMES // 10 : TIMES // 5], looks[-TIMES // 10 :]
    assert max(look["threads"] for look in late) <= max(look["threads"] for look in early) + 1
    assert max(look["files"] for look in late) <= max(look["files"] for look in early) + 2
    assert max(look["loaded"] for look in late) <= max(look["loaded"] for look in early)
    grown = statistics.median(x["rss_mib"] for x in late) - statistics.median(
        x["rss_mib"] for x in early
    )
    assert grown < 40, f"{grown:.0f} MiB more over {TIMES} alternations"


def _training(name):
    """More steps than two hundred alternations leave time for, each a single micro-batch."""
    graph = training_graph(name)
    plan, trainer = (number_of(graph, t) for t in ("Plan of the run", "Train both experts"))
    changes = {"steps": 50_000, "accumulate": 1, "save_every": 50_000, "allow_long": True}
    graph["edit"] = {
        "class_type": "TandemEditPlan",
        "inputs": {"plan": [plan, 0], "changes": json.dumps(changes)},
        "_meta": {"title": "More steps"},
    }
    graph[trainer]["inputs"]["plan"] = ["edit", 0]
    return graph


def _look(client, nonce):
    whole = sampling_graph("look", lambda _, high, low: (high, low))
    high = number_of(whole, "High-noise expert: runs first")
    probe = {
        "class_type": "TestProbe",
        "inputs": {"model": [high, 0], "nonce": nonce},
        "_meta": {"title": "probe"},
    }
    entry = client.run({high: whole[high], "probe": probe})
    return json.loads(entry["outputs"]["probe"]["text"][0])
