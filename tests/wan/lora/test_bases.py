"""Which model a file was made for, from what trainers write and from the width of its layers."""

import json

import pytest
from tandem_wan.wan.lora.bases import (
    Base,
    base_in_words,
    base_of_file,
    base_of_network,
    judge_base,
)
from tandem_wan.wan.lora.header import LoraHeader, TensorInfo


def file(metadata: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> Base:
    infos = {key: TensorInfo("BF16", shape) for key, shape in shapes.items()}
    return base_of_file(LoraHeader(infos, metadata))


def network(width: int, channels: int, *more: str) -> dict[str, tuple[int, ...]]:
    shapes = {"patch_embedding.weight": (width, channels, 1, 2, 2)}
    return shapes | dict.fromkeys(("blocks.0.self_attn.q.weight", *more), (width, width))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("wan2.2_i2v_high_noise_14B_fp16.safetensors", ("2.2", "14B", "i2v")),
        ("wan_2.2_14b", ("2.2", "14B", "")),
        ("Wan2_2-I2V-A14B-HIGH_bf16", ("2.2", "14B", "i2v")),
        ("wan22_5b", ("2.2", "5B", "")),
        ("wan2.2_ti2v_5B_fp16", ("2.2", "5B", "ti2v")),
        ("wan2.1_t2v_1.3B", ("2.1", "1.3B", "t2v")),
        ("wan2.1_i2v_480p_14B_fp8_e4m3fn", ("2.1", "14B", "i2v")),
        ("wan 2.2 A14B", ("2.2", "14B", "")),
        ("wan", ("", "", "")),
        ("flux_1_dev", ("", "", "")),
        ("swan2_1_1.5b", ("2.1", "", "")),
    ],
)
def test_the_names_that_trainers_write_are_read(words, expected):
    assert base_in_words(words)[:3] == expected


def test_a_files_base_comes_from_its_metadata_and_says_which_entry():
    base = file({"ss_sd_model_name": "wan2.2_t2v_low_noise_14B.safetensors"}, {})
    assert base == Base("2.2", "14B", "t2v", 0, "ss_sd_model_name")
    plan = {"tandem": json.dumps({"plan": {"family": "wan 2.2 A14B"}})}
    assert file(plan, {}) == Base("2.2", "14B", "", 0, "plan")
    assert file({}, {}) == Base()


def test_an_architecture_that_is_written_for_every_wan_model_is_not_believed():
    metadata = {"modelspec.architecture": "wan2.1/lora", "ss_base_model_version": "wan"}
    assert file(metadata, {}).generation == ""
    assert file({"modelspec.architecture": "Wan2.2/lora"}, {}).generation == "2.2"


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", (32, 3072)),
        ("lora_unet_blocks_0_self_attn_q.lora_up.weight", (3072, 32)),
        ("transformer.blocks.0.attn1.to_q.lora_A.default.weight", (32, 3072)),
        ("lycoris_blocks_0_attn1_to_q.lora_down.weight", (32, 3072)),
        ("diffusion_model.blocks.0.self_attn.q.diff", (3072, 3072)),
    ],
)
def test_the_width_is_read_from_the_first_query_layer_in_any_spelling(key, shape):
    others = {"diffusion_model.blocks.0.ffn.0.lora_B.weight": (14336, 32)}
    base = file({}, others | {key: shape})
    assert (base.width, base.size, base.generation) == (3072, "5B", "2.2")


def test_the_width_of_the_tensors_goes_before_what_the_metadata_say_of_the_size():
    key = "diffusion_model.blocks.0.self_attn.q.lora_A.weight"
    base = file({"ss_base_model_version": "wan22_5b"}, {key: (32, 5120)})
    assert base.size == "14B"
    tiny = file({"ss_base_model_version": "wan_2.2_14b"}, {key: (32, 96)})
    assert tiny.words() == "Wan 2.2 (width 96)"


@pytest.mark.parametrize(
    ("shapes", "role", "expected"),
    [
        (network(5120, 36), "high_noise", ("2.2", "14B", "i2v")),
        (network(5120, 16), "low_noise", ("2.2", "14B", "t2v")),
        (network(5120, 36), "single", ("2.2", "14B", "i2v")),
        (
            network(5120, 36, "blocks.0.cross_attn.k_img.weight"),
            "single",
            ("2.1", "14B", "i2v"),
        ),
        (network(5120, 16), "single", ("", "14B", "t2v")),
        (network(3072, 48), "single", ("2.2", "5B", "ti2v")),
        (network(5120, 48), "single", ("", "14B", "")),
        (network(1536, 16), "single", ("2.1", "1.3B", "t2v")),
        (network(96, 36), "high_noise", ("2.2", "", "i2v")),
        ({}, "single", ("", "", "")),
    ],
)
def test_a_network_is_known_by_its_parameters_and_its_role(shapes, role, expected):
    assert base_of_network(shapes, role)[:3] == expected


def test_a_base_in_words_names_what_is_known():
    assert Base("2.2", "14B", "i2v", 5120).words() == "Wan 2.2 14B i2v (width 5120)"
    assert Base(width=96).words() == "a model of width 96"


@pytest.mark.parametrize(
    ("lora", "model", "fit"),
    [
        (Base("2.2", "14B", "i2v", 5120, "m"), Base("2.2", "14B", "i2v", 5120), "fits"),
        (Base("", "14B", "", 5120), Base("2.2", "14B", "i2v", 5120), "not known"),
        (Base(), Base(), "not known"),
        (Base("2.2", "5B", "i2v", 3072, "m"), Base("2.2", "5B", "ti2v", 3072), "fits"),
        (Base("2.1", "14B", "i2v", 5120, "m"), Base("2.2", "14B", "i2v", 5120), "other generation"),
        (Base("2.2", "14B", "", 5120, "m"), Base("2.1", "14B", "i2v", 5120), "other generation"),
        (Base("2.2", "14B", "t2v", 5120, "m"), Base("2.2", "14B", "i2v", 5120), "other task"),
        (Base("2.2", "5B", "", 3072), Base("2.2", "14B", "i2v", 5120), "other model"),
        (Base("", "", "", 64), Base("2.2", "", "i2v", 96), "other model"),
        (Base("2.2", "5B", "", 0, "m"), Base("2.2", "14B", "i2v", 5120), "other model"),
    ],
)
def test_a_file_fits_is_legal_or_belongs_to_another_model(lora, model, fit):
    judgement = judge_base(lora, model)
    assert judgement.fit == fit
    assert bool(judgement.remark) == (fit not in ("fits", "not known"))
    if fit == "other model":
        assert lora.words() in judgement.remark and model.words() in judgement.remark
