"""Names, counts and shapes of Wan's own checkpoints, from the same rules that make small ones."""

import math

import pytest
from tandem_wan.wan.miniature.layouts import (
    TextEncoderSize,
    TransformerSize,
    text_encoder_layout,
    transformer_layout,
    vae_layout,
)

REAL = {"text_width": 4096, "output_channels": 16}
T2V_13B = TransformerSize(
    width=1536, heads=12, layers=30, ffn_width=8960, input_channels=16, **REAL
)
T2V_14B = TransformerSize(
    width=5120, heads=40, layers=40, ffn_width=13824, input_channels=16, **REAL
)


def num_parameters(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize(
    ("size", "tensors", "parameters"),
    [(T2V_13B, 825, 1_418_996_800), (T2V_14B, 1095, 14_288_491_584)],
    ids=["1.3B", "14B"],
)
def test_the_real_transformers_have_their_published_sizes(size, tensors, parameters):
    shapes = transformer_layout(size)
    assert len(shapes) == tensors
    assert num_parameters(shapes) == parameters


def test_the_image_expert_differs_in_its_20_further_input_channels_alone():
    image = transformer_layout(TransformerSize())
    text = transformer_layout(TransformerSize(input_channels=16))
    assert {name for name in image if image[name] != text[name]} == {"patch_embedding.weight"}
    assert image["patch_embedding.weight"] == (128, 36, 1, 2, 2)


def test_the_real_vae_has_its_published_size():
    shapes = vae_layout(96)
    assert len(shapes) == 194
    # Wan2.1_VAE.pth has 507.6 MB in float32.
    assert num_parameters(shapes) == 126_892_531


def test_the_vaes_norms_are_of_pictures_in_the_middle_attention_and_of_videos_elsewhere():
    axes = {name: len(s) for name, s in vae_layout(8).items() if name.endswith("gamma")}
    assert {name for name in axes if axes[name] == 3} == {
        "encoder.middle.1.norm.gamma",
        "decoder.middle.1.norm.gamma",
    }
    assert set(axes.values()) == {3, 4}
    assert all(set(vae_layout(8)[name][1:]) == {1} for name in axes)


def test_the_real_text_encoder_has_its_published_size():
    size = TextEncoderSize(width=4096, heads=64, layers=24, ffn_width=10240, vocabulary=256384)
    # models_t5_umt5-xxl-enc-bf16.pth has 11.36 GB.
    assert 2 * num_parameters(text_encoder_layout(size)) / 1e9 == pytest.approx(11.36, abs=0.01)
    bias = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    # relative_attention_num_buckets of google/umt5-xxl, config.json; UMT5 has them in every layer.
    assert all(text_encoder_layout(size)[bias.format(i)] == (32, 64) for i in range(24))


@pytest.mark.parametrize("width", [4, 8])
def test_the_vaes_convolutions_take_what_the_one_before_gives(width):
    shapes = vae_layout(width)
    for half in ("encoder.downsamples", "decoder.upsamples"):
        channels = shapes["encoder.conv1.weight" if "enc" in half else "decoder.conv1.weight"][0]
        for index in range(1 + max(int(k.split(".")[2]) for k in shapes if k.startswith(half))):
            block = f"{half}.{index}"
            if f"{block}.residual.2.weight" in shapes:
                outputs, inputs = shapes[f"{block}.residual.2.weight"][:2]
                assert shapes[f"{block}.residual.6.weight"][:2] == (outputs, outputs)
                assert (f"{block}.shortcut.weight" in shapes) == (inputs != outputs)
            else:
                outputs, inputs = shapes[f"{block}.resample.1.weight"][:2]
            assert inputs == channels, block
            channels = outputs


def test_the_vae_shrinks_space_three_times_and_time_twice():
    shapes = vae_layout(8)
    for half in ("encoder", "decoder"):
        assert sum(half in key and key.endswith("resample.1.weight") for key in shapes) == 3
        assert sum(half in key and key.endswith("time_conv.weight") for key in shapes) == 2
