"""An expert with the layers of Wan 14B, LoRAs of the usual rank for it, and the ways to put them on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ..wan.lora.adapters import DEFAULT_TARGETS, pick_layers
from ..wan.lora.files import write_safetensors
from ..wan.miniature.layouts import Shapes, TransformerSize, transformer_layout
from ..wan.miniature.random_family import random_tensors

RANK = 32
DTYPE = torch.bfloat16
TARGETS = (*DEFAULT_TARGETS, r"blocks\.\d+\.cross_attn\.(k|v)_img")
BIG = TransformerSize(width=5120, heads=40, layers=40, ffn_width=13824, text_width=4096)
"""The transformer of Wan 14B."""


class Scale(NamedTuple):
    """An expert that fits into this machine."""

    words: str
    size: TransformerSize
    latent: tuple[int, int, int]
    """Frames, height and width; a token is 2 x 2 of them."""

    @property
    def tokens(self) -> int:
        frames, height, width = self.latent
        return frames * height * width // 4


def linear_shapes(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of the layers that LoRAs change, by name."""
    layers = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]
    return {name: shapes[f"{name}.weight"] for name in pick_layers(layers, TARGETS)}


def image_to_video_layout() -> Shapes:
    """Every parameter of Wan 2.1's image-to-video model of 14B: 12 linear layers in each of 40 blocks."""
    shapes = transformer_layout(BIG)
    d = BIG.width
    for index in range(BIG.layers):
        attention = f"blocks.{index}.cross_attn."
        for name in ("k_img", "v_img"):
            shapes |= {f"{attention}{name}.weight": (d, d), f"{attention}{name}.bias": (d,)}
        shapes[f"{attention}norm_k_img.weight"] = (d,)
    return shapes


def write_lora(path: Path, layers: dict[str, tuple[int, int]], rank: int, seed: int = 0) -> None:
    """A LoRA on every one of `layers` in the most common spelling, bf16; about 2 % of weights of 1 / sqrt(inputs)."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in layers.items():
        down = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        up = torch.randn(outputs, rank, generator=generator) * 0.02 / rank**0.5
        tensors[f"diffusion_model.{name}.lora_A.weight"] = down.to(DTYPE)
        tensors[f"diffusion_model.{name}.lora_B.weight"] = up.to(DTYPE)
        tensors[f"diffusion_model.{name}.alpha"] = torch.tensor(float(rank))
    write_safetensors(path, tensors, {})


class Rig:
    """One MODEL and `count` LoRA files for it. Needs `import_comfy` first."""

    def __init__(self, scale: Scale, folder: Path, count: int) -> None:
        import folder_paths

        self.scale = scale
        shapes = transformer_layout(scale.size)
        self._file = folder / "expert.safetensors"
        _write_expert(self._file, shapes, scale.size)
        self.hold(torch.float32)
        self.layers = linear_shapes(shapes)
        folder_paths.add_model_folder_path("loras", str(folder), is_default=True)
        self.names = [f"lora_{scale.size.width}_{number}.safetensors" for number in range(count)]
        for seed, name in enumerate(self.names):
            write_lora(folder / name, self.layers, RANK, seed)

    def hold(self, dtype: torch.dtype) -> None:
        """Loads the model with weights of this precision: the host's choice is float32 on a CPU, bf16 on a GPU."""
        import comfy.sd
        import comfy.utils

        comfy.utils.DISABLE_MMAP = True
        self.model = comfy.sd.load_diffusion_model(str(self._file), model_options={"dtype": dtype})
        # LoRAs are mapped, as the host does unless told otherwise, and as our reader does.
        comfy.utils.DISABLE_MMAP = False
        held = self.model.model.diffusion_model.blocks[0].ffn[0].weight.dtype
        assert held == dtype, f"held as {held}"

    def fresh(self) -> object:
        """A clone that carries nothing, loaded: nothing of an earlier one is in the network."""
        clone = self.model.clone()
        self.load(clone)
        return clone

    def load(self, model: object) -> None:
        """Until it is ready to sample."""
        from comfy.model_management import load_models_gpu

        load_models_gpu([model])

    def ours(self, names: Sequence[str], model: object, mode: str = "inject") -> object:
        """A clone that carries the files, by the function behind our node; its report is made too."""
        from ..nodes.host.stack import apply_stack
        from ..wan.lora.stack import LoraStack, Row

        stack = LoraStack(tuple(Row(lora=name) for name in names))
        patched, report = apply_stack(stack, {"single": model}, "error", mode)
        assert report.matched == len(names) * len(self.layers)
        return patched["single"]

    def core(self, names: Sequence[str], model: object) -> object:
        """The same with core's loaders in a row, each a new node, that has no file in memory."""
        from nodes import LoraLoaderModelOnly

        for name in names:
            (model,) = LoraLoaderModelOnly().load_lora_model_only(model, name, 1.0)
        return model

    def bypass(self, name: str, model: object) -> object:
        """One file by core's bypass loader; of several in a row only the last one stays on the MODEL."""
        from comfy_extras.nodes_lora_debug import LoraLoaderBypassModelOnly

        return LoraLoaderBypassModelOnly().load_lora_model_only(model, name, 1.0)[0]

    def step(self, model: object) -> torch.Tensor:
        """One prediction of a loaded MODEL."""
        generator = torch.Generator().manual_seed(0)
        frames, height, width = self.scale.latent

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        return model.model.apply_model(
            noise(1, 16, frames, height, width),
            torch.tensor([0.95]),
            c_concat=noise(1, 20, frames, height, width),
            c_crossattn=noise(1, 16, self.scale.size.text_width),
            transformer_options={},
        )


def _write_expert(path: Path, shapes: Shapes, size: TransformerSize) -> None:
    weights = random_tensors(shapes, torch.Generator().manual_seed(0))
    config = {"transformer": {"num_heads": size.heads, "text_dim": size.text_width}}
    metadata = {"config": json.dumps(config)}
    write_safetensors(path, {name: w.to(DTYPE) for name, w in weights.items()}, metadata)
