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
    client.run(_training("alone"))
    runs.wait_for_end(client, "alone")
    reference = sampled(client, base, "alternated_alone", steps=2)
    client.run(_training("alternated"))
    looks, states = [], []
    for number in range(TIMES):
        before = runs.job(client, "alternated")["step"]
        runs.wait_until(client, "alternated", lambda job, b=before: job["step"] > b)
        if number % 10 == 0:
            assert torch.equal(sampled(client, base, "alternated", steps=2), reference), number
        looks.append(_look(client, number))
    states = [event["state"] for event in runs.events(base, "alternated", "StateChanged")]
    assert states.count("parked") >= TIMES
    runs.wait_for_end(client, "alternated")
    assert runs.losses(base, "alternated") == runs.losses(base, "alone")
    for look in looks:
        assert (look["in_training"], look["hooks"], look["patched_forwards"]) == (False, 0, 0)
    # The first tenth warms up: threads of pools, pages of allocators.
    early, late = looks[TIMES // 10 : TIMES // 5], looks[-TIMES // 10 :]
    assert max(look["threads"] for look in late) <= max(look["threads"] for look in early)
    assert max(look["files"] for look in late) <= max(look["files"] for look in early) + 2
    assert len({look["loaded"] for look in late}) <= len({look["loaded"] for look in early})
    grown = statistics.median(x["rss_mib"] for x in late) - statistics.median(
        x["rss_mib"] for x in early
    )
    assert grown < 40, f"{grown:.0f} MiB more over {TIMES} alternations"


def _training(name):
    """`character`: a step for each micro-batch, more than two hundred of them."""
    graph = training_graph(name)
    graph[number_of(graph, "Plan of the run")]["inputs"]["preset"] = "character"
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
