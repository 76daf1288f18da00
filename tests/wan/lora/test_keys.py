"""One LoRA in every spelling means the same on a network with Wan's real names."""

from collections.abc import Callable

import pytest
import torch
from tandem_wan.wan.lora.adapters import AdapterSet, LoraAdapter
from tandem_wan.wan.lora.files import adapter_tensors
from tandem_wan.wan.lora.header import header_of
from tandem_wan.wan.lora.keys import match_header, match_lora
from tandem_wan.wan.lora.names import NetworkNames
from tandem_wan.wan.lora.updates import UpdateSet
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout

RANK = 4
WAN = transformer_layout(TransformerSize(width=16, ffn_width=24, text_width=8, layers=12))
LAYERS = [
    name.removesuffix(".weight")
    for name, shape in WAN.items()
    if name.endswith(".weight") and len(shape) == 2
]
# Each Wan name under the one that diffusers gives it, inside a block and outside.
DIFFUSERS_BLOCK = {
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "self_attn.norm_q": "attn1.norm_q",
    "self_attn.norm_k": "attn1.norm_k",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "cross_attn.norm_q": "attn2.norm_q",
    "cross_attn.norm_k": "attn2.norm_k",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "norm3": "norm2",
    "modulation": "scale_shift_table",
}
DIFFUSERS_OUTER = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}


def as_diffusers(name: str) -> str:
    if not name.startswith("blocks."):
        return DIFFUSERS_OUTER[name]
    _, block, rest = name.split(".", 2)
    return f"blocks.{block}.{DIFFUSERS_BLOCK[rest]}"


def flat(name: str) -> str:
    return name.replace(".", "_")


def leaking(name: str) -> str:
    return name.replace("self_attn", "_orig_mod.self_attn")


AB = (".lora_A.weight", ".lora_B.weight", ".alpha")
DEFAULT = (".lora_A.default.weight", ".lora_B.default.weight", ".alpha")
OTHER_ADAPTER = (".lora_A.motion.weight", ".lora_B.motion.weight", ".alpha")
DOWN_UP = (".lora_down.weight", ".lora_up.weight", ".alpha")
DOTTED = (".lora.down.weight", ".lora.up.weight", ".alpha")
BARE_AB = (".lora_A", ".lora_B", ".alpha")
Spelling = tuple[Callable[[str], str], tuple[str, str, str], str]


def after(prefix: str, rename: Callable[[str], str] = str) -> Callable[[str], str]:
    return lambda layer: prefix + rename(layer)


def flat_diffusers(name: str) -> str:
    return flat(as_diffusers(name))


SPELLINGS: dict[str, Spelling] = {
    "native": (after("diffusion_model."), AB, "diffusion_model.*"),
    "native, down and up": (after("diffusion_model."), DOWN_UP, "diffusion_model.*"),
    "musubi, kohya": (after("lora_unet_", flat), DOWN_UP, "lora_unet_*"),
    "VideoX-Fun": (after("lora_unet__", flat), DOWN_UP, "lora_unet__*"),
    "DiffSynth": (after(""), DEFAULT, "bare names"),
    "DiffSynth with pipe": (after("pipe.dit."), DEFAULT, "pipe.dit.*"),
    "bare": (after(""), AB, "bare names"),
    "PEFT": (after("base_model.model."), AB, "base_model.model.*"),
    "PEFT, raw": (after("base_model.model."), DEFAULT, "base_model.model.*"),
    "PEFT, another adapter": (after("base_model.model."), OTHER_ADAPTER, "base_model.model.*"),
    "compiled": (after("diffusion_model._orig_mod."), AB, "diffusion_model._orig_mod.*"),
    "compiled inside": (after("diffusion_model.", leaking), AB, "diffusion_model.*"),
    "kohya, compiled": (after("lora_unet__orig_mod_", flat), DOWN_UP, "lora_unet_*"),
    "diffusers": (after("transformer.", as_diffusers), AB, "transformer.*, diffusers names"),
    "diffusers, old": (
        after("transformer.", as_diffusers),
        DOTTED,
        "transformer.*, diffusers names",
    ),
    "diffusers, low": (
        after("transformer_2.", as_diffusers),
        AB,
        "transformer_2.*, diffusers names",
    ),
    "diffusers, bare": (after("", as_diffusers), AB, "bare names, diffusers names"),
    "PEFT on diffusers": (
        after("base_model.model.", as_diffusers),
        AB,
        "base_model.model.*, diffusers names",
    ),
    "ai-toolkit, high": (
        after("diffusion_model.transformer_1."),
        AB,
        "diffusion_model.transformer_1.*",
    ),
    "ai-toolkit, low": (
        after("diffusion_model.transformer_2."),
        AB,
        "diffusion_model.transformer_2.*",
    ),
    "SimpleTuner for ComfyUI": (
        after("diffusion_model.", as_diffusers),
        AB,
        "diffusion_model.*, diffusers names",
    ),
    "SimpleTuner LyCORIS": (
        after("lycoris_", flat_diffusers),
        DOWN_UP,
        "lycoris_*, diffusers names",
    ),
    "LyCORIS": (after("lycoris_", flat), DOWN_UP, "lycoris_*"),
    "OneTrainer": (
        after("lora_transformer_", flat_diffusers),
        DOWN_UP,
        "lora_transformer_*, diffusers names",
    ),
    "kohya on diffusers": (
        after("lora_unet_", flat_diffusers),
        DOWN_UP,
        "lora_unet_*, diffusers names",
    ),
    "whole checkpoint": (after("model.diffusion_model."), AB, "model.diffusion_model.*"),
    "without .weight": (after("diffusion_model."), BARE_AB, "diffusion_model.*"),
}


