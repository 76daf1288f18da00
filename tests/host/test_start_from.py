"""A run that goes on from the result of another, in one graph over HTTP."""

from __future__ import annotations

import copy
import json

import pytest
from tandem_wan.dev import runs
from tandem_wan.dev.errors import PromptFailed
from tandem_wan.dev.testing import number_of, training_graph
from tandem_wan.wan.lora.files import read_metadata, tandem_metadata

pytestmark = [pytest.mark.host, pytest.mark.slow]
TRAINER = "Train both experts"


def test_a_run_goes_on_from_the_result_of_another(client, base):
    graph = training_graph("taught_once", mode="wait")
    first = number_of(graph, TRAINER)
    graph["result"] = _node("TandemJobResult", job=[first, 0])
    graph["again"] = copy.deepcopy(graph[first])
    graph["again"]["inputs"] |= {"name": "taught_twice", "start_from": ["result", 0]}
    graph["again"]["_meta"]["title"] = "Train them again"
    client.run(graph)
    once, twice = (runs.losses(base, name) for name in ("taught_once", "taught_twice"))
    assert len(once) == len(twice) == 30 and once[0] != twice[0]
    for role in ("high_noise", "low_noise"):
        path = base / "models" / "loras" / f"taught_twice_{role}.safetensors"
        source = tandem_metadata(read_metadata(path))["started_from"][role]
        assert source["file"] == f"taught_once/step_000030/taught_once_000030_{role}.safetensors"
        assert len(source["sha256"]) == 64 and source["strength"] == 1.0


def test_a_half_on_the_wrong_expert_is_refused_in_the_nodes_dialog(client):
    """It comes after the test above, whose files it takes."""
    graph = training_graph("never", mode="wait")
    halves = [f"taught_once_{role}.safetensors" for role in ("low_noise", "high_noise")]
    rows = json.dumps([dict(zip(("lora", "lora_low"), halves, strict=True))])
    graph["stack"] = _node("TandemLoraStack", rows=rows)
    graph[number_of(graph, TRAINER)]["inputs"]["start_from"] = ["stack", 0]
    with pytest.raises(PromptFailed, match="its metadata says low_noise"):
        client.run(graph)


def _node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}
