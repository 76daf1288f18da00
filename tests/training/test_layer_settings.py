"""Rank, alpha, dropout and rate by expert and by pattern; and what is refused of them."""

from dataclasses import replace

import pytest
import torch
from tandem_wan.training.layer_settings import (
    LayerSettings,
    fresh_adapters,
    layer_settings,
    require_layers,
)
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import ExpertSettings, LoraSettings, PatternSettings
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.expert import LinearShape
from tandem_wan.wan.lora.adapters import new_adapters

LAYERS = {
    f"blocks.{b}.{part}": LinearShape(64, 48)
    for b in range(2)
    for part in ("self_attn.q", "cross_attn.k", "ffn.0")
}
PLAN = TrainingPlan(family="wan 2.2 A14B", lora=LoraSettings(rank=8, alpha=4.0, dropout=0.1))


def settings(role: str = "high_noise", **changes) -> dict[str, LayerSettings]:
    return layer_settings(replace(PLAN, **changes), role, LAYERS)


def test_every_layer_has_the_loras_settings_where_nothing_else_is_said():
    assert settings() == dict.fromkeys(LAYERS, LayerSettings(8, 4.0, 0.1, 1.0))


def test_an_expert_has_its_own_rank_alpha_dropout_and_targets():
    low = ExpertSettings(rank=16, alpha=2.0, dropout=0.0, targets=(r"blocks\.\d+\.ffn\.0",))
    own = LayerSettings(16, 2.0, 0.0, 1.0)
    assert settings("low_noise", low=low) == {"blocks.0.ffn.0": own, "blocks.1.ffn.0": own}
    assert settings("high_noise", low=low) == settings()


def test_the_last_pattern_that_fits_counts_value_by_value():
    patterns = (
        PatternSettings(pattern=r"blocks\.0\..*", rank=4, rate=0.5),
        PatternSettings(pattern=r".*\.ffn\.0", alpha=1.0, rate=2.0, expert="high"),
    )
    high, low = (settings(role, patterns=patterns) for role in ("high_noise", "low_noise"))
    assert high["blocks.0.ffn.0"] == LayerSettings(4, 1.0, 0.1, 2.0)
    assert high["blocks.1.ffn.0"] == LayerSettings(8, 1.0, 0.1, 2.0)
    assert high["blocks.0.self_attn.q"] == LayerSettings(4, 4.0, 0.1, 0.5)
    assert low["blocks.0.ffn.0"] == LayerSettings(4, 4.0, 0.1, 0.5)
    assert low["blocks.1.ffn.0"] == LayerSettings(8, 4.0, 0.1, 1.0)


@pytest.mark.parametrize(("high", "low", "counts"), [(2e-4, 1e-4, "high"), (1e-4, 2e-4, "low")])
def test_a_single_model_takes_the_patterns_of_the_expert_that_leads(high, low, counts):
    patterns = (
        PatternSettings(pattern=".*", rank=3, expert="high"),
        PatternSettings(pattern=".*", rank=5, expert="low"),
    )
    rates = {"high": ExpertSettings(rate=high), "low": ExpertSettings(rate=low)}
    chosen = settings("single", family="single model", patterns=patterns, **rates)
    assert {each.rank for each in chosen.values()} == {{"high": 3, "low": 5}[counts]}


class Shapes:
    role = "high_noise"

    def layers(self):
        return LAYERS


def test_fresh_adapters_have_their_own_shapes_and_change_nothing():
    plan = replace(PLAN, patterns=(PatternSettings(pattern=r".*\.q", rank=3, alpha=1.5),))
    adapters = fresh_adapters(plan, Shapes())
    q, k = adapters["blocks.0.self_attn.q"], adapters["blocks.0.cross_attn.k"]
    assert (q.rank, q.alpha, q.dropout) == (3, 1.5, 0.1)
    assert (k.rank, k.alpha, k.dropout) == (8, 4.0, 0.1)
    x = torch.randn(2, 64)
    for adapter in adapters.values():
        adapter.eval()
        assert torch.equal(adapter(x), torch.zeros(2, 48))


def test_equal_settings_give_the_numbers_of_one_generator():
    ours = fresh_adapters(PLAN, Shapes())
    from tandem_wan.training.schedule import generator_for

    seed = generator_for(PLAN.seed, "high_noise", "adapters").initial_seed()
    theirs = new_adapters(LAYERS, rank=8, alpha=4.0, seed=seed)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora": LoraSettings(rank=49)}, ("rank 49", "64 inputs and 48 outputs", "48 or less")),
        ({"high": ExpertSettings(rank=64)}, ("rank 64", "48 or less")),
        (
            {"patterns": (PatternSettings(pattern="blocks.0.ffn", rank=4),)},
            ('"blocks.0.ffn"', "fits none"),
        ),
        ({"lora": LoraSettings(targets=("nothing",))}, ("nothing", "lora.targets")),
    ],
)
def test_what_no_layer_can_hold_is_refused_by_name(changes, words):
    with pytest.raises(UserError) as refused:
        require_layers(replace(PLAN, **changes), "high_noise", LAYERS)
    for word in words:
        assert word in str(refused.value)


def test_a_pattern_for_the_other_expert_is_none_of_this_ones_business():
    plan = replace(PLAN, patterns=(PatternSettings(pattern="elsewhere", expert="low", rank=4),))
    assert require_layers(plan, "high_noise", LAYERS) == settings()