def lora(alpha: float = 2.0) -> AdapterSet:
    generator = torch.Generator().manual_seed(0)

    def adapter(layer: str) -> LoraAdapter:
        outputs, inputs = WAN[f"{layer}.weight"]
        down = torch.randn(RANK, inputs, generator=generator)
        return LoraAdapter(down, torch.randn(outputs, RANK, generator=generator), alpha)

    return AdapterSet({layer: adapter(layer) for layer in LAYERS})


def spelled(name: str, with_alpha: bool = True) -> dict[str, torch.Tensor]:
    rename, (down, up, alpha), _ = SPELLINGS[name]
    tensors = {}
    for layer, adapter in lora().items():
        tensors[rename(layer) + down] = adapter.down.detach()
        tensors[rename(layer) + up] = adapter.up.detach()
        if with_alpha:
            tensors[rename(layer) + alpha] = torch.tensor(adapter.alpha)
    return tensors


def assert_same(updates: UpdateSet, expected: AdapterSet) -> None:
    assert updates.keys() == {f"{layer}.weight" for layer in expected}
    for layer, adapter in expected.items():
        found = updates[f"{layer}.weight"]
        weight = torch.empty(WAN[f"{layer}.weight"])
        assert torch.equal(found.delta(weight), adapter.delta(weight))
        assert (found.rank, found.alpha) == (adapter.rank, adapter.alpha)


@pytest.mark.parametrize("with_alpha", [True, False], ids=["alpha", "no alpha"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_lora(spelling, with_alpha):
    matched = match_lora(spelled(spelling, with_alpha), WAN)
    assert matched.leftovers == ()
    assert matched.num_modules == len(LAYERS)
    # A file without alpha means alpha = rank.
    assert_same(matched.updates, lora(2.0 if with_alpha else RANK))
    assert matched.layout == SPELLINGS[spelling][2]
    assert matched.kinds == ("LoRA",)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_header_alone_tells_the_same(spelling):
    tensors = spelled(spelling)
    by_header, by_tensors = match_header(header_of(tensors), WAN), match_lora(tensors, WAN)
    for name in ("changes", "num_modules", "leftovers", "layout", "ranks", "alphas", "kinds"):
        assert getattr(by_header, name) == getattr(by_tensors, name)
    assert by_header.ranks == (RANK,)
    assert by_header.alphas == (2.0,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_factors_are_kept_in_the_format_of_the_file(dtype):
    tensors = {key: tensor.to(dtype) for key, tensor in spelled("native").items()}
    matched = match_lora(tensors, WAN)
    assert len(matched.updates) == len(LAYERS)
    assert {factor.dtype for factor in matched.updates.parameters()} == {dtype}
    assert matched.alphas == (2.0,)


def test_our_own_files_are_read_back_as_they_were_written():
    assert_same(match_lora(adapter_tensors(lora()), WAN).updates, lora())


def test_both_attentions_of_diffusers_keep_apart():
    tensors = spelled("diffusers")
    only_self = {key: tensor for key, tensor in tensors.items() if ".attn1." in key}
    targets = match_lora(only_self, WAN).updates.keys()
    assert {target.split(".")[2] for target in targets} == {"self_attn"}


def test_every_name_of_the_network_has_one_in_diffusers_that_leads_back():
    names = NetworkNames(WAN)
    for parameter in WAN:
        layer = parameter.removesuffix(".weight").removesuffix(".bias")
        for name in (layer, as_diffusers(layer), flat(f"lora_unet_{as_diffusers(layer)}")):
            assert names.find(name).path == layer


def test_names_that_the_network_has_not_are_not_guessed():
    names = NetworkNames(WAN)
    for stem in (
        "blocks.12.self_attn.q",
        "self_attn.q",
        "blocks.0.self_attn",
        "lora_unet_blocks_0_ffn",
    ):
        assert names.find(stem).path is None


@pytest.mark.parametrize(
    ("keys", "layout"),
    [(["x.weight"], "no LoRA keys"), ([], "no LoRA keys"), (["y.alpha"], "bare names")],
)
def test_the_spelling_is_named_for_the_report(keys, layout):
    assert match_lora({key: torch.ones(1) for key in keys}, WAN).layout == layout


def test_the_matched_factors_are_copies_and_frozen():
    tensors = spelled("native")
    updates = match_lora(tensors, WAN).updates
    for tensor in tensors.values():
        tensor.zero_()
    assert all(factor.any() and not factor.requires_grad for factor in updates.parameters())
