"""A value that somebody has set and that does nothing is named; what presets set by themselves is not."""

from dataclasses import replace

import pytest
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.plans.budget import plan_for
from tandem_wan.training.plans.limits import plan_findings
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.presets import PRESETS
from tandem_wan.training.plans.settings import (
    AlphaPhases,
    ExpertSettings,
    LossSettings,
    OptimizerSettings,
    PatternSettings,
    PhaseSettings,
    PruneSettings,
    RuleSettings,
    TimestepSettings,
)
from tandem_wan.training.plans.unused import unused_values

HIGH_ALONE = (PhaseSettings(train="high"), PhaseSettings(train="low"))
FOR_LOW = (PatternSettings(pattern="x", expert="low", rank=4),)
NO_SETTING = (PatternSettings(pattern="x"),)
PHASES = AlphaPhases(alphas=(8.0, 14.0))
LION = OptimizerSettings(name="library:Lion", beta2=0.95)
OVERTRAINED = (RuleSettings(rule="overtraining", level="stop"),)

# A value alone, its name in what is told, and what makes it count.
CASES = [
    (
        {"timesteps": TimestepSettings(mean=1.0)},
        "timesteps.mean is 1",
        {"timesteps": TimestepSettings(mean=1.0, distribution="logit-normal")},
    ),
    (
        {"timesteps": TimestepSettings(std=2.0)},
        "timesteps.std is 2",
        {"timesteps": TimestepSettings(std=2.0, distribution="sigmoid")},
    ),
    (
        {"loss": LossSettings(gamma=3.0)},
        "loss.gamma is 3",
        {"loss": LossSettings(gamma=3.0, weighting="clamped snr")},
    ),
    ({"phases": HIGH_ALONE}, "phases is", {"order": "sequential"}),
    ({"high_share": 0.4, "train": "low"}, "high_share is 0.4", {"train": "both"}),
    (
        {"high_share": 0.4, "order": "sequential", "phases": HIGH_ALONE},
        "high_share is 0.4",
        {"phases": (*HIGH_ALONE, PhaseSettings(train="joint"))},
    ),
    (
        {"alpha_phases": AlphaPhases(stability=0.6)},
        "alpha_phases has stability",
        {"alpha_phases": AlphaPhases(stability=0.6, alphas=(8.0,))},
    ),
    (
        {"alpha_phases": PHASES, "high": ExpertSettings(alpha=4.0)},
        "high.alpha",
        {"alpha_phases": replace(PHASES, targets=(".*ffn.*",))},
    ),
    (
        {"patterns": NO_SETTING},
        "patterns.0 has no setting",
        {"patterns": (PatternSettings(pattern="x", rate=0.5),)},
    ),
    ({"patterns": FOR_LOW, "train": "high"}, "patterns.0 is for the low", {"train": "both"}),
    (
        {"patterns": FOR_LOW, "family": "single model"},
        "patterns.0 is for the low",
        {"low": ExpertSettings(rate=1.0)},
    ),
    (
        {"low": ExpertSettings(cycles=5)},
        "low.cycles is 5",
        {"low": ExpertSettings(cycles=5, schedule="cosine with restarts")},
    ),
    ({"stop_on": ("overtraining",)}, "overtraining is among", {"held_out": 1}),
    ({"rules": OVERTRAINED}, "overtraining is among", {"held_out": 1}),
    ({"stop_on": ("low overpowers",), "train": "low"}, "low overpowers is", {"train": "both"}),
    ({"prune": PruneSettings(every=150)}, "prune.every is 150", {"save_every": 50}),
    ({"optimizer": LION}, "optimizer.beta2 is 0.95", {"optimizer": replace(LION, beta2=0.999)}),
]


@pytest.mark.parametrize(("changes", "words", "used"), CASES, ids=[case[1] for case in CASES])
def test_a_value_that_does_nothing_is_named_until_something_uses_it(changes, words, used):
    plan = (
        TrainingPlan(family="wan 2.2 A14B", **changes)
        if "family" not in changes
        else (TrainingPlan(**changes))
    )
    told = list(unused_values(plan))
    assert len(told) == 1 and words in told[0].text
    assert told[0].text.count(". ") == 1 and told[0].text.endswith(".") and told[0].fix
    notes = [found for found in plan_findings(plan, Counts(20, 20.0, 0.0)) if found.level == "note"]
    assert told[0].text in [note.text for note in notes]
    assert not list(unused_values(replace(plan, **used)))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_of_a_preset_has_no_value_that_does_nothing(preset):
    assert not list(unused_values(plan_for(Counts(20, 20.0, 0.0), preset)))
