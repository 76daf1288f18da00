"""A plan changes the level, the limits and the arming of the monitors' rules; what no rule has is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.events import Finding
from tandem_wan.training.monitors.measures import MEASURES
from tandem_wan.training.monitors.monitor import Monitor
from tandem_wan.training.monitors.rules import RULES, rules_for
from tandem_wan.training.plans.changes import edited_plan
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.reading import plan_json, read_plan
from tandem_wan.training.plans.settings import RULE_MEASURES, RuleSettings
from tandem_wan.wan.errors import UserError

CONDITIONS = [(rule, condition) for rule in RULES for condition in rule.conditions]


def found(replays, *rules, run="real", **changes):
    plan, events = getattr(replays, run)()
    plan = replays.plan(plan.steps, rules=rules, **changes)
    heard = replays.told(Monitor(plan), events)
    return [e if e == "stopped" else (e.rule, e.kind, e.step) for e in heard if _tells(e)]


def _tells(event):
    return event == "stopped" or isinstance(event, Finding)


def test_a_limit_says_from_where_a_rule_holds(replays):
    """The weight ratio of the run is 1.13 at half of it, and 1.19 at most."""
    at_once = found(replays, RuleSettings(rule="low overpowers", measure="weight ratio", limit=1.5))
    assert at_once == found(replays) and at_once[0] == ("low overpowers", "warning", 1535)
    narrow = RuleSettings(rule="low overpowers", measure="weight ratio", limit=1.1)
    assert [f[2] for f in found(replays, narrow) if f[0] == "low overpowers"] == [2821]
    apart = RuleSettings(rule="low overpowers", measure="low outgrows high", limit=0.1)
    assert found(replays, narrow, apart) == [("high too weak", "warning", 1535)]


def test_the_limit_that_a_finding_names_is_the_plans_own(replays):
    _, events = replays.real()
    rule = RuleSettings(rule="low overpowers", measure="weight ratio", limit=1.3)
    heard = replays.told(Monitor(replays.plan(rules=(rule,))), events)
    assert any("(1.3 or more is the goal)" in e.text for e in heard if isinstance(e, Finding))


@pytest.mark.parametrize(
    ("level", "kinds"),
    [("log", ["note"] * 2), ("warn", ["warning"] * 2), ("stop", ["warning"])],
)
def test_a_level_says_what_a_finding_is(replays, level, kinds):
    weak = RuleSettings(rule="high too weak", level="log")
    told = found(replays, RuleSettings(rule="low overpowers", level=level), weak)
    assert [kind for rule, kind, _ in told[: len(kinds) + 1] if rule == "low overpowers"] == kinds
    assert ("stopped" in told) == (level == "stop")


def test_all_that_is_found_at_the_step_that_ends_a_run_is_told(replays):
    """Later it would be no news: a run that goes on knows it from its past."""
    told = found(replays, RuleSettings(rule="low overpowers", level="stop"))
    assert told == [
        ("low overpowers", "warning", 1535),
        ("high too weak", "warning", 1535),
        "stopped",
    ]


@pytest.mark.parametrize(("share", "step"), [(0.0, 1), (0.25, 768), (0.9, 2763)])
def test_armed_from_is_the_share_of_the_run_before_which_a_rule_is_silent(replays, share, step):
    told = found(replays, RuleSettings(rule="high too weak", armed_from=share))
    assert next(at for rule, _, at in told if rule == "high too weak") == step


@pytest.mark.parametrize("how", ["rules", "stop_on"])
def test_a_rule_that_a_plan_names_is_looked_for_whatever_its_preset(replays, how):
    named = {
        "rules": {"rules": (RuleSettings(rule="high too weak"),)},
        "stop_on": {"stop_on": ("high too weak",)},
    }
    plan, events = replays.real()
    plan = replays.plan(preset="general video", **named[how])
    heard = replays.told(Monitor(plan), events)
    assert [e.rule for e in heard if isinstance(e, Finding)] == ["high too weak"]


def test_what_ends_a_run_by_stop_on_ends_it_whatever_rules_says():
    rules = (RuleSettings(rule="overtraining", level="log"),)
    plan = TrainingPlan(rules=rules, stop_on=("overtraining",))
    assert {rule.level for rule in rules_for(plan) if rule.name == "overtraining"} == {"stop"}


def test_a_healthy_run_stays_silent_with_every_rule_named(replays):
    rules = [RuleSettings(rule=rule, level="stop") for rule in RULE_MEASURES]
    assert found(replays, *rules, run="healthy") == []


@given(st.sampled_from(CONDITIONS), st.floats(-10, 10))
def test_a_changed_limit_keeps_a_band_in_which_nothing_changes(case, limit):
    _, condition = case
    changed = condition.with_limit(limit)
    assert changed.limit == limit and (changed.below is None) == (condition.below is None)
    assert changed.clear >= limit if changed.above is None else changed.clear <= limit
    assert condition.with_limit(condition.limit).clear == pytest.approx(condition.clear)


def test_every_measure_of_a_rule_is_one_that_there_is():
    assert {m for measures in RULE_MEASURES.values() for m in measures} == MEASURES.keys()


def test_rules_come_back_from_json_and_can_be_edited_by_name():
    wish = {"rule": "overtraining", "measure": "held-out rise", "limit": 0.05, "level": "stop"}
    plan = edited_plan(TrainingPlan(), {"rules": [wish]})
    assert plan.rules == (RuleSettings(**wish),)
    assert read_plan(plan_json(plan)) == plan
    # JSON of before there were any.
    values = json.loads(plan_json(TrainingPlan()))
    del values["rules"]
    assert read_plan(json.dumps(values)).rules == ()


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"rule": "overfitting"}, r"rules.0.rule is overfitting.*overtraining"),
        ({"rule": "overtraining", "level": "shout"}, r"level is shout.*log, warn, stop"),
        (
            {"rule": "low overpowers", "measure": "rate ratio", "limit": 2.0},
            r"measure is rate ratio.*weight ratio, low outgrows high",
        ),
        ({"rule": "low overpowers", "limit": 1.2}, r"limit alone.*weight ratio, low outgrows high"),
        ({"rule": "low overpowers", "measure": "weight ratio"}, r"measure alone"),
        (
            {"rule": "low overpowers", "measure": "weight ratio", "limit": float("nan")},
            r"limit is nan",
        ),
        ({"rule": "overtraining", "armed_from": 1.5}, r"armed_from is 1.5.*0 to 1"),
        ({"rule": "overtraining", "limits": 1}, r"rules.0.limits.*limit"),
        ({"level": "stop"}, r"rules.0.*rule"),
    ],
)
def test_what_no_rule_has_is_refused_with_what_can_be(wish, says):
    with pytest.raises(UserError, match=f"(?s){says}"):
        edited_plan(TrainingPlan(), {"rules": [wish]})
