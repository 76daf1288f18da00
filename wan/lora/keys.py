"""From the keys of a LoRA file to the layers of a Wan network. The rules are data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from ..expert import LinearShape
from .adapters import AdapterSet, LoraAdapter

Part = Literal["down", "up", "alpha"]
Cause = Literal["no such layer", "half a pair", "shape", "layer named twice", "unknown kind of key"]

SUFFIXES: tuple[tuple[str, Part], ...] = (
    (".lora_A.default.weight", "down"),
    (".lora_B.default.weight", "up"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    (".alpha", "alpha"),
)
# Who writes which: trainers of the ComfyUI family, full checkpoints, PEFT, diffusers, DiffSynth, bare.
PREFIXES = (
    "model.diffusion_model.",
    "diffusion_model.",
    "base_model.model.",
    "transformer.",
    "pipe.dit.",
    "",
)
FLAT_PREFIXES = ("lora_unet__", "lora_unet_")
DIFFUSERS_NAMES = (
    ("attn1.to_out.0", "self_attn.o"),
    ("attn2.to_out.0", "cross_attn.o"),
    ("attn2.add_k_proj", "cross_attn.k_img"),
    ("attn2.add_v_proj", "cross_attn.v_img"),
    ("attn1.to_", "self_attn."),
    ("attn2.to_", "cross_attn."),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
)


class Leftover(NamedTuple):
    """A key of the file that does nothing on this network, and why."""

    key: str
    cause: Cause
    detail: str = ""


@dataclass(frozen=True)
class MatchedLora:
    """A file held against one network."""

    adapters: AdapterSet
    num_modules: int
    """Modules in the file, matched or not."""
    leftovers: tuple[Leftover, ...]
    layout: str
    """The spelling of the keys, for the report."""


def match_lora(
    tensors: Mapping[str, torch.Tensor], layers: Mapping[str, LinearShape]
) -> MatchedLora:
    """The adapters that `tensors` holds for `layers`; what does not fit is listed, never dropped in silence."""
    leftovers: list[Leftover] = []
    modules: dict[str, dict[Part, tuple[str, torch.Tensor]]] = {}
    for key, tensor in tensors.items():
        stem, part = _split(key)
        if part is None:
            leftovers.append(Leftover(key, "unknown kind of key"))
        elif part in modules.get(stem, {}):
            leftovers.append(Leftover(key, "layer named twice", f"{part} in two spellings"))
        else:
            modules.setdefault(stem, {})[part] = (key, tensor)

    names = _Names(layers)
    adapters = {}
    for stem, parts in modules.items():
        layer = names.layer(stem)
        problem = _problem(parts, layers.get(layer) if layer else None)
        if layer in adapters:
            problem = ("layer named twice", f"{layer} in two spellings")
        if problem:
            leftovers.extend(Leftover(key, *problem) for key, _ in parts.values())
        elif layer:
            adapters[layer] = _adapter(parts)
    return MatchedLora(AdapterSet(adapters), len(modules), tuple(leftovers), _layout(modules))


def _split(key: str) -> tuple[str, Part | None]:
    for suffix, part in SUFFIXES:
        if key.endswith(suffix):
            return key.removesuffix(suffix), part
    return key, None


class _Names:
    """Finds the layer that a file means, whatever spelling it uses."""

    def __init__(self, layers: Iterable[str]) -> None:
        self._layers = set(layers)
        self._flat = {layer.replace(".", "_"): layer for layer in self._layers}

    def layer(self, stem: str) -> str | None:
        for prefix in FLAT_PREFIXES:
            if stem.startswith(prefix):
                return self._flat.get(stem.removeprefix(prefix))
        for prefix in PREFIXES:
            if stem.startswith(prefix):
                name = stem.removeprefix(prefix)
                for theirs, ours in DIFFUSERS_NAMES:
                    name = name.replace(theirs, ours)
                if name in self._layers:
                    return name
        return None


def _problem(
    parts: Mapping[Part, tuple[str, torch.Tensor]], shape: LinearShape | None
) -> tuple[Cause, str] | None:
    if shape is None:
        return "no such layer", ""
    if "down" not in parts or "up" not in parts:
        return "half a pair", "lora_A and lora_B (down and up) come together"
    down, up = parts["down"][1], parts["up"][1]
    found = f"{tuple(down.shape)} and {tuple(up.shape)}"
    expected = f"(rank, {shape.inputs}) and ({shape.outputs}, rank)"
    fits = (
        down.ndim == up.ndim == 2
        and down.shape[0] == up.shape[1]
        and (down.shape[1], up.shape[0]) == (shape.inputs, shape.outputs)
    )
    return None if fits else ("shape", f"{found} in the file, {expected} in the model")


def _adapter(parts: Mapping[Part, tuple[str, torch.Tensor]]) -> LoraAdapter:
    down, up = parts["down"][1], parts["up"][1]
    alpha = parts["alpha"][1].item() if "alpha" in parts else down.shape[0]
    return LoraAdapter(down.detach().clone(), up.detach().clone(), alpha)


def _layout(stems: Iterable[str]) -> str:
    for stem in stems:
        for prefix in (*FLAT_PREFIXES, *PREFIXES):
            if prefix and stem.startswith(prefix):
                return f"{prefix}*"
        return "bare names"
    return "no LoRA keys"
