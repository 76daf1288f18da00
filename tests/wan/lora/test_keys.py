"""One LoRA in every spelling means the same; what does not fit is said with its cause."""

import pytest
import torch
from tandem_wan.wan.expert import LinearShape
from tandem_wan.wan.lora.adapters import AdapterSet, LoraAdapter
from tandem_wan.wan.lora.files import adapter_tensors
from tandem_wan.wan.lora.keys import FLAT_PREFIXES, PREFIXES, SUFFIXES, Leftover, match_lora

RANK, WIDTH, FFN = 4, 12, 20
LAYERS = {
    f"blocks.{block}.{attention}.{name}": LinearShape(WIDTH, WIDTH)
    for block in (0, 1, 10)
    for attention in ("self_attn", "cross_attn")
    for name in "qkvo"
}
for block in (0, 1, 10):
    LAYERS[f"blocks.{block}.ffn.0"] = LinearShape(WIDTH, FFN)
    LAYERS[f"blocks.{block}.ffn.2"] = LinearShape(FFN, WIDTH)

# Each Wan layer under the name that diffusers gives it.
DIFFUSERS = {
    **{f"self_attn.{name}": f"attn1.to_{name}" for name in "qkv"},
    **{f"cross_attn.{name}": f"attn2.to_{name}" for name in "qkv"},
    "self_attn.o": "attn1.to_out.0",
    "cross_attn.o": "attn2.to_out.0",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
DOWNS = [suffix for suffix, part in SUFFIXES if part == "down"]
UPS = [suffix for suffix, part in SUFFIXES if part == "up"]


def as_diffusers(layer: str) -> str:
    _, block, kind = layer.split(".", 2)
    return f"blocks.{block}.{DIFFUSERS[kind]}"


def lora(alpha: float = 2.0) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    generator = torch.Generator().manual_seed(0)
    return {
        layer: (
            torch.randn(RANK, shape.inputs, generator=generator),
            torch.randn(shape.outputs, RANK, generator=generator),
            alpha,
        )
        for layer, shape in LAYERS.items()
    }


def spelled(name, down: str, up: str, with_alpha: bool = True) -> dict[str, torch.Tensor]:
    """The LoRA's tensors under `name(layer)` and the given suffixes."""
    tensors = {}
    for layer, (a, b, alpha) in lora().items():
        tensors |= {name(layer) + down: a, name(layer) + up: b}
        if with_alpha:
            tensors[name(layer) + ".alpha"] = torch.tensor(alpha)
    return tensors


def assert_same_lora(tensors: dict[str, torch.Tensor], alpha: float) -> None:
    matched = match_lora(tensors, LAYERS)
    assert matched.leftovers == ()
    assert matched.num_modules == len(LAYERS)
    assert matched.adapters.keys() == LAYERS.keys()
    for layer, (a, b, _) in lora().items():
        adapter = matched.adapters[layer]
        assert torch.equal(adapter.down, a)
        assert torch.equal(adapter.up, b)
        assert adapter.alpha == alpha


@pytest.mark.parametrize("with_alpha", [True, False], ids=["alpha", "no alpha"])
@pytest.mark.parametrize(("down", "up"), zip(DOWNS, UPS, strict=True))
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_prefix_with_every_suffix_is_the_same_lora(prefix, down, up, with_alpha):
    tensors = spelled(lambda layer: prefix + layer, down, up, with_alpha)
    # A file without alpha means alpha = rank.
    assert_same_lora(tensors, 2.0 if with_alpha else RANK)


@pytest.mark.parametrize(("down", "up"), zip(DOWNS, UPS, strict=True))
@pytest.mark.parametrize("prefix", PREFIXES)
def test_diffusers_names_are_the_same_lora(prefix, down, up):
    assert_same_lora(spelled(lambda layer: prefix + as_diffusers(layer), down, up), 2.0)


@pytest.mark.parametrize(("down", "up"), zip(DOWNS, UPS, strict=True))
@pytest.mark.parametrize("prefix", FLAT_PREFIXES)
def test_kohyas_flat_names_are_the_same_lora(prefix, down, up):
    assert_same_lora(spelled(lambda layer: prefix + layer.replace(".", "_"), down, up), 2.0)


def test_our_own_files_are_read_back_as_they_were_written():
    adapters = AdapterSet(
        {layer: LoraAdapter(a, b, alpha) for layer, (a, b, alpha) in lora().items()}
    )
    assert_same_lora(adapter_tensors(adapters), 2.0)


def test_the_readers_spellings_pair_up_and_are_the_published_ones():
    assert len(DOWNS) == len(UPS) == 4
    assert {"diffusion_model.", "transformer.", "base_model.model.", "pipe.dit.", ""} <= set(
        PREFIXES
    )


def only_q(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    stem = "diffusion_model.blocks.0.self_attn.q"
    parts = {
        "lora_A.weight": torch.randn(RANK, WIDTH),
        "lora_B.weight": torch.randn(WIDTH, RANK),
        "alpha": torch.tensor(4.0),
    }
    parts |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {f"{stem}.{name}": t for name, t in parts.items() if t is not None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"lora_A__weight": torch.randn(RANK, WIDTH + 1)},
        {"lora_B__weight": torch.randn(WIDTH + 1, RANK)},
        {"lora_B__weight": torch.randn(WIDTH, RANK + 1)},
        {"lora_A__weight": torch.randn(RANK, WIDTH, 1, 1)},
        {"lora_A__weight": torch.randn(WIDTH)},
    ],
    ids=["inputs", "outputs", "ranks differ", "a convolution", "one axis"],
)
def test_a_wrong_shape_leaves_all_of_its_keys_over_with_both_shapes(wrong):
    tensors = only_q(**wrong)
    matched = match_lora(tensors, LAYERS)
    assert len(matched.adapters) == 0
    assert {left.key for left in matched.leftovers} == set(tensors)
    for left in matched.leftovers:
        assert left.cause == "shape"
        assert f"(rank, {WIDTH}) and ({WIDTH}, rank) in the model" in left.detail
        shapes = [str(tuple(t.shape)) for key, t in tensors.items() if "weight" in key]
        assert all(shape in left.detail for shape in shapes)


