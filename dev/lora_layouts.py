"""One pair of LoRAs in every layout that Wan's trainers and tools write; by the real library where it can be had.

`built` layouts come from programs that are no libraries; their keys are put together here as those programs do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..wan.families import Role
from . import library_loras as library
from .library_loras import Factors, Lora, Weights, diffusers_name

RANK, ALPHA = 4, 2.0
# A product of small matrices is also a Kronecker product, when its factors repeat themselves in these proportions;
# they are powers of two, so that both say the same numbers.
COLUMN, ROW = torch.tensor([[1.0], [-0.5], [2.0], [0.5]]), torch.tensor([[1.0, 0.5, -1.0, -2.0]])
SMALL = COLUMN @ ROW

Tensors = dict[str, torch.Tensor]
Writer = Literal["built", "PEFT", "diffusers", "LyCORIS"]


class Expert(NamedTuple):
    """What is to be written for one expert."""

    role: Role
    lora: Lora
    weights: Weights
    """Of the layers, for DoRA's lengths."""


Write = Callable[[Path, Sequence[Expert]], Path]


class Layout(NamedTuple):
    """One way to write a LoRA."""

    name: str
    writer: Writer
    write: Write
    """write(path without suffix, the experts of this file): the file."""
    both: bool = False
    """Whether one file holds both experts."""
    deltas: Callable[[Expert], Tensors] | None = None
    """Changes by parameter, where they are more or other ones than those of the LoRA."""


