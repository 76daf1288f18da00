"""When a run is told that something is wrong with it, as data.

The rules of motion and their numbers are those of the people who wrote the motion presets: one group's runs, not
replicated. Numbers marked ours are chosen so that a rule neither misses those runs nor comes and goes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

from ...wan.families import Role
from ..plans.plan import TrainingPlan
from ..plans.presets import EFFECT, MOTION
from ..plans.settings import RULE_MEASURES, RuleSettings

Level = Literal["log", "warn", "stop"]
"""log: a note. warn: a warning. stop: a warning, and the run ends as if it had been stopped by hand."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Holds once a measure is below or above its limit, until it has come back as far as `clear`."""

    measure: str
    below: float | None = None
    above: float | None = None
    clear: float
    says: str = ""
    """With {value} for the measure and {limit} for what it is held against."""

    def holds(self, value: float | None, before: bool) -> bool:
        """`before`: did it hold the last time? Without a value that stays so."""
        if value is None:
            return before
        if self.below is not None and value >= (self.clear if before else self.below):
            return False
        return self.above is None or value > (self.clear if before else self.above)

    def text(self, value: float) -> str:
        """What it says of a value that it holds for."""
        return self.says.format(value=value, limit=self.limit)

    @property
    def limit(self) -> float:
        """The one it has."""
        limit = self.above if self.below is None else self.below
        assert limit is not None, "a condition has a limit"
        return limit

    def with_limit(self, limit: float) -> Condition:
        """Another limit, and as far from it, in relation, what clears it."""
        way = abs(self.clear - self.limit) * (
            abs(limit / self.limit) if limit and self.limit else 1
        )
        if self.below is None:
            return replace(self, above=limit, clear=limit - way)
        return replace(self, below=limit, clear=limit + way)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is found when any of its conditions holds, or all of them."""

    name: str
    level: Level
    says: str
    """With {role} where it is about one expert."""
    fix: str
    """With {raise} for the setting that makes an expert learn faster, {lower} for that which holds it back, after
    `high.`, `low.` or, for the expert that the rule speaks of, `EXPERT.`"""
    conditions: tuple[Condition, ...]
    need_all: bool = False
    looks_at: Literal["steps", "own steps", "held out"] = "steps"
    """Every step of the run; those of each expert, and its held-out losses, by themselves."""
    armed_from: float = 0.0
    """Share of the run before which it is silent."""
    presets: tuple[str, ...] = ()
    """Empty is all."""
    single: str = "high"
    """Whose settings a single model has."""

    def fix_for(self, role: Role | None) -> str:
        """What to do, with the names that the settings of this expert have in the plan."""
        expert = self.single if role in (None, "single") else str(role).removesuffix("_noise")
        return self.fix.replace("EXPERT", expert)


RULES: tuple[Rule, ...] = (
    Rule(
        name="low overpowers",
        level="warn",
        says="Low noise is overpowering motion",
        fix="Stop and take an earlier checkpoint; lower the rate of the low-noise expert (low.{lower}), or raise "
        "that of the high-noise one (high.{raise}).",
        armed_from=0.5,
        presets=MOTION,
        conditions=(
            Condition(
                measure="weight ratio",
                below=1.5,
                clear=1.55,  # ours
                says="the high-noise weight is {value:.2f} times the low-noise one ({limit:g} or more is the goal)",
            ),
            Condition(
                measure="low outgrows high",
                above=0.002,  # ours: what taking turns may look like; the run that was judged had 0.017
                clear=-0.002,
                says="over the last fifth of the run low noise grew {value:.1%} more than high noise",
            ),
        ),
    ),
    Rule(
        name="high too weak",
        level="warn",
        says="High noise is too weak for motion",
        fix="Raise the high-noise rate ({high}); the goals are a mean "
        "weight of 0.008 to 0.010 at the width of the 14B models and a rate 3 to 5 times the low-noise one.",
        armed_from=0.5,
        presets=MOTION,
        conditions=(
            Condition(
                measure="high weight",
                below=0.008,
                clear=0.0082,  # ours
                says="its mean weight is {value:.6f} ({limit:g} or more is the goal)",
            ),
            Condition(
                measure="rate ratio",
                below=3.0,
                clear=3.1,  # ours
                says="its rate is {value:.2f} times the low-noise one ({limit:g} or more is the goal)",
            ),
        ),
    ),
    Rule(
        name="overtraining",
        level="warn",
        says="The {role} expert is overtraining",
        fix="Keep an earlier checkpoint; train for fewer epochs, or with more clips.",
        looks_at="held out",
        need_all=True,
        conditions=(
            Condition(
                measure="held-out rise",
                above=0.02,  # ours, in two evaluations that follow each other
                clear=0.01,
                says="its loss on clips that it is not trained on has risen by {value:.1%} from its lowest",
            ),
            Condition(
                measure="trained fall",
                above=0.0,
                clear=-0.01,
                says="while that on clips that it is trained on has fallen by {value:.1%}",
            ),
        ),
    ),
    Rule(
        name="loss settled",
        level="log",
        says="The loss has settled where that of a video effect does",
        fix="Compare the checkpoints from here on: the effect is there, and more steps strengthen it.",
        armed_from=0.5,
        presets=(EFFECT,),
        need_all=True,
        conditions=(
            Condition(
                measure="loss level",
                below=0.025,
                clear=0.026,  # ours
                says="its mean over the last fifth of the run is {value:.4f} (0.015 to 0.025 in a published run)",
            ),
            Condition(measure="least loss level", above=0.015, clear=0.014),
            Condition(
                measure="loss drift",
                below=0.25,  # ours
                clear=1.0,
                says="{value:.0%} from the fifth before",
            ),
        ),
    ),
    Rule(
        name="diverging",
        level="warn",
        says="The {role} expert is diverging",
        fix="Stop, lower its rate (EXPERT.{lower}), to a tenth first, and train under another name; only checkpoints "
        "from before the rise are worth a look.",
        looks_at="own steps",
        need_all=True,
        conditions=(
            Condition(
                measure="loss rise",
                above=0.5,  # ours
                clear=0.25,  # ours
                says="its mean loss lies {value:.0%} above that of its first steps",
            ),
            # Ours: of healthy runs whose losses (gamma, lognormal) have a deviation of 95 % of their mean, 2 in
            # 1,000 came there (30 steps; none of 1,500 from 300 steps on), and beyond the first limit 48 in 100.
            Condition(measure="loss rise in errors", above=4.0, clear=2.0),
        ),
    ),
)
assert {rule.name: tuple(c.measure for c in rule.conditions) for rule in RULES} == RULE_MEASURES, (
    "a plan names the rules, and what they look at"
)


def rules_for(plan: TrainingPlan) -> tuple[Rule, ...]:
    """The rules of the plan's preset, and those that the plan names in `rules` or `stop_on`, as it wants them."""
    named = {*plan.stop_on, *(settings.rule for settings in plan.rules)}
    mine = [r for r in RULES if not r.presets or plan.preset in r.presets or r.name in named]
    for settings in plan.rules:
        mine = [_changed(rule, settings) if rule.name == settings.rule else rule for rule in mine]
    return tuple(
        _advising(replace(r, level="stop") if r.name in plan.stop_on else r, plan) for r in mine
    )


def _advising(rule: Rule, plan: TrainingPlan) -> Rule:
    """Its advice with the settings that the plan's optimizer has."""
    automagic = plan.optimizer.name == "automagic"
    names = {
        "{raise}": "bump" if automagic else "rate",
        "{lower}": "maximum" if automagic else "rate",
        "{high}": "high.bump and high.maximum" if automagic else "high.rate",
    }
    fix = rule.fix
    for slot, name in names.items():
        fix = fix.replace(slot, name)
    return replace(rule, fix=fix, single="low" if plan.rates("single") is plan.low else "high")


def _changed(rule: Rule, settings: RuleSettings) -> Rule:
    if settings.level is not None:
        rule = replace(rule, level=cast(Level, settings.level))
    if settings.armed_from is not None:
        rule = replace(rule, armed_from=settings.armed_from)
    limit = settings.limit
    if limit is None:
        return rule
    conditions = tuple(
        c.with_limit(limit) if settings.measure in (c.measure, None) else c for c in rule.conditions
    )
    return replace(rule, conditions=conditions)
