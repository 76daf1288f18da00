"""LoRA files that PEFT, diffusers and LyCORIS write themselves, of factors that are given to them.

None of the networks here is ever run: the libraries look at names, shapes and, for DoRA, at weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

# diffusers: scripts/convert_wan_to_diffusers.py.
DIFFUSERS_NAMES = (
    ("self_attn", "attn1"),
    ("cross_attn", "attn2"),
    (r"\.o$", ".to_out.0"),
    (r"\.([qkv])$", r".to_\1"),
    (r"ffn\.0$", "ffn.net.0.proj"),
    (r"ffn\.2$", "ffn.net.2"),
)


class Factors(NamedTuple):
    """One layer's LoRA: alpha / rank times up @ down."""

    down: torch.Tensor
    """(rank, inputs)."""
    up: torch.Tensor
    """(outputs, rank)."""
    alpha: float

    @property
    def rank(self) -> int:
        return len(self.down)

    @property
    def delta(self) -> torch.Tensor:
        """(outputs, inputs)."""
        return self.alpha / self.rank * self.up @ self.down


Lora = Mapping[str, Factors]
"""By layer, under Wan's names."""
Weights = Mapping[str, torch.Tensor]
"""Of a checkpoint, by layer: (outputs, inputs), or a convolution's."""


def diffusers_name(layer: str) -> str:
    """diffusers' name of a layer inside a block."""
    for ours, theirs in DIFFUSERS_NAMES:
        layer = re.sub(ours, theirs, layer)
    return layer


def network_of(weights: Weights) -> nn.Module:
    """The layers in modules that are nested as their names say."""
    root = nn.Module()
    for name, weight in weights.items():
        *parents, own = name.split(".")
        owner = root
        for word in parents:
            if not hasattr(owner, word):
                owner.add_module(word, nn.Module())
            owner = owner.get_submodule(word)
        owner.add_module(own, _layer(weight))
    return root.requires_grad_(False)


def peft_model(lora: Lora, weights: Weights, **settings: Any) -> Any:
    """PEFT's model of the layers, with the LoRA's factors; `settings` are LoraConfig's."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(network_of(weights), _lora_config(LoraConfig, lora, **settings))
    for layer, factors in lora.items():
        _fill_peft(model.base_model.model.get_submodule(layer), factors)
    return model


def save_peft(folder: Path, model: Any) -> Path:
    """`save_pretrained`: adapter_model.safetensors, with adapter_config.json beside it."""
    model.save_pretrained(folder)
    return folder / "adapter_model.safetensors"


def peft_state(lora: Lora, weights: Weights, *, with_adapter_name: bool) -> dict[str, torch.Tensor]:
    """What trainers take from a network that PEFT put its layers in: with its own call, which leaves the adapter's
    name out, or from the network's state, as DiffSynth-Studio does."""
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    network = inject_adapter_in_model(_lora_config(LoraConfig, lora), network_of(weights))
    for layer, factors in lora.items():
        _fill_peft(network.get_submodule(layer), factors)
    if with_adapter_name:
        return {key: value for key, value in network.state_dict().items() if ".lora_" in key}
    return get_peft_model_state_dict(network)


def diffusers_transformer(lora: Lora, *, layers: int) -> Any:
    """A Wan transformer of diffusers in the miniature's size that carries the LoRA."""
    from diffusers import WanTransformer3DModel
    from peft import LoraConfig

    with torch.device("meta"):
        transformer = WanTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=32,
            in_channels=36,
            out_channels=16,
            text_dim=64,
            ffn_dim=256,
            num_layers=layers,
            rope_max_seq_len=32,
        )
    renamed = {diffusers_name(layer): factors for layer, factors in lora.items()}
    transformer.add_adapter(_lora_config(LoraConfig, renamed))
    for layer, factors in renamed.items():
        _fill_peft(transformer.get_submodule(layer), factors)
    return transformer


def save_diffusers(path: Path, transformer: Any) -> Path:
    """`WanPipeline.save_lora_weights`, by the mixin that the pipeline has it from."""
    from diffusers.loaders import WanLoraLoaderMixin
    from peft import get_peft_model_state_dict

    WanLoraLoaderMixin.save_lora_weights(
        path.parent,
        get_peft_model_state_dict(transformer),
        weight_name=path.name,
        transformer_lora_adapter_metadata=_plain(transformer.peft_config["default"]),
    )
    return path


def save_diffusers_parts(path: Path, transformers: Mapping[str, Any]) -> Path:
    """The same for `transformer_2`, or for both in one file: the public call knows `transformer` alone."""
    from diffusers.loaders import WanLoraLoaderMixin
    from peft import get_peft_model_state_dict

    WanLoraLoaderMixin._save_lora_weights(
        path.parent,
        {name: get_peft_model_state_dict(t) for name, t in transformers.items()},
        {name: _plain(t.peft_config["default"]) for name, t in transformers.items()},
        weight_name=path.name,
    )
    return path


def lycoris_network(
    network: nn.Module, algo: str, *, prefix: str = "lycoris", **settings: Any
) -> Any:
    """LyCORIS' layers for every layer of `network`, whose forward passes they take over."""
    from lycoris import create_lycoris

    with _prefix(prefix):
        made = create_lycoris(network, 1.0, algo=algo, **settings)
    made.apply_to()
    return made


def save_lycoris(path: Path, network: Any) -> Path:
    """Its own `save_weights`."""
    network.save_weights(str(path), torch.float32, {})
    return path


def _layer(weight: torch.Tensor) -> nn.Module:
    layer: nn.Module
    if weight.ndim == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=True)
    else:
        kernel = tuple(weight.shape[2:])
        layer = nn.Conv3d(weight.shape[1], weight.shape[0], kernel, kernel)
    layer.load_state_dict({"weight": weight.clone(), "bias": torch.zeros(len(weight))})
    return layer


def _lora_config(config: Any, lora: Lora, **settings: Any) -> Any:
    first = next(iter(lora.values()))
    return config(r=first.rank, lora_alpha=first.alpha, target_modules=list(lora), **settings)


def _fill_peft(layer: Any, factors: Factors) -> None:
    layer.lora_A["default"].weight = nn.Parameter(factors.down.clone())
    layer.lora_B["default"].weight = nn.Parameter(factors.up.clone())


def _plain(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict(), default=list))


@contextmanager
def _prefix(word: str) -> Iterator[None]:
    """The word before the names, a setting of the class."""
    from lycoris import LycorisNetwork

    before = LycorisNetwork.LORA_PREFIX
    LycorisNetwork.LORA_PREFIX = word
    try:
        yield
    finally:
        LycorisNetwork.LORA_PREFIX = before