@pytest.mark.parametrize("missing", ["lora_A__weight", "lora_B__weight"])
def test_half_a_pair_is_left_over(missing):
    matched = match_lora(only_q(**{missing: None}), LAYERS)
    assert len(matched.adapters) == 0
    assert [left.cause for left in matched.leftovers] == ["half a pair"] * 2


def test_a_layer_that_the_model_has_not_is_left_over_and_the_rest_is_used():
    stem = "diffusion_model.blocks.0.cross_attn.k_img"
    extra = {
        f"{stem}.lora_A.weight": torch.randn(RANK, WIDTH),
        f"{stem}.lora_B.weight": torch.randn(WIDTH, RANK),
    }
    matched = match_lora(only_q() | extra, LAYERS)
    assert list(matched.adapters) == ["blocks.0.self_attn.q"]
    assert matched.num_modules == 2
    assert set(matched.leftovers) == {Leftover(key, "no such layer") for key in extra}


@pytest.mark.parametrize(
    "key",
    [
        "diffusion_model.blocks.0.self_attn.q.dora_scale",
        "diffusion_model.blocks.0.self_attn.norm_q.diff",
        "diffusion_model.blocks.0.self_attn.q.diff_b",
        "diffusion_model.blocks.0.self_attn.q.lokr_w1",
        "diffusion_model.blocks.0.self_attn.q.hada_w1_a",
    ],
)
def test_keys_of_other_methods_are_named_and_not_dropped(key):
    matched = match_lora(only_q() | {key: torch.ones(WIDTH)}, LAYERS)
    assert len(matched.adapters) == 1
    assert matched.leftovers == (Leftover(key, "unknown kind of key"),)


def test_every_key_is_either_used_or_left_over():
    tensors = only_q() | {"junk": torch.ones(1), "lora_unet_x.lora_up.weight": torch.ones(2, 2)}
    tensors["diffusion_model.blocks.1.ffn.0.alpha"] = torch.tensor(1.0)
    matched = match_lora(tensors, LAYERS)
    assert {left.key: left.cause for left in matched.leftovers} == {
        "junk": "unknown kind of key",
        "lora_unet_x.lora_up.weight": "no such layer",
        "diffusion_model.blocks.1.ffn.0.alpha": "half a pair",
    }


def test_a_layer_that_a_file_names_twice_is_not_dropped_in_silence():
    twice = only_q() | {
        key.replace("diffusion_model.", "transformer."): tensor for key, tensor in only_q().items()
    }
    matched = match_lora(twice, LAYERS)
    used = 3 * len(matched.adapters)
    assert used + len(matched.leftovers) == len(twice)


def test_a_factor_that_a_file_names_twice_is_not_dropped_in_silence():
    stem = "diffusion_model.blocks.0.self_attn.q"
    twice = only_q() | {f"{stem}.lora_down.weight": torch.zeros(RANK, WIDTH)}
    matched = match_lora(twice, LAYERS)
    assert 3 * len(matched.adapters) + len(matched.leftovers) == len(twice)


def test_the_matched_factors_are_copies():
    tensors = only_q()
    adapter = match_lora(tensors, LAYERS).adapters["blocks.0.self_attn.q"]
    tensors["diffusion_model.blocks.0.self_attn.q.lora_A.weight"].zero_()
    assert adapter.down.abs().sum() > 0


@pytest.mark.parametrize(
    ("tensors", "layout"),
    [
        (only_q(), "diffusion_model.*"),
        ({"lora_unet__blocks_0_ffn_0.alpha": torch.ones(1)}, "lora_unet__*"),
        ({"blocks.0.ffn.0.alpha": torch.ones(1)}, "bare names"),
        ({"model.weight": torch.ones(1)}, "no LoRA keys"),
        ({}, "no LoRA keys"),
    ],
)
def test_the_spelling_is_named_for_the_report(tensors, layout):
    assert match_lora(tensors, LAYERS).layout == layout
