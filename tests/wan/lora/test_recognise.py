"""A file that holds no LoRA is refused with a word on what it is."""

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.files import read_lora, write_safetensors
from tandem_wan.wan.lora.recognise import lora_of
from tandem_wan.wan.miniature.layouts import (
    TextEncoderSize,
    TransformerSize,
    text_encoder_layout,
    transformer_layout,
    vae_layout,
)

WAN = list(transformer_layout(TransformerSize(layers=1)))
FILES = {
    "a whole Wan model": WAN,
    "a whole Wan model with diffusers' names": ["blocks.0.attn1.to_q.weight"],
    "a VAE": list(vae_layout()),
    "a text encoder": list(text_encoder_layout(TextEncoderSize())),
    "an image encoder": ["vision_model.encoder.layers.0.mlp.fc1.weight"],
    "a whole model of another kind": ["double_blocks.0.img_attn.qkv.weight"],
    "a model's own weights": ["layer.weight"],
}


@pytest.mark.parametrize(("looks", "keys"), FILES.items(), ids=FILES)
def test_a_file_without_a_lora_is_told_by_its_keys(tmp_path, looks, keys):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {key: torch.zeros(1) for key in keys}, {})
    with pytest.raises(
        UserError, match=f"x.safetensors holds no LoRA.*looks like {looks}\\."
    ) as caught:
        read_lora(path)
    assert caught.value.to_do.endswith(".")


@pytest.mark.parametrize("keys", [[], ["anything"], ["blocks.0.ffn.0.alpha"]])
def test_a_file_of_nothing_known_is_refused_without_a_guess(tmp_path, keys):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {key: torch.zeros(1) for key in keys}, {"who": "me"})
    with pytest.raises(UserError, match="holds no LoRA") as caught:
        read_lora(path)
    assert "looks like" not in str(caught.value)


KINDS = {
    "OFT": ["base_model.model.blocks.0.ffn.0.oft_R.weight"],
    "OFT or BOFT": ["lora_unet_blocks_0_ffn_0.oft_blocks", "lora_unet_blocks_0_ffn_0.alpha"],
    "BOFT": ["base_model.model.blocks.0.ffn.0.boft_R", "base_model.model.blocks.0.ffn.0.boft_s"],
    "T-LoRA": ["lycoris_blocks_0_ffn_0.q_layer.weight", "lycoris_blocks_0_ffn_0.lambda_layer"],
    "GLoRA": ["lycoris_blocks_0_ffn_0.a1.weight", "lycoris_blocks_0_ffn_0.b2.weight"],
    "IA3": ["lycoris_blocks_0_ffn_0.weight", "lycoris_blocks_0_ffn_0.on_input"],
    "VeRA": ["base_model.model.blocks.0.ffn.0.vera_lambda_b"],
}


@pytest.mark.parametrize(("kind", "keys"), KINDS.items(), ids=KINDS)
def test_a_kind_that_is_not_read_is_named_and_those_that_are(tmp_path, kind, keys):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {key: torch.zeros(1) for key in keys}, {})
    with pytest.raises(UserError, match=f"not read, {kind}, .* for example") as caught:
        read_lora(path)
    assert "looks like" not in str(caught.value)
    assert all(word in caught.value.can_be for word in ("LoRA", "DoRA", "LoHa", "LoKr", "diff"))


def test_one_key_of_a_lora_is_enough(tmp_path):
    path = tmp_path / "x.safetensors"
    keys = [*WAN, "blocks.0.ffn.0.lora_A.weight"]
    write_safetensors(path, {key: torch.zeros(1) for key in keys}, {})
    assert len(read_lora(path).tensors) == len(keys)


@pytest.mark.parametrize(
    ("key", "model"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", "Flux or HunyuanVideo"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "Flux or HunyuanVideo"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.alpha", "Stable Diffusion"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.alpha", "Stable Diffusion"),
        (
            "transformer.transformer_blocks.0.attn1.to_q.lora_A.weight",
            "LTX-Video, Qwen-Image or a similar model",
        ),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", "a text encoder"),
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", None),
        ("lora_transformer_blocks_0_attn1_to_q.lora_down.weight", None),
    ],
)
def test_a_lora_of_another_model_is_told_by_its_keys(key, model):
    assert lora_of([key]) == model
