"""A UMT5 text encoder of any size as the host's CLIP."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import comfy.utils
import folder_paths
from comfy.text_encoders import wan as host_wan
from safetensors import safe_open

from ...wan.lora.files import read_metadata
from ...wan.text_encoder import TEXT_TOKENS, TextEncoderShape, text_encoder_shape

# umt5-xxl, the size that the host knows by itself (comfy/text_encoders/umt5_config_xxl.json).
XXL_LAYERS, XXL_FFN = 24, 10240


def load_text_encoder(path: Path) -> comfy.sd.CLIP:
    """The full umt5-xxl through the host's own loader; any other size with the sizes of its own tensors."""
    shape = _shape(path)
    if (shape.config["num_layers"], shape.config["d_ff"], shape.tokens) == (
        XXL_LAYERS,
        XXL_FFN,
        TEXT_TOKENS,
    ):
        return comfy.sd.load_clip(
            [str(path)],
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
            clip_type=comfy.sd.CLIPType.WAN,
        )
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    return comfy.sd.CLIP(
        _Target(host_wan.te(dtype_t5=tensors["encoder.final_layer_norm.weight"].dtype)),
        tokenizer_data={
            "spiece_model": tensors["spiece_model"],
            "umt5xxl_min_length": shape.tokens,
        },
        parameters=comfy.utils.calculate_parameters(tensors),
        state_dict=[tensors],
        model_options={"umt5xxl_model_config": shape.config},
    )


def _shape(path: Path) -> TextEncoderShape:
    metadata = read_metadata(path, "text encoder")
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    return text_encoder_shape(shapes, metadata, path.name)


class _Target:
    """What the host's CLIP class wants to know about its network and tokenizer."""

    def __init__(self, clip: type) -> None:
        self.clip = clip
        self.tokenizer = host_wan.WanT5Tokenizer
        self.params: dict[str, object] = {}
