"""The sizes of Wan's networks, as far as time and memory of training follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ...wan.expert import LinearShape
from ...wan.miniature.layouts import TransformerSize, transformer_layout
from ...wan.shapes import FRAMES_PER_CELL, PIXELS_PER_CELL, ClipSize

TEXT_TOKENS = 512
"""Of a caption: umt5's output is padded to it (wan/configs of Wan-Video/Wan2.2, `text_len`)."""
IMAGE_TOKENS, IMAGE_WIDTH = 257, 1280
"""Features of the first frame that Wan 2.1's image-to-video models take."""
PATCH = 4
"""Cells of a latent in a token: 2 x 2, of one frame (wan/modules/model.py, patch_size)."""
# The 5B model's VAE has cells of 16 x 16 pixels and 48 channels, all others 8 x 8 and 16.
CELLS: Mapping[int, int] = {16: PIXELS_PER_CELL, 48: 2 * PIXELS_PER_CELL}
BFLOAT16, FP8 = 2.0, 1.0
"""Bytes of a weight."""


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """One network. `layers` are all of its linear layers by name."""

    name: str
    layers: Mapping[str, LinearShape]
    num_params: int
    weight_bytes: float
    """All of its weights, as they lie in memory."""
    compute_bytes: int = 2
    """Of a number in the forward pass."""
    input_channels: int = 36
    latent_channels: int = 16
    text_tokens: int = TEXT_TOKENS

    @property
    def width(self) -> int:
        """Of a token."""
        return self.layers["blocks.0.self_attn.q"].outputs

    @property
    def ffn_width(self) -> int:
        return self.layers["blocks.0.ffn.0"].outputs

    @property
    def num_blocks(self) -> int:
        return sum(name.endswith(".self_attn.q") for name in self.layers)

    @property
    def image_tokens(self) -> int:
        """Tokens of the first frame's features; 0 where the network takes none."""
        return IMAGE_TOKENS if "blocks.0.cross_attn.k_img" in self.layers else 0

    def tokens(self, clip: ClipSize) -> int:
        """Tokens of a clip: a token is 2 x 2 cells of one latent frame."""
        cell = CELLS.get(self.latent_channels, PIXELS_PER_CELL)
        height, width = (-(-side // (2 * cell)) for side in (clip.height, clip.width))
        return ((clip.frames - 1) // FRAMES_PER_CELL + 1) * height * width

    def layer_tokens(self, layer: str, tokens: int) -> int:
        """How many tokens go through a linear layer for one sample of `tokens` tokens."""
        if layer.startswith("time_"):
            return 1
        if layer.startswith("img_emb") or layer.endswith(("cross_attn.k_img", "cross_attn.v_img")):
            return self.image_tokens
        if layer.startswith("text_embedding") or layer.endswith(("cross_attn.k", "cross_attn.v")):
            return self.text_tokens
        return tokens


def wan_size(
    name: str, size: TransformerSize, *, bytes_per_weight: float = BFLOAT16
) -> NetworkSize:
    """A plain Wan network (2.2, or text-to-video of 2.1) of this size."""
    shapes = transformer_layout(size)
    num_params = sum(prod(shape) for shape in shapes.values())
    return NetworkSize(
        name=name,
        layers={
            key.removesuffix(".weight"): LinearShape(shape[1], shape[0])
            for key, shape in shapes.items()
            if key.endswith(".weight") and len(shape) == 2
        },
        num_params=num_params,
        weight_bytes=num_params * bytes_per_weight,
        input_channels=size.input_channels,
        latent_channels=size.output_channels,
    )


# wan/configs of Wan-Video/Wan2.2, wan_i2v_A14B.py.
_A14B = TransformerSize(width=5120, heads=40, layers=40, ffn_width=13824, text_width=4096)
WAN_14B = wan_size("Wan 14B in bf16", _A14B)
WAN_14B_FP8 = wan_size("Wan 14B in fp8", _A14B, bytes_per_weight=FP8)
