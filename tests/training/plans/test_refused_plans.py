"""Plans that are refused before anything is read or loaded, and what is said of each."""

import json
from dataclasses import replace

import pytest
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.plans.changes import edited_plan
from tandem_wan.training.plans.extras import extras
from tandem_wan.training.plans.limits import plan_findings, require_allowed
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.reading import plan_json, read_plan
from tandem_wan.training.plans.settings import (
    AlphaPhases,
    ExpertSettings,
    LossSettings,
    PatternSettings,
    PhaseSettings,
    PruneSettings,
    TimestepSettings,
)
from tandem_wan.wan.errors import UserError

PLAN = TrainingPlan(family="wan 2.2 A14B")
COUNTS = Counts(16, 16.0, 0.0)


def refusal(changes: dict) -> str:
    values = json.loads(plan_json(PLAN))
    for name, value in changes.items():
        part, _, inner = name.rpartition(".")
        (values[part] if part else values)[inner] = value
    with pytest.raises(UserError) as refused:
        read_plan(json.dumps(values))
    return str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss.weighting": "min-snr"}, ("min-snr", "alphas_cumprod", "clamped snr", "w(sigma)")),
        ({"loss.weighting": "Min_SNR 5"}, ("alphas_cumprod", "loss.gamma")),
        ({"loss.weighting": "bell"}, ("loss.weighting is bell", "cosmap")),
        ({"loss.gamma": 0}, ("loss.gamma is 0",)),
        ({"lora.alpha": 0}, ("lora.alpha is 0", "do nothing")),
        ({"high.alpha": 0}, ("high.alpha is 0", "do nothing")),
        ({"alpha_phases.alphas": [8, 0, 20]}, ("alpha_phases.alphas is 0", "do nothing")),
        ({"alpha_phases.alphas": [1, 2, 3], "alpha_phases.least": [0.3]}, ("2 shares",)),
        ({"alpha_phases.alphas": [1, 2, 3], "alpha_phases.least": [0.7, 0.4]}, ("at most 1",)),
        ({"alpha_phases.alphas": [8, 9], "alpha_phases.fit": 2}, ("alpha_phases.fit is 2",)),
        (
            {"alpha_phases.alphas": [8, 9], "alpha_phases.improvement": float("nan")},
            ("alpha_phases.improvement is nan", "0.005"),
        ),
        ({"lora.rank": 0}, ("lora.rank is 0",)),
        ({"low.rank": 2.5}, ("low.rank is 2.5", "whole number")),
        ({"low.targets": "ffn"}, ("low.targets", "list of texts")),
        ({"lora.targets": [1]}, ("lora.targets", "list of texts")),
        ({"patterns": [{"rank": 4}]}, ("patterns.0", "pattern")),
        ({"patterns": [{"pattern": "x", "rnak": 4}]}, ("patterns.0.rnak", "patterns.0.rank meant")),
        ({"patterns": {"pattern": "x"}}, ("patterns", "list of objects")),
        ({"patterns": [{"pattern": "x", "rate": 0}]}, ("patterns.0.rate is 0",)),
        ({"patterns": [{"pattern": "x", "expert": "mid"}]}, ("patterns.0.expert is mid", "low")),
        ({"order": "random"}, ("order is random", "sequential")),
        ({"phases": []}, ("phases is empty",)),
        ({"phases": [{"train": "all", "steps": 1}]}, ("phases.0.train is all", "joint")),
        ({"phases": [{"train": "high", "steps": 0}]}, ("phases.0.steps is 0",)),
        ({"high_share": 1.0}, ("high_share is 1.0", "null")),
        ({"timesteps.distribution": "beta"}, ("timesteps.distribution is beta", "logit-normal")),
        ({"timesteps.std": 0}, ("timesteps.std is 0",)),
        ({"swap_blocks": 4, "checkpoint_blocks": False}, ("swap_blocks is 4", "swap_blocks to 0")),
        (
            {"offload_activations": True, "checkpoint_blocks": False},
            ("offload_activations is True", "offload_activations to False"),
        ),
        ({"rules": [{"rule": "too loud"}]}, ("rules.0.rule is too loud", "overtraining")),
        ({"rules": [{"rule": "overtraining", "level": "shout"}]}, ("rules.0.level is shout",)),
        ({"prune.last": -1}, ("prune.last is -1",)),
        ({"swapblocks": 3}, ("swapblocks", "swap_blocks meant")),
    ],
)
def test_impossible_values_are_named_with_what_can_be(changes, words):
    said = refusal(changes)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "changes",
    [
        {"lora.targets": ("(",)},
        {"low.targets": ("(",)},
        {"alpha_phases.targets": ("(",)},
        {"patterns": [{"pattern": "("}]},
    ],
)
def test_a_pattern_that_is_no_regular_expression_stops_the_trainer(changes):
    plan = edited_plan(PLAN, json.loads(json.dumps(changes)))
    with pytest.raises(UserError) as refused:
        require_allowed(plan, COUNTS)
    assert next(iter(changes)) in str(refused.value)


@pytest.mark.parametrize(
    ("plan", "role"),
    [
        (replace(PLAN, order="sequential", phases=(PhaseSettings(train="high"),)), "low_noise"),
        (replace(PLAN, steps=5, swap_every=10), "low_noise"),
    ],
)
def test_an_expert_without_a_step_is_warned_about(plan, role):
    texts = [finding.text for finding in plan_findings(plan, COUNTS) if finding.level == "warning"]
    assert any(f"The {role} expert gets none" in text for text in texts)


def test_the_summary_tells_what_is_unusual_and_nothing_of_the_rest():
    assert extras(PLAN) == []
    plan = replace(
        PLAN,
        order="sequential",
        steps=270,
        high_share=0.5,
        timesteps=TimestepSettings(distribution="logit-normal", mean=0.5),
        loss=LossSettings(weighting="clamped snr"),
        low=ExpertSettings(rank=16, targets=("a", "b")),
        patterns=(PatternSettings(pattern="x"),),
        alpha_phases=AlphaPhases(alphas=(8.0, 14.0)),
        swap_blocks=1,
        offload_activations=True,
        prune=PruneSettings(last=3, every=500),
    )
    assert extras(plan) == [
        "one after the other: high 100, low 150, joint 20 steps",
        "high noise has 0.5 of the steps they share",
        "noise levels logit-normal (mean 0.5, deviation 1)",
        "loss weighted by clamped snr (gamma 5)",
        "low noise with rank 16, targets a b",
        "1 pattern with settings of their own",
        "alpha 8 -> 14 in phases",
        "1 block in RAM",
        "activations in RAM",
        "of the checkpoints the last 3 and every 500 steps stay, and the best",
    ]
    assert len(extras(replace(PLAN, order="joint", train="low"))) == 0
