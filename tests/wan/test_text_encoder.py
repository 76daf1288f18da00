"""A UMT5's size is read off its tensors, whatever they are called after."""

import json

import pytest
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.miniature.layouts import TextEncoderSize, text_encoder_layout
from tandem_wan.wan.text_encoder import METADATA_KEY, TEXT_TOKENS, text_encoder_shape

SIZES = {
    "umt5-xxl": TextEncoderSize(
        width=4096, heads=64, layers=24, ffn_width=10240, vocabulary=256384
    ),
    "small": TextEncoderSize(),
    "uneven": TextEncoderSize(width=96, heads=3, layers=5, ffn_width=40, vocabulary=77),
}


def shapes_of(size: TextEncoderSize) -> dict[str, tuple[int, ...]]:
    return text_encoder_layout(size) | {"spiece_model": (4_000_000,)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_the_size_that_was_laid_out_is_the_size_that_is_read(size):
    assert text_encoder_shape(shapes_of(size), {}, "x").config == {
        "d_model": size.width,
        "d_ff": size.ffn_width,
        "d_kv": size.width // size.heads,
        "num_heads": size.heads,
        "num_layers": size.layers,
        "vocab_size": size.vocabulary,
    }


def test_umt5_xxl_is_what_its_published_config_says():
    # google/umt5-xxl, config.json.
    config = text_encoder_shape(shapes_of(SIZES["umt5-xxl"]), {}, "x").config
    assert (config["d_kv"], config["num_heads"], config["d_ff"]) == (64, 64, 10240)


def test_a_prompt_has_512_tokens_unless_the_file_says_otherwise():
    shapes = shapes_of(TextEncoderSize())
    assert text_encoder_shape(shapes, {"format": "pt"}, "x").tokens == TEXT_TOKENS == 512
    metadata = {METADATA_KEY: json.dumps({"tokens": 32})}
    assert text_encoder_shape(shapes, metadata, "x").tokens == 32


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("shared.weight", "embedding"),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "relative bias"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "attention"),
        ("encoder.block.0.layer.1.DenseReluDense.wi_1.weight", "feed-forward"),
        ("spiece_model", "tokenizer"),
    ],
)
def test_what_a_file_lacks_is_named(key, what):
    shapes = shapes_of(TextEncoderSize())
    del shapes[key]
    with pytest.raises(UserError, match=rf"^clip_l\.safetensors has no {what}\."):
        text_encoder_shape(shapes, {}, "clip_l.safetensors")


def test_another_kind_of_file_lacks_everything():
    with pytest.raises(UserError, match="no embedding, no relative bias, no attention"):
        text_encoder_shape({"blocks.0.ffn.0.weight": (8, 8)}, {}, "wan.safetensors")
