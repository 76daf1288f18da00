"""The node that loads a UMT5 text encoder of any size."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from .host.text_encoder import load_text_encoder


class TandemTextEncoderLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemTextEncoderLoader",
            display_name="Tandem Text Encoder Loader",
            category="Tandem/loaders",
            description="Loads a UMT5 text encoder of any size for Wan; its sizes and its tokenizer come from the "
            "file. The full umt5-xxl goes through ComfyUI's own loader.",
            search_aliases=["umt5", "load clip", "wan text encoder"],
            inputs=[
                io.Combo.Input(
                    "text_encoder",
                    options=folder_paths.get_filename_list("text_encoders"),
                    tooltip="A file in models/text_encoders, for example umt5_xxl_fp8_e4m3fn_scaled.safetensors.",
                ),
            ],
            outputs=[io.Clip.Output(display_name="clip")],
        )

    @classmethod
    def execute(cls, text_encoder: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("text_encoders", text_encoder)
        return io.NodeOutput(load_text_encoder(Path(path)))
