"""Stacks on a model that is taken as a single one, and what makes a stack anew."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.comfy
HIGH, LOW = "x_high_noise.safetensors", "x_low_noise.safetensors"


@pytest.mark.parametrize("socket", ["model_high", "model_low"])
def test_a_single_model_says_which_rows_were_meant_for_one_expert(host, pair, socket):
    rows = [{"lora": "style.safetensors", "route": "low", "high": 0.5, "low": 0.3}]
    prompt = {
        "stack": host.node("TandemLoraStack", rows=json.dumps(rows)),
        "model": host.give(pair["low_noise"]),
    }
    inputs = {"stack": ["stack", 0], socket: ["model", 0]}
    report = host.run(prompt, "TandemApplyStack", **inputs)[2]
    assert "strength 0.5" in report
    assert "Warning: Row 1: style.safetensors is meant for the low-noise expert" in report
    assert ("Only model_low is connected" in report) is (socket == "model_low")


def test_a_lone_expert_takes_the_row_that_is_for_it_without_a_warning(host, pair):
    rows = [{"lora": "style.safetensors", "route": "low", "high": 0.5, "low": 0.3}]
    prompt = {
        "stack": host.node("TandemLoraStack", rows=json.dumps(rows)),
        "model": host.give(pair["low_noise"]),
    }
    inputs = {"stack": ["stack", 0], "model_low": ["model", 0], "family": "wan 2.2 A14B"}
    report = host.run(prompt, "TandemApplyStack", **inputs)[2]
    assert "strength 0.3" in report
    assert "Warning" not in report and "Only model_low" not in report


@pytest.mark.parametrize("single", [True, False])
def test_a_recipe_of_a_found_pair_fits_a_single_model_and_two_experts(host, pair, single):
    from tandem_wan.nodes.host.loras import paired
    from tandem_wan.nodes.host.recipes import loaded, recipe_given
    from tandem_wan.wan.lora.file_notes import recipe_of
    from tandem_wan.wan.lora.recipes import recipe_text
    from tandem_wan.wan.lora.stack import LoraStack, Row

    found = LoraStack(paired((Row(lora=LOW),))[0])
    text = recipe_text(recipe_of(found, lambda _: None, str))
    stack = loaded(recipe_given("", text), "", "error")[0].stack()
    prompt = {"stack": host.give(stack), "low": host.give(pair["low_noise"])}
    prompt["high"] = host.give(pair["high_noise"])
    models = {"model_high": ["high", 0]} | ({} if single else {"model_low": ["low", 0]})
    report = host.run(prompt, "TandemApplyStack", stack=["stack", 0], **models)[2]
    assert f"{LOW} -> {'single' if single else 'low_noise'}" in report
    assert (f"{HIGH} -> high_noise" in report) is not single


def test_both_halves_on_a_single_model_are_refused_unless_a_warning_is_asked_for(host, pair):
    prompt = {
        "stack": host.node("TandemLoraStack", rows=json.dumps([{"lora": HIGH}, {"lora": LOW}])),
        "model": host.give(pair["high_noise"]),
    }
    inputs = {"stack": ["stack", 0], "model_high": ["model", 0]}
    with pytest.raises(RuntimeError, match="Files of both experts"):
        host.run(prompt, "TandemApplyStack", **inputs)
    report = host.run(prompt, "TandemApplyStack", **inputs, unmatched="warn")[2]
    assert report.count("Warning: Row") == 2


def test_a_speed_lora_does_not_count_towards_the_total_strength(host, pair):
    host.lora("fast")
    rows = [{"lora": "style.safetensors", "high": 2.0}, {"lora": "fast.safetensors", "high": 2.0}]
    totals = []
    for kind in (None, "speed"):
        stack = json.dumps([rows[0], {**rows[1], "kind": kind}])
        prompt = {"stack": host.node("TandemLoraStack", rows=stack)}
        prompt["model"] = host.give(pair["high_noise"])
        report = host.run(prompt, "TandemApplyStack", stack=["stack", 0], model_high=["model", 0])[
            2
        ]
        totals.append("speed left out" in report)
    assert totals == [True, False]


def test_a_loaded_stack_is_made_anew_when_its_other_half_is_overwritten(host):
    from tandem_wan.nodes.recipes import TandemLoadStack

    recipe = json.dumps([{"lora": HIGH}])
    prints = [TandemLoadStack.fingerprint_inputs(recipe=recipe) for _ in range(2)]
    host.lora(LOW.removesuffix(".safetensors"), rank=3)
    prints.append(TandemLoadStack.fingerprint_inputs(recipe=recipe))
    (host.folder / LOW.replace(".safetensors", ".txt")).write_text("NEON")
    prints.append(TandemLoadStack.fingerprint_inputs(recipe=recipe))
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_trigger_words_are_read_again_when_the_text_beside_a_file_changes(host):
    words = []
    for text in ("NEON", "RAIN"):
        (host.folder / "style.txt").write_text(text)
        host.stack(rows='[{"lora": "style.safetensors"}]')
        words.append(host.triggers)
    assert words == ["NEON", "RAIN"]
