"""The numbers of the presets, one row each as they were received."""

import re

import pytest
from tandem_wan.training.optimizers.build import build_optimizer
from tandem_wan.training.optimizers.names import AVAILABLE
from tandem_wan.training.plans.presets import PRESET_NAMES, PRESETS
from tandem_wan.training.plans.settings import ExpertSettings
from tandem_wan.wan.lora.adapters import new_adapters


def bumping(least: float, most: float) -> ExpertSettings:
    return ExpertSettings(rate=least, bump=least, minimum=least, maximum=most)


def rate(value: float, schedule: str = "constant") -> ExpertSettings:
    return ExpertSettings(rate=value, schedule=schedule)


FALLING = rate(1e-4, "cosine with restarts")


# name: high, low, optimizer, (rank, alpha), (batch, accumulate), (steps, epochs)
TABLE = {
    "motion 4x": (
        bumping(2e-5, 5e-4),
        bumping(5e-6, 1e-4),
        "automagic",
        (32, 32),
        (1, 1),
        (2200, None),
    ),
    "motion 3x": (
        bumping(1.5e-5, 4e-4),
        bumping(5e-6, 1e-4),
        "automagic",
        (32, 32),
        (1, 1),
        (2200, None),
    ),
    "character": (rate(5e-5), rate(1e-4), "adamw", (32, 32), (1, 1), (800, None)),
    "image style": (FALLING, FALLING, "adamw 8-bit", (16, 16), (2, 1), (None, None)),
    "video effect": (rate(3e-5), rate(3e-5), "adamw 8-bit kahan", (32, 32), (1, 2), (None, 20)),
    "general video": (rate(1e-4), rate(1e-4), "adamw 8-bit", (64, 32), (1, 4), (3000, None)),
    "length extension": (rate(1e-4), rate(1e-4), "adamw", (64, 64), (1, 4), (None, 100)),
}


@pytest.mark.parametrize("name", TABLE)
def test_each_number_is_the_received_one(name):
    preset = PRESETS[name]
    high, low, optimizer, lora, batches, budget = TABLE[name]
    assert (preset.high, preset.low) == (high, low)
    assert preset.optimizer.name == optimizer
    assert (preset.lora.rank, preset.lora.alpha) == lora
    assert (preset.batch, preset.accumulate) == batches
    assert (preset.steps, preset.epochs) == budget


def test_there_are_seven_presets_in_the_order_of_the_node():
    assert tuple(TABLE) == PRESET_NAMES
    assert set(PRESETS) == set(PRESET_NAMES)


@pytest.mark.parametrize("name", ["motion 4x", "motion 3x"])
def test_motion_uses_automagic_as_it_was_measured(name):
    optimizer = PRESETS[name].optimizer
    assert (optimizer.beta2, optimizer.weight_decay, optimizer.clip) == (0.999, 1e-4, 1.0)
    assert PRESETS[name].save_every == 100


@pytest.mark.parametrize(("name", "ratio"), [("motion 4x", 4.0), ("motion 3x", 3.0)])
def test_motions_high_expert_bumps_faster_by_the_ratio_in_its_name(name, ratio):
    assert PRESETS[name].high.bump / PRESETS[name].low.bump == pytest.approx(ratio)


def test_effects_are_saved_every_5_epochs_and_general_video_every_500_steps():
    assert PRESETS["video effect"].save_every_epochs == 5
    assert PRESETS["general video"].save_every == 500


def test_only_length_extension_drops_out_and_leaves_the_feed_forward_alone():
    for name, preset in PRESETS.items():
        assert preset.lora.dropout == (0.1 if name == "length extension" else 0.0)
        touches_ffn = any(re.fullmatch(t, "blocks.7.ffn.0") for t in preset.lora.targets)
        assert touches_ffn == (name != "length extension")
        assert any(re.fullmatch(t, "blocks.39.cross_attn.o") for t in preset.lora.targets)


def test_adapters_are_in_16_bits_where_kahan_summation_is_asked_for_and_nowhere_else():
    for preset in PRESETS.values():
        kahan = "kahan" in preset.optimizer.name
        assert preset.lora.dtype == ("bfloat16" if kahan else "float32")


@pytest.mark.parametrize("name", TABLE)
def test_each_preset_says_what_it_rests_on(name):
    assert "Evidence" in PRESETS[name].evidence


@pytest.mark.parametrize("name", TABLE)
def test_each_presets_optimizer_exists(name):
    preset = PRESETS[name]
    assert preset.optimizer.name in AVAILABLE
    adapters = new_adapters({"layer": (4, 4)}, rank=2, alpha=2.0, seed=0)
    for rates in (preset.high, preset.low):
        assert build_optimizer(adapters.parameters(), preset.optimizer, rates)
