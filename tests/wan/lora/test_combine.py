"""One LoRA from several: what it does is what they do together, read back from its file."""

from __future__ import annotations

import json

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.adapters import LoraAdapter
from tandem_wan.wan.lora.combine import Source, blend, combine, low_rank_factors
from tandem_wan.wan.lora.dora import DoRA
from tandem_wan.wan.lora.files import read_metadata, read_tensors, write_safetensors
from tandem_wan.wan.lora.hadamard import LoHa
from tandem_wan.wan.lora.keys import match_lora
from tandem_wan.wan.lora.kronecker import LoKr
from tandem_wan.wan.lora.strength import parse_strength
from tandem_wan.wan.lora.updates import Difference, UpdateSet

SHAPES = {
    "blocks.0.self_attn.q.weight": (48, 40),
    "blocks.0.self_attn.q.bias": (48,),
    "blocks.0.self_attn.norm_q.weight": (48,),
    "blocks.0.modulation": (1, 6, 40),
    "blocks.0.ffn.0.weight": (64, 40),
    "patch_embedding.weight": (40, 16, 1, 2, 2),
}
Q, FFN, PATCH = "blocks.0.self_attn.q.weight", "blocks.0.ffn.0.weight", "patch_embedding.weight"


def test_loras_at_strengths_become_one_of_their_ranks_together(tmp_path):
    one = {Q: _lora(1, Q, rank=3, alpha=6.0), PATCH: _lora(2, PATCH, rank=2, alpha=1.0)}
    two = {Q: _lora(3, Q, rank=5, alpha=2.0), FFN: _lora(4, FFN, rank=1, alpha=1.0)}
    sources = [_source("a.safetensors", one, 0.8), _source("b.safetensors", two, -0.5)]
    combined = combine(sources, _weight_of, expert="high_noise")
    assert combined.whole == ()
    updates = _read_back(combined, tmp_path)
    assert {name: update.rank for name, update in updates.items()} == {Q: 8, PATCH: 2, FFN: 1}
    _assert_same(updates, sources)


def test_every_kind_of_change_is_kept_exactly(tmp_path):
    rand = _random(7)
    lora = _lora(5, Q, rank=2, alpha=2.0)
    everywhere = {
        "blocks.0.self_attn.q.bias": Difference(rand(48)),
        "blocks.0.self_attn.norm_q.weight": Difference(rand(48)),
        "blocks.0.modulation": Difference(rand(1, 6, 40)),
        PATCH: Difference(rand(40, 16, 1, 2, 2)),
    }
    for update in (
        _loha(rand, 2),
        _loha(rand, 5),
        _lokr(rand),
        _dora(rand),
        Difference(rand(48, 40)),
    ):
        sources = [_source("x", {Q: update, **everywhere}, 0.7), _source("y", {Q: lora}, 1.5)]
        combined = combine(sources, _weight_of, expert="low_noise")
        _assert_same(_read_back(combined, tmp_path), sources)
        assert set(everywhere) <= set(combined.whole)


def test_factors_are_taken_where_they_are_smaller_than_the_matrix():
    rand = _random(8)
    for update, whole in (
        (_loha(rand, 2), False),
        (_loha(rand, 6), True),
        (_lokr(rand), False),
        (_dora(rand), True),
        (Difference(rand(48, 40)), True),
    ):
        combined = combine([_source("x", {Q: update}, 1.0)], _weight_of, expert="single")
        assert (Q in combined.whole) is whole, update
        stored = sum(tensor.numel() for tensor in combined.tensors.values())
        assert stored <= 48 * 40 + 1


def test_exact_factors_of_loha_and_lokr_multiply_to_their_change():
    rand = _random(9)
    weight = torch.empty(48, 40)
    whole_first = LoKr((rand(6, 4),), (rand(8, 10),))
    both = LoKr((rand(6, 2), rand(2, 4)), (rand(8, 3), rand(3, 10)), rank=3, alpha=1.0)
    for update in (_loha(rand, 3), _lokr(rand), whole_first, both):
        down, up = low_rank_factors(update)
        torch.testing.assert_close(up @ down, update.delta(weight), rtol=1e-5, atol=1e-5)
    assert low_rank_factors(_dora(rand)) is None
    assert low_rank_factors(LoHa((rand(48, 40),), (rand(48, 40),), rank=2, alpha=2.0)) is None


