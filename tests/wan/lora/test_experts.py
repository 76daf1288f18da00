"""Files that hold both experts come apart, and files that do not stay whole."""

from dataclasses import replace

import pytest
import torch
from tandem_wan.wan.lora.experts import evidence_in, split_experts, split_header
from tandem_wan.wan.lora.header import header_of
from tandem_wan.wan.lora.keys import match_lora
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout

WAN = transformer_layout(TransformerSize(width=16, ffn_width=24, text_width=8, layers=1))
WAN_KEYS = ("blocks.0.self_attn.q.lora_A.weight", "blocks.0.self_attn.q.lora_B.weight")
DIFFUSERS_KEYS = ("blocks.0.attn1.to_q.lora_A.weight", "blocks.0.attn1.to_q.lora_B.weight")


def tensors(*prefixes: str, keys=WAN_KEYS) -> dict[str, torch.Tensor]:
    """The same layer under each prefix; its number is in every value."""
    return {
        prefix + key: torch.full((4, 16) if "lora_A" in key else (16, 4), float(number))
        for number, prefix in enumerate(prefixes, 1)
        for key in keys
    }


PAIRS = {
    "diffusers": ("transformer.", "transformer_2.", DIFFUSERS_KEYS),
    "ai-toolkit": ("diffusion_model.transformer_1.", "diffusion_model.transformer_2.", WAN_KEYS),
    "ai-toolkit, bare": ("transformer_1.", "transformer_2.", WAN_KEYS),
    "DiffSynth": ("pipe.dit.", "pipe.dit2.", WAN_KEYS),
    "compiled": ("transformer._orig_mod.", "transformer_2._orig_mod.", DIFFUSERS_KEYS),
}


@pytest.mark.parametrize(("high", "low", "keys"), PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("swapped", [False, True], ids=["high first", "low first"])
def test_a_file_of_both_experts_gives_each_its_own(high, low, keys, swapped):
    order = (low, high) if swapped else (high, low)
    parts = split_experts(tensors(*order, keys=keys))
    assert list(parts) == ["high", "low"]
    for side, number in (("high", 2.0 if swapped else 1.0), ("low", 1.0 if swapped else 2.0)):
        matched = match_lora(parts[side], WAN)
        assert matched.leftovers == ()
        (update,) = matched.updates.values()
        assert update.down.unique().tolist() == [number]


@pytest.mark.parametrize(
    ("prefix", "side"),
    [("transformer_2.", "low"), ("transformer_1.", "high"), ("pipe.dit2.", "low")],
)
def test_one_expert_that_is_named_is_that_expert(prefix, side):
    assert list(split_experts(tensors(prefix))) == [side]


@pytest.mark.parametrize(
    "prefix", ["transformer.", "diffusion_model.", "", "pipe.dit.", "base_model.model."]
)
def test_a_file_that_names_no_expert_is_whole(prefix):
    named = tensors(prefix)
    assert split_experts(named) == {None: named}


def test_the_word_counts_only_in_front_of_the_network():
    named = tensors("diffusion_model.blocks.transformer_2.")
    assert list(split_experts(named)) == [None]


def test_keys_without_an_expert_come_with_each_so_that_both_reports_name_them():
    named = tensors("transformer.", "transformer_2.", keys=DIFFUSERS_KEYS) | {"text_encoder.x": 0}
    parts = split_experts(named)
    assert all("text_encoder.x" in part for part in parts.values())
    assert sum(map(len, parts.values())) == 6


def test_an_unsplit_file_of_both_experts_is_told_and_not_mixed():
    matched = match_lora(tensors("transformer_1.", "transformer_2."), WAN)
    assert len(matched.updates) == 1
    assert {left.cause for left in matched.leftovers} == {"layer named twice"}


@pytest.mark.parametrize(
    ("prefixes", "expert"),
    [
        (("transformer_2.",), "low_noise"),
        (("pipe.dit2.",), "low_noise"),
        (("transformer_1.",), "high_noise"),
        (("transformer.",), None),
        (("transformer.", "transformer_2."), None),
        ((), None),
    ],
)
def test_a_file_says_by_its_keys_and_metadata_which_expert_it_is_for(prefixes, expert):
    header = header_of(tensors(*prefixes))
    assert evidence_in(header) == (None, expert)
    of_ours = replace(header, metadata={"tandem": '{"expert": "high_noise"}'})
    assert evidence_in(of_ours) == ("high_noise", expert)


def test_headers_split_as_tensors_do():
    both = tensors("transformer.", "transformer_2.", keys=DIFFUSERS_KEYS)
    headers = split_header(header_of(both))
    assert {side: list(header.tensors) for side, header in headers.items()} == {
        side: list(part) for side, part in split_experts(both).items()
    }
