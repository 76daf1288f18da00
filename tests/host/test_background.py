"""Training in the background: what prompts give and what the run learns are as if the other were not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tandem_wan.dev import runs
from tandem_wan.dev.testing import sampled, text_of, training_graph
from tandem_wan.wan.video import probe

pytestmark = [pytest.mark.host, pytest.mark.slow]
PLAIN = lambda graph, high, low: (high, low)  # noqa: E731 - one of four kinds of prompt


def with_core_lora(graph, high, low):
    """The host's own loader, which merges the LoRA into the shared weights."""
    return tuple(
        _added(graph, "LoraLoaderModelOnly", model=link, lora_name=name, strength_model=0.8)
        for link, name in (
            (high, "calm_high_noise.safetensors"),
            (low, "calm_low_noise.safetensors"),
        )
    )


def with_stack(graph, high, low):
    """Our own stack, which hangs adapters on the shared layers."""
    row = {"lora": "calm_high_noise.safetensors", "lora_low": "calm_low_noise.safetensors"}
    stack = _added(graph, "TandemLoraStack", rows=json.dumps([row]))
    applied = _added(graph, "TandemApplyStack", stack=stack, model_high=high, model_low=low)
    return applied, [applied[0], 1]


def with_another_model(graph, high, low):
    """Another pair of experts, which takes the place of the one in training."""
    for link, role in ((high, "high"), (low, "low")):
        graph[link[0]]["inputs"]["unet_name"] = f"other_{role}_noise.safetensors"
    return high, low


PROMPTS = {
    "plain": PLAIN,
    "core LoRA": with_core_lora,
    "our stack": with_stack,
    "another model": with_another_model,
}


@pytest.fixture(scope="module")
def calm(server, base):
    """A run in the background that nobody disturbs: its losses."""
    with server.client() as client:
        client.run(training_graph("calm"))
        assert runs.wait_for_end(client, "calm")["state"] == "done"
    return runs.losses(base, "calm")


@pytest.fixture(scope="module")
def references(server, base, calm):
    """What each kind of prompt gives when nothing trains."""
    with server.client() as client:
        return {
            kind: sampled(client, base, f"reference_{kind}", models)
            for kind, models in PROMPTS.items()
        }


def test_a_run_in_the_background_learns_what_the_same_run_in_a_prompt_learns(client, base, calm):
    client.run(training_graph("in_prompt", mode="wait"))
    assert runs.losses(base, "in_prompt") == calm
    assert weights(base, "in_prompt") == weights(base, "calm")


def test_the_node_returns_at_once_and_the_run_is_in_the_list(client, base, calm):
    client.run(training_graph("returns"))
    listed = runs.job(client, "returns")
    assert listed["state"] in ("queued", "running", "parked") and listed["step"] < 30
    assert listed["position"] == 0
    runs.wait_for_end(client, "returns")
    assert runs.losses(base, "returns") == calm


def test_prompts_and_a_run_do_not_see_each_other(client, base, calm, references):
    """The same MODEL plain, with a core LoRA, with our stack, and another model, again and again."""
    client.run(training_graph("disturbed"))
    runs.wait_until(client, "disturbed", lambda j: j["step"] > 0)
    seen = 0
    for number in range(2):
        for kind, models in PROMPTS.items():
            before = runs.job(client, "disturbed")
            got = sampled(client, base, f"meanwhile_{number}_{kind}", models)
            assert torch.equal(got, references[kind]), kind
            seen += runs.job(client, "disturbed")["step"] < 30
            if before["step"] < 28:
                runs.wait_until(client, "disturbed", lambda j, b=before: j["step"] > b["step"])
    assert seen == 8, "the run was over before the prompts were"
    assert runs.wait_for_end(client, "disturbed")["state"] == "done"
    states = [event["state"] for event in runs.events(base, "disturbed", "StateChanged")]
    assert states.count("parked") >= 8 and states.count("parked") + 1 == states.count("running")
    assert runs.losses(base, "disturbed") == calm
    assert weights(base, "disturbed") == weights(base, "calm")
    for kind, models in PROMPTS.items():
        assert torch.equal(sampled(client, base, f"after_{kind}", models), references[kind])


def test_previews_are_made_between_prompts_and_change_nothing(client, base, calm, references):
    """Each sampler step of a preview is a place where the run parks."""
    client.run(training_graph("previewed", preview_every=10))
    for _ in range(6):
        found = runs.job(client, "previewed")
        if found["state"] == "done":
            break
        assert torch.equal(sampled(client, base, "previewing", PLAIN), references["plain"])
    assert runs.wait_for_end(client, "previewed")["state"] == "done"
    assert runs.losses(base, "previewed") == calm
    made = runs.events(base, "previewed", "PreviewMade")
    assert [event["step"] for event in made] == [10, 20, 30]
    for event in made:
        info = probe(Path(event["file"]), fps=16.0, max_frames=100)
        assert (info.frames, info.width, info.height) == (9, 64, 64)


def weights(base, name):
    """Both published files, to the bit."""
    files = [
        base / "models" / "loras" / f"{name}_{role}_noise.safetensors" for role in ("high", "low")
    ]
    return [
        {k: t.reshape(-1).view(torch.uint8).numpy().tobytes() for k, t in load_file(file).items()}
        for file in files
    ]


def _added(graph, kind, **inputs):
    number = f"{kind}_{len(graph)}"
    graph[number] = {"class_type": kind, "inputs": inputs, "_meta": {"title": number}}
    return [number, 0]


def test_a_graph_that_is_queued_again_says_how_far_its_run_is_and_trains_nothing(client, base):
    graph = training_graph("asked_again")
    trainer = next(
        number for number, node in graph.items() if node["class_type"] == "TandemTrainer"
    )
    graph["status"] = {
        "class_type": "PreviewAny",
        "inputs": {"source": [trainer, 1]},
        "_meta": {"title": "status"},
    }
    assert text_of(graph, client.run(graph), "status").startswith("asked_again begins in")
    assert runs.wait_for_end(client, "asked_again")["state"] == "done"
    before = runs.losses(base, "asked_again")
    again = text_of(graph, client.run(graph), "status")
    assert again.startswith("asked_again is trained already (30 steps)")
    assert runs.losses(base, "asked_again") == before