def test_a_blend_counts_each_lora_by_its_share(tmp_path):
    one = _source("one", {Q: _lora(1, Q, rank=2, alpha=2.0)}, 1.0)
    other = _source("other", {Q: _lora(2, Q, rank=3, alpha=6.0)}, 0.5)
    for share in (0.0, 0.3, 1.0):
        blended = blend(one, other, share, _weight_of, expert="single")
        parts = [one._replace(strength=1 - share), other._replace(strength=0.5 * share)]
        _assert_same(_read_back(blended, tmp_path), [p for p in parts if p.strength])
    with pytest.raises(UserError, match=r"share is 1\.5"):
        blend(one, other, 1.5, _weight_of, expert="single")


def test_the_metadata_lists_what_it_was_made_of(tmp_path):
    sources = [
        _source("a.safetensors", {Q: _lora(1, Q, rank=2, alpha=2.0)}, 0.8),
        _source("off.safetensors", {FFN: _lora(1, FFN, rank=2, alpha=2.0)}, 0.0),
    ]
    combined = combine(sources, _weight_of, expert="high_noise", trigger="a sparkler")
    write_safetensors(tmp_path / "c.safetensors", combined.tensors, combined.metadata)
    entry = json.loads(read_metadata(tmp_path / "c.safetensors")["tandem"])
    assert entry == {
        "expert": "high_noise",
        "combined": [{"file": "a.safetensors", "strength": 0.8}],
        "trigger": "a sparkler",
    }
    assert not any("ffn" in key for key in combined.tensors)


def test_a_strength_that_changes_over_the_run_is_refused_and_a_constant_one_counts(tmp_path):
    updates = {Q: _lora(1, Q, rank=2, alpha=2.0)}
    ramp = _source("ramp.safetensors", updates, 1.0, parse_strength("0.2 -> 1"))
    with pytest.raises(UserError, match=r"ramp.safetensors has the strength schedule"):
        combine([ramp], _weight_of, expert="single")
    half = combine([ramp._replace(schedule=parse_strength("0.5"))], _weight_of, expert="single")
    _assert_same(_read_back(half, tmp_path), [_source("", updates, 0.5)])


def test_sixteen_bits_halve_the_file_and_keep_alpha_a_number(tmp_path):
    source = _source("x", {Q: _lora(1, Q, rank=2, alpha=2.0)}, 1.0)
    combined = combine([source], _weight_of, expert="single", dtype=torch.bfloat16)
    kinds = {key.rpartition(".")[2]: tensor.dtype for key, tensor in combined.tensors.items()}
    assert kinds == {"weight": torch.bfloat16, "alpha": torch.float32}
    delta = _read_back(combined, tmp_path)[Q].delta(_weight_of(Q))
    expected = source.updates[Q].delta(_weight_of(Q))
    assert (delta - expected).norm() < 0.01 * expected.norm()


def _source(name, updates, strength, schedule=None):
    return Source(name, UpdateSet(updates), strength, schedule)


def _weight_of(name):
    return _random(sum(map(ord, name)))(*SHAPES[name])


def _random(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def _lora(seed, name, *, rank, alpha):
    rand, (outputs, *inputs) = _random(seed), SHAPES[name]
    wide = torch.Size(inputs).numel()
    return LoraAdapter(rand(rank, wide), rand(outputs, rank), alpha).requires_grad_(False)


def _loha(rand, rank):
    one, two = ((rand(48, rank), rand(rank, 40)) for _ in range(2))
    return LoHa(one, two, rank=rank, alpha=1.5)


def _lokr(rand):
    return LoKr((rand(6, 4),), (rand(8, 1), rand(1, 10)), rank=1, alpha=0.5)


def _dora(rand):
    direction = LoraAdapter(rand(2, 40), rand(48, 2), 1.0).requires_grad_(False)
    return DoRA(direction, rand(48).abs(), "outputs")


def _read_back(combined, folder):
    path = folder / "combined.safetensors"
    write_safetensors(path, combined.tensors, combined.metadata)
    matched = match_lora(read_tensors(path), SHAPES)
    assert not matched.leftovers
    return matched.updates


def _assert_same(updates, sources):
    names = {name for source in sources for name in source.updates}
    assert set(updates) == names
    for name in names:
        weight = _weight_of(name)
        expected = sum(
            source.strength * source.updates[name].delta(weight)
            for source in sources
            if name in source.updates
        )
        torch.testing.assert_close(updates[name].delta(weight), expected, rtol=1e-5, atol=1e-5)
