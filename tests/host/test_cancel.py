"""Cancel in the middle of a run: stop, save, and leave the server as it was."""

from __future__ import annotations

import json
import time

import pytest
import torch
from safetensors.torch import load_file
from tandem_wan.dev.errors import PromptInterrupted
from tandem_wan.dev.testing import sampled, text_of, workflow

pytestmark = [pytest.mark.host, pytest.mark.slow]
CHANGES = {"Plan of the run": {"preset": "character"}, "Train both experts": {"name": "cancelled"}}


def test_cancel_leaves_a_loadable_pair_and_a_server_that_samples_as_before_and_the_run_goes_on(
    client, base
):
    before = sampled(client, base, "before_cancel")
    graph = workflow("train_and_sample", CHANGES)
    folder = base / "output" / "tandem" / "cancelled"

    _cancel_after(client, graph, folder, steps=14)
    stopped = json.loads((folder / "job.json").read_text())
    assert stopped["state"] == "stopped" and 14 <= stopped["step"] < 400
    saved = {
        role: load_file(base / "models" / "loras" / f"cancelled_{role}.safetensors")
        for role in ("high_noise", "low_noise")
    }
    assert all(len(tensors) == 3 * 40 for tensors in saved.values())
    for role, tensors in saved.items():
        moved = any(t.abs().max() > 0 for k, t in tensors.items() if "lora_B" in k)
        assert moved, role

    assert torch.equal(sampled(client, base, "after_cancel"), before)

    _cancel_after(client, graph, folder, steps=stopped["step"] + 5)
    steps = [e["step"] for e in _events(folder) if e["event"] == "StepDone"]
    assert steps == list(range(1, len(steps) + 1))  # no step twice, none left out
    assert torch.equal(sampled(client, base, "after_second_cancel"), before)


def test_a_stopped_run_that_is_queued_again_ends_as_if_it_had_not_been_stopped(client, base):
    """The same run under two names: one is stopped in the middle, the other is not."""
    weights = {}
    for name in ("whole", "broken"):
        changes = {
            "Plan of the run": {"preset": "video effect"},
            "Train both experts": {"name": name},
        }
        graph = workflow("train_and_sample", changes)
        if name == "broken":
            _cancel_after(client, graph, base / "output" / "tandem" / name, steps=7)
        entry = client.run(graph)
        assert "is trained: 30 steps" in text_of(graph, entry, "What the run says")
        weights[name] = [
            load_file(base / "models" / "loras" / f"{name}_{role}.safetensors")
            for role in ("high_noise", "low_noise")
        ]
    for whole, broken in zip(weights["whole"], weights["broken"], strict=True):
        assert whole.keys() == broken.keys()
        assert all(torch.equal(whole[key], broken[key]) for key in whole)


def _cancel_after(client, graph, folder, *, steps):
    prompt = client.queue(graph)
    deadline = time.monotonic() + 120
    while sum(e["event"] == "StepDone" for e in _events(folder)) < steps:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.02)
    client.interrupt()
    with pytest.raises(PromptInterrupted):
        client.follow(prompt)


def _events(folder):
    file = folder / "events.jsonl"
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
