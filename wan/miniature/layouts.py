"""Names and shapes of the tensors in Wan's checkpoint files, at any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class TransformerSize:
    """A Wan transformer; 36 input and 16 output channels make an A14B image-to-video expert."""

    width: int = 128
    heads: int = 4
    layers: int = 4
    ffn_width: int = 256
    text_width: int = 64
    input_channels: int = 36
    output_channels: int = 16


@dataclass(frozen=True, kw_only=True)
class TextEncoderSize:
    """A UMT5 encoder; `width` is the transformer's `text_width`."""

    width: int = 64
    heads: int = 4
    layers: int = 2
    ffn_width: int = 128
    vocabulary: int = 320
    tokens: int = 32


def transformer_layout(size: TransformerSize) -> Shapes:
    """Keys as in Wan-Video/Wan2.2, wan/modules/model.py."""
    d = size.width
    shapes: Shapes = {
        "patch_embedding.weight": (d, size.input_channels, 1, 2, 2),
        "patch_embedding.bias": (d,),
        "head.modulation": (1, 2, d),
        **_linear("text_embedding.0", size.text_width, d),
        **_linear("text_embedding.2", d, d),
        **_linear("time_embedding.0", 256, d),
        **_linear("time_embedding.2", d, d),
        **_linear("time_projection.1", d, 6 * d),
        **_linear("head.head", d, 4 * size.output_channels),
    }
    for index in range(size.layers):
        block = f"blocks.{index}."
        for attention in ("self_attn", "cross_attn"):
            for name in "qkvo":
                shapes |= _linear(f"{block}{attention}.{name}", d, d)
            shapes |= {f"{block}{attention}.norm_{name}.weight": (d,) for name in "qk"}
        shapes |= _linear(f"{block}ffn.0", d, size.ffn_width) | _linear(
            f"{block}ffn.2", size.ffn_width, d
        )
        shapes |= {
            f"{block}norm3.weight": (d,),
            f"{block}norm3.bias": (d,),
            f"{block}modulation": (1, 6, d),
        }
    return shapes


def text_encoder_layout(size: TextEncoderSize) -> Shapes:
    """Keys as in transformers' UMT5EncoderModel; every layer has its own relative bias."""
    d = size.width
    shapes: Shapes = {
        "shared.weight": (size.vocabulary, d),
        "encoder.final_layer_norm.weight": (d,),
    }
    for index in range(size.layers):
        block = f"encoder.block.{index}.layer."
        shapes |= {f"{block}0.SelfAttention.{name}.weight": (d, d) for name in "qkvo"}
        shapes[f"{block}0.SelfAttention.relative_attention_bias.weight"] = (32, size.heads)
        shapes |= {f"{block}1.DenseReluDense.wi_{n}.weight": (size.ffn_width, d) for n in (0, 1)}
        shapes[f"{block}1.DenseReluDense.wo.weight"] = (d, size.ffn_width)
        shapes |= {f"{block}{n}.layer_norm.weight": (d,) for n in (0, 1)}
    return shapes


def vae_layout(width: int = 8, latent_channels: int = 16) -> Shapes:
    """Keys of Wan 2.1's VAE (wan/modules/vae2_1.py): widths 1, 2, 4, 4 times `width`."""
    wide, z = 4 * width, latent_channels
    return {
        **_conv("encoder.conv1", 3, width, 3, 3, 3),
        **dict(_encoder_levels(width)),
        **_middle("encoder.middle", wide),
        "encoder.head.0.gamma": (wide, 1, 1, 1),
        **_conv("encoder.head.2", wide, 2 * z, 3, 3, 3),
        **_conv("conv1", 2 * z, 2 * z, 1, 1, 1),
        **_conv("conv2", z, z, 1, 1, 1),
        **_conv("decoder.conv1", z, wide, 3, 3, 3),
        **_middle("decoder.middle", wide),
        **dict(_decoder_levels(width)),
        "decoder.head.0.gamma": (width, 1, 1, 1),
        **_conv("decoder.head.2", width, 3, 3, 3, 3),
    }


def _encoder_levels(width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    widths, index = (width, 2 * width, 4 * width, 4 * width), 0
    previous = width
    for level, current in enumerate(widths):
        for _ in range(2):
            yield from _residual(f"encoder.downsamples.{index}", previous, current).items()
            previous, index = current, index + 1
        if level < 3:
            name = f"encoder.downsamples.{index}"
            yield from _conv(f"{name}.resample.1", current, current, 3, 3).items()
            if level > 0:
                yield from _conv(f"{name}.time_conv", current, current, 3, 1, 1).items()
            index += 1


def _decoder_levels(width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    # Each upsampling halves the channels, so the next level starts from half its predecessor's width.
    widths, index = (4 * width, 4 * width, 2 * width, width), 0
    previous = 4 * width
    for level, current in enumerate(widths):
        for _ in range(3):
            yield from _residual(f"decoder.upsamples.{index}", previous, current).items()
            previous, index = current, index + 1
        if level < 3:
            name = f"decoder.upsamples.{index}"
            yield from _conv(f"{name}.resample.1", current, current // 2, 3, 3).items()
            if level < 2:
                yield from _conv(f"{name}.time_conv", current, 2 * current, 3, 1, 1).items()
            previous, index = current // 2, index + 1


def _residual(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = {
        f"{name}.residual.0.gamma": (inputs, 1, 1, 1),
        **_conv(f"{name}.residual.2", inputs, outputs, 3, 3, 3),
        f"{name}.residual.3.gamma": (outputs, 1, 1, 1),
        **_conv(f"{name}.residual.6", outputs, outputs, 3, 3, 3),
    }
    return (
        shapes
        if inputs == outputs
        else shapes | _conv(f"{name}.shortcut", inputs, outputs, 1, 1, 1)
    )


def _middle(name: str, width: int) -> Shapes:
    return {
        **_residual(f"{name}.0", width, width),
        f"{name}.1.norm.gamma": (width, 1, 1),
        **_conv(f"{name}.1.to_qkv", width, 3 * width, 1, 1),
        **_conv(f"{name}.1.proj", width, width, 1, 1),
        **_residual(f"{name}.2", width, width),
    }


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _conv(name: str, inputs: int, outputs: int, *kernel: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}