def random_lora(seed: int, weights: Weights) -> dict[str, Factors]:
    """A LoRA for every layer, which is a Kronecker product as well."""
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for layer, (outputs, inputs) in ((name, weight.shape) for name, weight in weights.items()):
        left = torch.randn(outputs // 4, RANK, generator=generator) / 4
        right = torch.randn(RANK, inputs // 4, generator=generator) / inputs**0.5
        lora[layer] = Factors(torch.kron(ROW, right), torch.kron(COLUMN, left), ALPHA)
    return lora


def product(down: str, up: str, *, alpha: bool = True) -> Callable[[Factors], Tensors]:
    """Two factors under these names, and alpha or an `up` that it is multiplied into."""

    def tensors(factors: Factors) -> Tensors:
        if alpha:
            return {down: factors.down, up: factors.up, "alpha": torch.tensor(ALPHA)}
        return {down: factors.down, up: factors.up * (ALPHA / RANK)}

    return tensors


def kronecker(factors: Factors) -> Tensors:
    """As LyCORIS' LoKr: the small factor whole, the other one as a product."""
    outputs, inputs = len(factors.up) // 4, factors.down.shape[1] // 4
    return {
        "lokr_w1": SMALL,
        "lokr_w2_a": factors.up[:outputs],
        "lokr_w2_b": factors.down[:, :inputs],
        "alpha": torch.tensor(ALPHA),
    }


def hadamard(factors: Factors) -> Tensors:
    """As LyCORIS' LoHa: the product, divided by another one whose numbers differ by row and column."""
    rows = torch.linspace(0.5, 2.0, len(factors.up))[:, None]
    columns = torch.linspace(-2.0, -0.5, factors.down.shape[1])[None]
    return {
        "hada_w1_a": rows.expand(-1, RANK) / RANK,
        "hada_w1_b": columns.expand(RANK, -1),
        "hada_w2_a": factors.up / rows,
        "hada_w2_b": factors.down / columns,
        "alpha": torch.tensor(ALPHA),
    }


def whole_alpha(factors: Factors) -> Tensors:
    """As musubi-tuner's convert_lora.py: alpha as an integer."""
    return {**AB(factors), "alpha": torch.tensor(int(ALPHA))}


AB = product("lora_A.weight", "lora_B.weight")
AB_ONLY = product("lora_A.weight", "lora_B.weight", alpha=False)
NAMED_AB = product("lora_A.default.weight", "lora_B.default.weight", alpha=False)
DOWN_UP = product("lora_down.weight", "lora_up.weight")


def built(
    before: Iterable[str] | str,
    tensors: Callable[[Factors], Tensors] = AB,
    names: Callable[[str], str] = str,
) -> Write:
    """Writes each layer under one word and its name; dots become underscores behind a word that ends so."""
    words = (before,) if isinstance(before, str) else tuple(before)

    def write(path: Path, experts: Sequence[Expert]) -> Path:
        state = {}
        for word, expert in zip(words, experts, strict=True):
            for layer, factors in expert.lora.items():
                name = names(layer).replace(".", "_") if word.endswith("_") else names(layer)
                state |= {f"{word}{name}.{key}": value for key, value in tensors(factors).items()}
        return _saved(path, state)

    return write


def _saved(path: Path, state: Mapping[str, torch.Tensor]) -> Path:
    path = path.with_suffix(".safetensors")
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    return path


def more_differences(expert: Expert) -> Tensors:
    """Changes of everything in the blocks that is no weight of a linear layer, as LightX2V has them."""
    generator = torch.Generator().manual_seed(7)
    width = len(expert.weights["blocks.0.self_attn.q"])
    shapes = {f"{layer}.bias": weight.shape[:1] for layer, weight in expert.weights.items()}
    for block in sorted({layer[: len("blocks.0")] for layer in expert.weights}):
        norms = [f"{a}.norm_{n}.weight" for a in ("self_attn", "cross_attn") for n in "qk"]
        shapes |= {f"{block}.{name}": (width,) for name in (*norms, "norm3.weight", "norm3.bias")}
        shapes[f"{block}.modulation"] = (1, 6, width)
    return {name: torch.randn(shape, generator=generator) / 8 for name, shape in shapes.items()}


def _lightx2v(path: Path, experts: Sequence[Expert]) -> Path:
    (expert,) = experts
    state: Tensors = {}
    for layer, factors in expert.lora.items():
        state |= {f"diffusion_model.{layer}.{k}": v for k, v in DOWN_UP(factors).items()}
    for name, difference in more_differences(expert).items():
        stem = name.removesuffix(".weight").removesuffix(".bias")
        state[f"diffusion_model.{stem}.diff{'_b' * name.endswith('.bias')}"] = difference
    return _saved(path, state)


def magnitudes(weight: torch.Tensor, factors: Factors) -> torch.Tensor:
    """Lengths of the changed weight's rows, each made longer or shorter by up to a quarter."""
    lengths = (weight + factors.delta).norm(dim=1)
    return lengths * torch.linspace(0.75, 1.25, len(lengths))


def _written_out(expert: Expert) -> Tensors:
    """DoRA's change by its formula."""
    deltas = {}
    for layer, factors in expert.lora.items():
        weight = expert.weights[layer]
        moved = weight + factors.delta
        lengths = magnitudes(weight, factors) / moved.norm(dim=1)
        deltas[f"{layer}.weight"] = lengths[:, None] * moved - weight
    return deltas


def _flat_dora(path: Path, experts: Sequence[Expert]) -> Path:
    (expert,) = experts
    state = {}
    for layer, factors in expert.lora.items():
        tensors = DOWN_UP(factors) | {"dora_scale": magnitudes(expert.weights[layer], factors)}
        stem = f"lora_unet_{layer.replace('.', '_')}"
        state |= {f"{stem}.{key}": value for key, value in tensors.items()}
    return _saved(path, state)


def _peft(path: Path, experts: Sequence[Expert]) -> Path:
    (expert,) = experts
    return library.save_peft(path, library.peft_model(expert.lora, expert.weights))


def _peft_dora_model(expert: Expert) -> nn.Module:
    model = library.peft_model(expert.lora, expert.weights, use_dora=True)
    for layer, factors in expert.lora.items():
        held = model.base_model.model.get_submodule(layer).lora_magnitude_vector["default"]
        held.weight = nn.Parameter(magnitudes(expert.weights[layer], factors))
    return model


def _peft_dora(path: Path, experts: Sequence[Expert]) -> Path:
    (expert,) = experts
    return library.save_peft(path, _peft_dora_model(expert))


def _renamed_dora(path: Path, experts: Sequence[Expert]) -> Path:
    """PEFT's tensors under the native prefix with alpha among them, as trainers around PEFT write them."""
    state = load_file(_peft_dora(path, experts))
    renamed = {k.replace("base_model.model.", "diffusion_model."): v for k, v in state.items()}
    stems = {key.partition(".lora_")[0] for key in renamed}
    return _saved(path, renamed | {f"{stem}.alpha": torch.tensor(ALPHA) for stem in stems})


def _peft_dora_deltas(expert: Expert) -> Tensors:
    """What PEFT's own merge makes of the weights."""
    merged = _peft_dora_model(expert).merge_and_unload()
    return {
        f"{layer}.weight": merged.get_submodule(layer).weight - weight
        for layer, weight in expert.weights.items()
    }


def _peft_state(prefix: str, *, with_adapter_name: bool) -> Write:
    def write(path: Path, experts: Sequence[Expert]) -> Path:
        (expert,) = experts
        # These programs write no alpha at all: theirs is the rank.
        lora = {
            layer: factors._replace(up=factors.up * (ALPHA / RANK), alpha=float(RANK))
            for layer, factors in expert.lora.items()
        }
        state = library.peft_state(lora, expert.weights, with_adapter_name=with_adapter_name)
        return _saved(path, {f"{prefix}{key}": value for key, value in state.items()})

    return write


def _diffusers(path: Path, experts: Sequence[Expert]) -> Path:
    (expert,) = experts
    return library.save_diffusers(path.with_suffix(".safetensors"), _transformer(expert))


def _diffusers_parts(path: Path, experts: Sequence[Expert]) -> Path:
    """Each expert under its own word."""
    words = {"high_noise": "transformer", "low_noise": "transformer_2"}
    parts = {words[expert.role]: _transformer(expert) for expert in experts}
    return library.save_diffusers_parts(path.with_suffix(".safetensors"), parts)


def _diffusers_adapter(path: Path, experts: Sequence[Expert]) -> Path:
    (expert,) = experts
    _transformer(expert).save_lora_adapter(path.parent, weight_name=f"{path.name}.safetensors")
    return path.with_suffix(".safetensors")


def _transformer(expert: Expert) -> Any:
    blocks = {layer.split(".")[1] for layer in expert.weights}
    return library.diffusers_transformer(expert.lora, layers=len(blocks))


def _lycoris(
    algo: str, tensors: Callable[[Factors], Tensors], prefix: str, *, theirs: bool
) -> Write:
    """LyCORIS' network over layers under diffusers' names or Wan's own, with these factors."""

    def write(path: Path, experts: Sequence[Expert]) -> Path:
        (expert,) = experts
        names = diffusers_name if theirs else str
        network = library.network_of({names(k): v for k, v in expert.weights.items()})
        made = library.lycoris_network(
            network, algo, prefix=prefix, linear_dim=RANK, linear_alpha=ALPHA, factor=4
        )
        state = made.state_dict()
        for layer, factors in expert.lora.items():
            stem = f"{prefix}_{names(layer).replace('.', '_')}"
            state |= {f"{stem}.{key}": value for key, value in tensors(factors).items()}
        made.load_state_dict(state)
        return library.save_lycoris(path.with_suffix(".safetensors"), made)

    return write


TABLE = (
    Layout("diffusion_model, A and B", "built", built("diffusion_model.", AB_ONLY)),
    Layout("diffusion_model, A, B and alpha", "built", built("diffusion_model.")),
    Layout("diffusion_model, down, up and alpha", "built", built("diffusion_model.", DOWN_UP)),
    Layout("kohya and musubi", "built", built("lora_unet_", DOWN_UP)),
    Layout("VideoX-Fun", "built", built("lora_unet__", DOWN_UP)),
    Layout("LoKr, diffusion_model", "built", built("diffusion_model.", kronecker)),
    Layout("LoKr, lora_unet", "LyCORIS", _lycoris("lokr", kronecker, "lora_unet", theirs=False)),
    Layout("LoHa, diffusion_model", "built", built("diffusion_model.", hadamard)),
    Layout("LoHa, lora_unet", "LyCORIS", _lycoris("loha", hadamard, "lora_unet", theirs=False)),
    Layout("LightX2V with differences", "built", _lightx2v, deltas=more_differences),
    Layout("DiffSynth", "PEFT", _peft_state("", with_adapter_name=True)),
    Layout("DiffSynth with its prefix", "PEFT", _peft_state("pipe.dit.", with_adapter_name=True)),
    Layout("bare names", "PEFT", _peft_state("", with_adapter_name=False)),
    Layout("PEFT", "PEFT", _peft),
    Layout("diffusers", "diffusers", _diffusers),
    Layout("diffusers, both experts", "diffusers", _diffusers_parts, both=True),
    Layout(
        "ai-toolkit, both experts",
        "built",
        built(("diffusion_model.transformer_1.", "diffusion_model.transformer_2."), AB_ONLY),
        both=True,
    ),
    Layout("SimpleTuner for ComfyUI", "built", built("diffusion_model.", AB, diffusers_name)),
    Layout(
        "SimpleTuner with LyCORIS", "LyCORIS", _lycoris("lora", DOWN_UP, "lycoris", theirs=True)
    ),
    Layout("OneTrainer", "built", built("lora_transformer_", DOWN_UP, diffusers_name)),
    Layout("kohya on diffusers names", "built", built("lora_unet_", DOWN_UP, diffusers_name)),
    Layout("checkpoint prefix", "built", built("model.diffusion_model.")),
    Layout("PEFT DoRA", "PEFT", _peft_dora, deltas=_peft_dora_deltas),
    Layout("kohya DoRA", "built", _flat_dora, deltas=_written_out),
)
"""The layouts in which Wan LoRAs are published."""

FURTHER = (
    Layout("diffusers, each expert's word", "diffusers", _diffusers_parts),
    Layout("diffusers, one transformer", "diffusers", _diffusers_adapter),
    Layout("bare diffusers names", "built", built("", AB_ONLY, diffusers_name)),
    Layout("PEFT with the adapter's name", "built", built("base_model.model.", NAMED_AB)),
    Layout("musubi converted", "built", built("diffusion_model.", whole_alpha)),
    Layout("compiled network", "built", built("diffusion_model._orig_mod.")),
    Layout(
        "DiffSynth, both experts", "built", built(("pipe.dit.", "pipe.dit2."), NAMED_AB), both=True
    ),
    Layout("PEFT DoRA, diffusion_model", "PEFT", _renamed_dora, deltas=_peft_dora_deltas),
    Layout("LoKr, LyCORIS names", "LyCORIS", _lycoris("lokr", kronecker, "lycoris", theirs=True)),
)
"""Variants of them that are met."""
