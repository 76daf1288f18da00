"""The main job over HTTP: one queued graph trains a pair and samples with it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tandem_wan.dev.errors import PromptFailed
from tandem_wan.dev.testing import number_of, sampled, text_of, tiny_files, workflow

pytestmark = [pytest.mark.host, pytest.mark.slow]
HIGH, LOW = "quick_high_noise.safetensors", "quick_low_noise.safetensors"
CHANGES = {
    "Plan of the run": {"preset": "video effect"},
    "Train both experts": {"name": "quick"},
    "Sample before": {"steps": 4},
    "Sample after": {"steps": 4},
}


@pytest.fixture(scope="module")
def ran(server, base):
    """The shipped graph, run once: (graph, history entry)."""
    graph = workflow("train_and_sample", CHANGES)
    with server.client() as client:
        return graph, client.run(graph)


def test_the_pair_is_there_whole_and_says_what_it_is(ran, base):
    pair = {role: base / "models" / "loras" / name for role, name in _files().items()}
    ids = set()
    for role, path in pair.items():
        tensors = load_file(path)
        assert len(tensors) == 3 * 40  # lora_A, lora_B and alpha of 40 layers
        assert all(torch.isfinite(t).all() for t in tensors.values())
        assert any(t.abs().max() > 0 for k, t in tensors.items() if "lora_B" in k)
        with safe_open(path, framework="pt") as file:
            entry = json.loads(file.metadata()["tandem"])
        assert (entry["expert"], entry["step"], entry["rank"], entry["alpha"]) == (role, 30, 32, 32)
        assert entry["trigger"] == "MERMAID" and entry["plan"]["steps"] == 30
        assert set(entry["base"]) == {"high_noise", "low_noise"} and entry["dataset"]
        ids.add(entry["pair_id"])
    assert len(ids) == 1


def test_no_half_written_file_is_left(ran, base):
    left = [p for root in ("output", "models", "input") for p in (base / root).rglob(".*")]
    # The captions that a template has replaced are kept, in a folder that hosts do not list.
    assert [p for p in left if not p.name.startswith(".captions_before_")] == []


def test_checkpoints_and_the_pair_are_in_cores_lora_list_without_a_restart(ran, client):
    listed = client.models("loras")
    assert HIGH in listed and LOW in listed
    checkpoint = "quick/step_000030/quick_000030_high_noise.safetensors"
    assert checkpoint in listed
    combo = client.object_info("LoraLoaderModelOnly")["LoraLoaderModelOnly"]["input"]["required"]
    assert checkpoint in combo["lora_name"][0]


def test_the_load_report_says_that_every_key_matched(ran):
    graph, entry = ran
    report = text_of(graph, entry, "Load report")
    assert report.startswith("80 of 80 modules matched.") and "left over" not in report
    assert "rank 32, alpha 32, strength 1" in report


def test_the_run_says_its_shares_and_what_best_means(ran):
    graph, entry = ran
    status = text_of(graph, entry, "What the run says")
    assert status.startswith("quick is trained: 30 steps.")
    assert "high_noise: 11 steps (36.7%)" in status and "low_noise: 19 steps (63.3%)" in status


def test_the_sampler_says_where_it_switched(ran):
    graph, entry = ran
    assert text_of(graph, entry, "The switch").startswith("2 high + 2 low of 4 steps")


def test_the_clips_before_and_after_are_there_and_differ(ran, base):
    graph, entry = ran
    clips = []
    for title in ("Save before", "Save after"):
        (found,) = entry["outputs"][number_of(graph, title)]["images"]
        clips.append((base / "output" / found["subfolder"] / found["filename"]).read_bytes())
    assert clips[0] != clips[1]


def test_strength_0_is_no_lora_bit_for_bit_and_strength_1_differs(ran, client, base):
    plain = sampled(client, base, "plain")
    assert torch.equal(sampled(client, base, "zero", _stack(high=0.0, low=0.0)), plain)
    full = sampled(client, base, "one", _stack(high=1.0, low=1.0))
    half = sampled(client, base, "half", _stack(high=0.5, low=0.5))
    assert 0 < (half - plain).norm() < (full - plain).norm()


def test_cores_own_loader_gives_the_same_clip_with_the_same_files(ran, client, base):
    ours = sampled(client, base, "ours", _stack(high=0.8, low=1.0))
    theirs = sampled(client, base, "theirs", _core_loaders)
    plain = sampled(client, base, "plain_again")
    effect = (theirs - plain).abs().max()
    assert effect > 1e-3
    assert (ours - theirs).abs().max() < 1e-3 * effect


def test_the_stack_workflow_samples_with_a_pair_in_two_plus_two_steps(ran, client, base):
    rows = json.dumps([{"lora": HIGH, "lora_low": LOW, "high": 1.0, "low": 1.0, "kind": "speed"}])
    graph = workflow("image_to_video", {"The stack": {"rows": rows}})
    tiny_files(graph)
    entry = client.run(graph)
    assert text_of(graph, entry, "The switch").startswith("2 high + 2 low of 4 steps")
    assert text_of(graph, entry, "Load report").startswith("80 of 80 modules matched.")
    (found,) = entry["outputs"][number_of(graph, "Save clip")]["images"]
    assert (base / "output" / found["subfolder"] / found["filename"]).stat().st_size > 1000


def test_queued_again_the_finished_run_is_not_trained_again(ran, client, base):
    graph, _ = ran
    events = base / "output" / "tandem" / "quick" / "events.jsonl"
    before = events.read_bytes()
    client.free()  # forgets every cached output, so that the trainer runs again
    entry = client.run(graph)
    assert text_of(graph, entry, "What the run says").startswith(
        "quick is trained already (30 steps)"
    )
    assert events.read_bytes() == before


def test_another_plan_under_the_same_name_is_refused_and_says_what_differs(ran, client):
    changes = {**CHANGES, "Plan of the run": {"preset": "character"}}
    with pytest.raises(
        PromptFailed, match=r"'quick' exists already.*preset: character now, video effect before"
    ):
        client.run(workflow("train_and_sample", changes))


def test_a_file_of_somebody_else_is_not_overwritten(ran, client, base):
    precious = base / "models" / "loras" / "precious_high_noise.safetensors"
    precious.write_bytes((base / "models" / "loras" / HIGH).read_bytes())
    changes = {**CHANGES, "Train both experts": {"name": "precious"}}
    with pytest.raises(
        PromptFailed, match=r"precious_high_noise.safetensors is already in .*does not come from"
    ):
        client.run(workflow("train_and_sample", changes))
    assert not (base / "models" / "loras" / "precious_low_noise.safetensors").exists()


def _files():
    return {"high_noise": HIGH, "low_noise": LOW}


def _stack(**strengths):
    """A stack of the pair between loaders and sampler."""

    def models(graph, high, low):
        rows = json.dumps([{"lora": HIGH, "lora_low": LOW, **strengths}])
        graph["stack"] = _node("TandemLoraStack", rows=rows)
        graph["apply"] = _node(
            "TandemApplyStack", stack=["stack", 0], model_high=high, model_low=low
        )
        return ["apply", 0], ["apply", 1]

    return models


def _core_loaders(graph, high, low):
    graph["core_high"] = _node(
        "LoraLoaderModelOnly", model=high, lora_name=HIGH, strength_model=0.8
    )
    graph["core_low"] = _node("LoraLoaderModelOnly", model=low, lora_name=LOW, strength_model=1.0)
    return ["core_high", 0], ["core_low", 0]


def _node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}
