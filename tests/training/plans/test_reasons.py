"""Every value has a reason with its class of evidence, and what was changed by hand is named as that."""

from dataclasses import replace

import pytest
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.plans.budget import plan_for
from tandem_wan.training.plans.changes import edited_plan, plan_values, rank_changes
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.presets import PRESETS
from tandem_wan.training.plans.reasons import (
    BY_HAND,
    GROUP,
    OFFICIAL,
    OURS,
    PEOPLE,
    PUBLISHED,
    SHOWN,
    plan_reasons,
    reason_for,
)
from tandem_wan.training.plans.settings import ExpertSettings
from tandem_wan.training.plans.target_words import OWN, target_words
from tandem_wan.wan.lora.adapters import DEFAULT_TARGETS

COUNTS = Counts(16, 16.0, 0.0)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("clips", [1, 16, 43, 200])
def test_every_value_of_a_preset_has_a_reason_and_none_is_by_hand(name, clips):
    counts = Counts(clips, float(clips), 0.0)
    plan = plan_for(counts, name)
    reasons = plan_reasons(plan, counts)
    assert [reason.name for reason in reasons] == list(SHOWN)
    for reason in reasons:
        assert reason.why and reason.evidence in (GROUP, OFFICIAL, OURS, PEOPLE, PUBLISHED), reason
        assert reason.text().startswith(f"{reason.name} ")


@pytest.mark.parametrize("name", PRESETS)
def test_each_value_of_each_plan_has_a_reason(name):
    plan = plan_for(COUNTS, name)
    for value in plan_values(plan):
        for counts in (COUNTS, None):
            assert reason_for(value, plan, counts).why, value


# What mission.md marks as received is not called ours, and what it marks as ours is not called received.
EVIDENCE = [
    ("motion 4x", "high.rate", GROUP),
    ("motion 4x", "steps", GROUP),
    ("motion 4x", "lora.rank", OURS),
    ("character", "high.rate", OURS),
    ("character", "optimizer.name", OURS),
    ("character", "steps", GROUP),
    ("video effect", "lora.rank", PUBLISHED),
    ("video effect", "steps", PUBLISHED),
    ("general video", "optimizer.name", OURS),
    ("general video", "high.rate", PEOPLE),
    ("image style", "steps", PEOPLE),
    ("length extension", "optimizer.name", OURS),
    ("length extension", "lora.dropout", PUBLISHED),
    ("general video", "boundary", OFFICIAL),
]


@pytest.mark.parametrize(("preset", "name", "evidence"), EVIDENCE)
def test_the_evidence_is_labelled_as_it_was_received(preset, name, evidence):
    assert reason_for(name, plan_for(COUNTS, preset), COUNTS).evidence == evidence


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 77},
        {"lora.rank": 7},
        {"high.rate": 0.5},
        {"save_every": 3},
        {"caption_dropout": 0.1},
        {"checkpoint_blocks": False},
        {"shift": 8.0},
    ],
)
def test_a_changed_value_is_by_hand_and_tells_the_presets(changes):
    own = plan_for(COUNTS, "general video")
    plan = edited_plan(own, changes)
    for reason in plan_reasons(plan, COUNTS):
        assert (reason.evidence == BY_HAND) == (reason.name in changes), reason
        if reason.evidence == BY_HAND:
            assert reason.why.startswith("the preset has ")


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("steps", [3, 60, 1000])
def test_what_follows_from_the_length_of_the_run_is_not_by_hand(name, steps):
    reasons = plan_reasons(plan_for(COUNTS, name, steps=steps), COUNTS)
    assert [reason.name for reason in reasons if reason.evidence == BY_HAND] == ["steps"]


def test_an_alpha_that_followed_the_rank_is_not_by_hand_and_another_is():
    own = plan_for(COUNTS, "general video")
    half = edited_plan(own, rank_changes(own, 16, 0))
    assert half.lora.alpha == 8 and reason_for("lora.alpha", half, COUNTS).evidence == PEOPLE
    other = edited_plan(own, rank_changes(own, 16, 16))
    assert reason_for("lora.alpha", other, COUNTS).evidence == BY_HAND


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (DEFAULT_TARGETS, "attention and feed-forward layers"),
        (PRESETS["length extension"].lora.targets, "attention layers"),
        ((r".*cross_attn\.(q|k|v|o)",), "cross-attention layers"),
        ((r".*(self_attn\.(q|k|v|o)|ffn\.[02])",), "self-attention and feed-forward layers"),
        ((r".*self_attn\.q",), OWN),
        ((r"blocks\.0\..*",), OWN),
        ((".*",), OWN),
        (("(",), OWN),
        ((), OWN),
    ],
)
def test_targets_are_told_in_words(patterns, words):
    assert target_words(patterns) == words


def test_no_pattern_and_no_name_of_a_folder_stands_in_the_text():
    for name in PRESETS:
        text = "\n".join(reason.text() for reason in plan_reasons(plan_for(COUNTS, name), COUNTS))
        assert "\\" not in text and "received" not in text


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (43, "40 for each of 43 images"),
        (5, "would be 200; never under 500, so 100 an image"),
        (100, "would be 4,000; never over 3,500, so 35 an image"),
    ],
)
def test_the_steps_of_a_style_say_which_limit_made_them(images, words):
    counts = Counts(images, float(images), 0.0)
    assert words in reason_for("steps", plan_for(counts, "image style"), counts).text()


def test_the_boundary_of_a_text_to_video_model_is_not_by_hand():
    plan = replace(plan_for(COUNTS, "character"), task="t2v", boundary=0.875)
    assert reason_for("boundary", plan, COUNTS).evidence == OFFICIAL
    assert reason_for("boundary", replace(plan, task="i2v"), COUNTS).evidence == BY_HAND


def test_a_plan_without_a_known_preset_has_reasons_too():
    plan = TrainingPlan(preset="somebody's own", high=ExpertSettings(rate=1e-3))
    assert all(reason.why for reason in plan_reasons(plan, COUNTS))
