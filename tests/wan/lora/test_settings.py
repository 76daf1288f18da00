"""Alpha of files that hold none: PEFT and diffusers say it elsewhere."""

import json
import math

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.files import lora_header, read_lora, write_safetensors
from tandem_wan.wan.lora.keys import match_header, match_lora
from tandem_wan.wan.lora.report import LoadReport, Placement, header_report, report_of_json
from tandem_wan.wan.lora.settings import CONFIG_NAME, METADATA_ENTRY, adapter_settings

RANK = 4
NETWORK = {"blocks.0.self_attn.q.weight": (8, 8), "blocks.0.ffn.0.weight": (12, 8)}
FACTORS = {"lora_A.weight": torch.ones(RANK, 8), "lora_B.weight": torch.ones(8, RANK)}


def tensors(stem: str) -> dict[str, torch.Tensor]:
    return {f"{stem}.{part}": tensor for part, tensor in FACTORS.items()}


def alpha_of(path) -> float | None:
    file = read_lora(path)
    matched = match_lora(file.tensors, NETWORK, file.header.settings)
    assert match_header(file.header, NETWORK).alphas == matched.alphas
    return next(iter(matched.updates.values())).alpha


def test_diffusers_keeps_the_alpha_of_each_component_in_the_metadata(tmp_path):
    path = tmp_path / "x.safetensors"
    entry = json.dumps(
        {"transformer.r": RANK, "transformer.lora_alpha": 10, "transformer_2.lora_alpha": 3}
    )
    for component, alpha in (("transformer", 10), ("transformer_2", 3)):
        found = tensors(f"{component}.blocks.0.attn1.to_q")
        write_safetensors(path, found, {METADATA_ENTRY: entry})
        assert alpha_of(path) == alpha


@pytest.mark.parametrize(
    ("config", "alpha"),
    [
        ({"lora_alpha": 10}, 10.0),
        ({"lora_alpha": 10, "use_rslora": True}, 10 * math.sqrt(RANK)),
        ({"lora_alpha": 10, "alpha_pattern": {"self_attn.q": 3}}, 3.0),
        ({"lora_alpha": 10, "alpha_pattern": {"attn.q": 3, "ffn.0": 3}}, 10.0),
        ({"lora_alpha": "much"}, RANK),
        ({"lora_alpha": 10**400}, RANK),
        ({}, RANK),
    ],
)
def test_peft_keeps_it_in_a_file_beside(tmp_path, config, alpha):
    path = tmp_path / "adapter_model.safetensors"
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    write_safetensors(path, tensors("base_model.model.blocks.0.self_attn.q"), {})
    assert alpha_of(path) == alpha


def test_a_file_of_another_name_has_no_part_in_it(tmp_path):
    (tmp_path / CONFIG_NAME).write_text(json.dumps({"lora_alpha": 10}))
    write_safetensors(tmp_path / "other.safetensors", tensors("blocks.0.self_attn.q"), {})
    assert alpha_of(tmp_path / "other.safetensors") == RANK


def test_an_alpha_in_the_file_wins(tmp_path):
    path = tmp_path / "x.safetensors"
    own = tensors("transformer.blocks.0.attn1.to_q") | {
        "transformer.blocks.0.attn1.to_q.alpha": torch.tensor(1.0)
    }
    write_safetensors(path, own, {METADATA_ENTRY: json.dumps({"transformer.lora_alpha": 10})})
    assert alpha_of(path) == 1.0


def test_a_whole_lokr_is_scaled_by_settings_alone(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    (tmp_path / CONFIG_NAME).write_text(json.dumps({"alpha": 10, "r": 4}))
    stem = "base_model.model.blocks.0.self_attn.q"
    w1, w2 = torch.randn(2, 4), torch.randn(4, 2)
    write_safetensors(path, {f"{stem}.lokr_w1": w1, f"{stem}.lokr_w2": w2}, {})
    file = read_lora(path)
    (update,) = match_lora(file.tensors, NETWORK, file.header.settings).updates.values()
    torch.testing.assert_close(update.delta(torch.empty(8, 8)), 10 / 4 * torch.kron(w1, w2))


@pytest.mark.parametrize("text", ["no JSON", "[1]", ""])
def test_settings_that_cannot_be_read_are_passed_over(text):
    assert adapter_settings({METADATA_ENTRY: text}).alpha("transformer.x", RANK) == RANK


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga"])
def test_factors_that_began_as_a_part_of_the_model_are_refused(tmp_path, start):
    path = tmp_path / "adapter_model.safetensors"
    (tmp_path / CONFIG_NAME).write_text(json.dumps({"lora_alpha": 10, "init_lora_weights": start}))
    write_safetensors(path, tensors("base_model.model.blocks.0.self_attn.q"), {})
    with pytest.raises(UserError, match=rf"weights were changed .*\({start}\)") as caught:
        read_lora(path)
    assert "path_initial_model_for_weight_conversion" in caught.value.to_do
    entry = json.dumps({"transformer.r": RANK, "transformer.init_lora_weights": start})
    path = tmp_path / "pytorch_lora_weights.safetensors"
    write_safetensors(path, tensors("transformer.blocks.0.attn1.to_q"), {METADATA_ENTRY: entry})
    with pytest.raises(UserError, match=start):
        read_lora(path)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal"])
def test_a_start_that_leaves_the_model_alone_is_read(tmp_path, start):
    path = tmp_path / "adapter_model.safetensors"
    (tmp_path / CONFIG_NAME).write_text(json.dumps({"lora_alpha": 10, "init_lora_weights": start}))
    write_safetensors(path, tensors("base_model.model.blocks.0.self_attn.q"), {})
    assert alpha_of(path) == 10


@pytest.mark.parametrize("name", ["alpha_pattern", "rank_pattern"])
def test_a_regular_expression_in_the_settings_is_told_and_never_run(tmp_path, name):
    path = tmp_path / "adapter_model.safetensors"
    evil = "(a+)+$"
    config = {"lora_alpha": 10, name: {"self_attn.k": 3, evil: 4}}
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    stem = "base_model.model.blocks.0.self_attn.q"
    write_safetensors(path, tensors(stem), {})
    assert alpha_of(path) == 10
    found = header_report(lora_header(path), NETWORK, Placement("x", "single", ""))
    assert found.expressions == (evil,) and "strength may differ" in found.text()
    stored = json.dumps(LoadReport((found,)).as_json())
    assert report_of_json(json.loads(stored)).files == (found,)
    write_safetensors(path, tensors(stem) | {f"{stem}.alpha": torch.tensor(2.0)}, {})
    found = header_report(lora_header(path), NETWORK, Placement("x", "single", ""))
    assert found.expressions == (), "the file itself says alpha"


def test_the_rank_of_a_whole_lokr_can_be_that_of_its_layer(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    settings = {"alpha": 10, "r": 4, "rank_pattern": {"self_attn.q": 2}}
    (tmp_path / CONFIG_NAME).write_text(json.dumps(settings))
    stem = "base_model.model.blocks.0.self_attn.q"
    w1, w2 = torch.randn(2, 4), torch.randn(4, 2)
    write_safetensors(path, {f"{stem}.lokr_w1": w1, f"{stem}.lokr_w2": w2}, {})
    file = read_lora(path)
    (update,) = match_lora(file.tensors, NETWORK, file.header.settings).updates.values()
    torch.testing.assert_close(update.delta(torch.empty(8, 8)), 10 / 2 * torch.kron(w1, w2))
