"""Plans survive their text, and refuse by name what they do not know or cannot do."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from tandem_wan.dev.plan_strategies import plans
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.plans import reading as plans_module
from tandem_wan.training.plans.changes import (
    differing_values,
    edited_plan,
    length_changes,
    plan_differences,
    plan_values,
    rank_changes,
    rate_changes,
)
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.presets import PRESETS
from tandem_wan.training.plans.reading import plan_json, read_plan
from tandem_wan.training.plans.settings import ExpertSettings, LoraSettings
from tandem_wan.wan.errors import UserError


@given(plans())
def test_a_plan_survives_its_text(plan):
    assert read_plan(plan_json(plan)) == plan


def edited(**changes) -> str:
    """The default plan's text with values changed; `lora__rank` reaches into a part."""
    values = json.loads(plan_json(TrainingPlan()))
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = values
        for parent in parents:
            place = place[parent]
        place[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("stepz", "stepz"),
        ("lora__rnak", "lora.rnak"),
        ("optimizer__beta1", "optimizer.beta1"),
        ("high__min_lr", "high.min_lr"),
        ("low__max_lr", "low.max_lr"),
    ],
)
def test_an_unknown_key_is_refused_by_its_full_name(key, named):
    with pytest.raises(UserError) as caught:
        read_plan(edited(**{key: 1}))
    assert caught.value.came == f"The plan has {named}."
    assert "Known here: " in caught.value.can_be


@pytest.mark.parametrize(
    ("part", "later"),
    [
        ("lora", ["dtype"]),
        ("optimizer", ["ema"]),
        ("high", ["schedule", "warmup", "cycles", "beta2", "clip"]),
        ("low", ["schedule", "warmup", "cycles", "beta2", "clip"]),
    ],
)
def test_a_plan_from_before_a_setting_was_there_has_its_default(part, later):
    values = json.loads(edited(steps=7))
    for name in later:
        del values[part][name]
    assert read_plan(json.dumps(values)) == TrainingPlan(steps=7)


def test_an_unknown_key_is_answered_with_the_nearest_that_there_is():
    with pytest.raises(UserError) as caught:
        read_plan(edited(lora__rnak=1))
    assert caught.value.can_be.startswith("Is lora.rank meant? Known here: rank, ")


def test_all_unknown_keys_are_named_at_once():
    with pytest.raises(UserError, match=r"The plan has epochz, stepz\."):
        read_plan(edited(stepz=1, epochz=2))


IMPOSSIBLE = [
    *((name, value) for name in ("steps", "batch", "accumulate") for value in (0, -1)),
    *((name, 0) for name in ("swap_every", "save_every", "lora__rank")),
    ("lora__alpha", 0.0),
    ("shift", 0.0),
    ("lora__dropout", 1.0),
    ("lora__dropout", -0.1),
    ("boundary", 0.0),
    ("boundary", 1.0),
    ("boundary", 900.0),
    ("family", "wan 3"),
    ("train", "middle"),
    ("high__rate", 0.0),
    ("low__rate", -1e-4),
    ("low__rate", float("nan")),
    ("optimizer__clip", 0.0),
    ("optimizer__beta2", 1.0),
    ("optimizer__beta2", -0.1),
    ("shift", float("nan")),
    ("high__bump", float("nan")),
    ("low__maximum", float("inf")),
    ("low__minimum", -1e-6),
    ("shift", float("inf")),
    ("high__rate", float("inf")),
    ("lora__alpha", float("inf")),
    ("caption_dropout", 1.0),
    ("lora__dtype", "float16"),
    ("optimizer__ema", 1.0),
    ("optimizer__ema", -0.1),
    ("high__schedule", "step"),
    ("low__warmup", -1),
    ("low__cycles", 0),
    ("high__beta2", 1.0),
    ("low__clip", 0.0),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_with_what_it_can_be(name, value):
    with pytest.raises(UserError) as caught:
        read_plan(edited(**{name: value}))
    dotted = name.replace("__", ".")
    assert caught.value.came == f"{dotted} is {value}."
    assert caught.value.to_do == f"Change {dotted} in the plan."


def test_a_smallest_rate_above_the_largest_is_refused_with_both():
    values = {"high__minimum": 2e-3, "high__maximum": 1e-3}
    with pytest.raises(
        UserError, match=r"high\.minimum is 0\.002\..*high\.maximum, which is 0\.001"
    ):
        read_plan(edited(**values))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", "many"),
        ("steps", 2.5),
        ("steps", None),
        ("batch", "1"),
        ("lora__rank", "32"),
        ("lora__alpha", "32"),
        ("lora__targets", "blocks"),
        ("high__rate", "1e-4"),
        ("low__bump", "1e-4"),
        ("shift", None),
        ("family", 2),
        ("lora", 32),
        ("high", 1e-4),
        ("optimizer", "adamw"),
        ("optimizer__clip", "1"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=name.replace("__", r"\.")):
        read_plan(edited(**{name: value}))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nonsense", "[]", "5", "null", '"plan"'])
def test_text_that_is_no_plan_is_refused(text):
    with pytest.raises(UserError, match="A plan is a JSON object"):
        read_plan(text)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_a_plan_of_another_version_is_refused_with_both(version):
    with pytest.raises(UserError, match=rf"version {version}\..*reads version 1"):
        read_plan(edited(version=version))


def test_plans_of_earlier_versions_are_carried_over_step_by_step(monkeypatch):
    """As if version 2 had renamed a key and version 3 counted another one differently."""

    def to_2(values):
        every = values.pop("checkpoint_every", 100)
        return {**values, "save_every": every}

    def to_3(values):
        return {**values, "steps": 2 * values["steps"]}

    monkeypatch.setattr(plans_module, "PLAN_VERSION", 3)
    monkeypatch.setattr(plans_module, "_MIGRATIONS", {1: to_2, 2: to_3})
    old = read_plan('{"version": 1, "steps": 7, "checkpoint_every": 5}')
    assert (old.version, old.steps, old.save_every) == (3, 14, 5)
    middle = read_plan('{"version": 2, "steps": 7, "save_every": 5}')
    assert (middle.version, middle.steps, middle.save_every) == (3, 14, 5)
    assert read_plan('{"version": 3, "steps": 7}').steps == 7
    with pytest.raises(UserError, match="checkpoint_every"):
        read_plan('{"version": 3, "checkpoint_every": 5}')
    for version in (0, 4, 1.0, True, "1", None):
        with pytest.raises(UserError, match=r"reads version 3 and, from before it, \[1, 2\]"):
            read_plan(json.dumps({"version": version}))


def test_every_step_from_an_earlier_version_is_there():
    assert sorted(plans_module._MIGRATIONS) == list(range(1, plans_module.PLAN_VERSION))


def test_a_plan_from_before_a_key_was_there_has_its_default():
    values = json.loads(plan_json(TrainingPlan()))
    for name in ("caption_dropout", "allow_long"):
        del values[name]
    assert read_plan(json.dumps(values)) == TrainingPlan()


def test_missing_keys_have_their_defaults():
    plan = read_plan('{"version": 1, "steps": 7, "lora": {"rank": 8}}')
    assert plan == TrainingPlan(steps=7, lora=LoraSettings(rank=8))


def test_differences_name_what_differs_and_nothing_else():
    plan = TrainingPlan()
    other = replace(plan, steps=200, high=ExpertSettings(rate=3e-4))
    assert plan_differences(plan, plan) == []
    found = plan_differences(plan, other)
    assert found[0] == "steps: 160 now, 200 before"
    assert len(found) == 2
    assert found[1] == "high.rate: 0.0001 now, 0.0003 before"
    assert plan_differences(plan, other, but={"high"}) == found[:1]


def test_a_whole_number_in_json_is_the_same_value_as_a_fraction():
    written = {"lora": {"alpha": 16}, "high": {"rate": 1, "alpha": None}, "high_share": None}
    plan = read_plan(json.dumps({"version": 1, "alpha_phases": {"alphas": [8, 14]}, **written}))
    values = json.loads(plan_json(plan))
    for number in (
        values["lora"]["alpha"],
        values["high"]["rate"],
        *values["alpha_phases"]["alphas"],
    ):
        assert isinstance(number, float)
    assert plan.high.alpha is plan.high_share is None and isinstance(plan.steps, int)


@pytest.mark.parametrize(
    ("family", "train", "roles"),
    [
        ("wan 2.2 A14B", "both", ("high_noise", "low_noise")),
        ("auto", "both", ("high_noise", "low_noise")),
        ("auto", "high", ("high_noise",)),
        ("wan 2.2 A14B", "low", ("low_noise",)),
        ("single model", "both", ("single",)),
        ("single model", "high", ("single",)),
        ("single model", "low", ("single",)),
    ],
)
def test_the_plan_says_which_experts_it_trains(family, train, roles):
    assert TrainingPlan(family=family, train=train).roles() == roles


def test_each_expert_has_its_own_rates_and_a_single_model_those_that_lead():
    fast, slow = ExpertSettings(rate=2e-4), ExpertSettings(rate=1e-5)
    motion, character = TrainingPlan(high=fast, low=slow), TrainingPlan(high=slow, low=fast)
    assert motion.rates("high_noise") == fast
    assert motion.rates("low_noise") == slow
    assert motion.rates("single") == character.rates("single") == fast


def test_an_edited_plan_has_the_changes_says_so_and_nothing_else_differs():
    plan = TrainingPlan()
    edited = edited_plan(plan, {"steps": 123, "high.rate": 0.5, "lora.rank": 7})
    assert (edited.steps, edited.high.rate, edited.lora.rank) == (123, 0.5, 7)
    assert edited.notes[-1] == "Changed by hand: steps, high.rate, lora.rank."
    undone = edited_plan(
        edited, {"steps": plan.steps, "high.rate": plan.high.rate, "lora.rank": plan.lora.rank}
    )
    assert replace(undone, notes=plan.notes) == plan
    assert edited_plan(plan, {}) == plan


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stepz": 1}, "no value called 'stepz'.*steps.*high.rate"),
        ({"high": 1}, "high is 1. It can be an object of settings"),
        ({"high.speed": 1}, "no value called 'high.speed'"),
        ({"version": 2}, "no value called 'version'"),
        ({"steps": 0}, "steps"),
        ({"lora.rank": -1}, "rank"),
    ],
)
def test_an_edit_that_makes_no_sense_names_what_it_means(changes, said):
    with pytest.raises(UserError, match=said):
        edited_plan(TrainingPlan(), changes)


@given(plans(), plans())
def test_the_differing_values_turn_one_plan_into_the_other(ours, theirs):
    changes = {d.name: d.theirs for d in differing_values(ours, theirs)}
    if "high.minimum" not in changes or "high.maximum" not in changes:
        values = plan_values(ours) | changes
        assert values == plan_values(theirs)
    turned = edited_plan(ours, changes)
    assert replace(turned, notes=()) == replace(theirs, notes=())
    assert not differing_values(ours, replace(ours, notes=("other",)))


def test_a_new_rank_takes_alpha_along_unless_it_is_given():
    plan = TrainingPlan(lora=LoraSettings(rank=64, alpha=32.0))
    assert rank_changes(plan, 16, 0.0) == {"lora.rank": 16, "lora.alpha": 8.0}
    assert rank_changes(plan, 16, 5.0) == {"lora.rank": 16, "lora.alpha": 5.0}
    assert rank_changes(plan, 0, 5.0) == {"lora.alpha": 5.0}
    assert rank_changes(plan, 0, 0.0) == {}
    own = replace(plan, low=replace(plan.low, rank=8, alpha=2.0))
    assert rank_changes(own, 0, 0.0) == {}
    edited = edited_plan(own, rank_changes(own, 16, 0.0))
    assert (edited.lora.rank, edited.low.rank, edited.low.alpha) == (16, None, None)
    assert edited_plan(own, rank_changes(own, 0, 5.0)).low == replace(own.low, alpha=None)


def test_a_new_rate_of_automagic_moves_what_was_equal_to_it():
    preset = PRESETS["motion 4x"]
    plan = TrainingPlan(high=preset.high, low=preset.low, optimizer=preset.optimizer)
    high = edited_plan(plan, rate_changes(plan, "high", 3e-5)).high
    assert high == ExpertSettings(rate=3e-5, bump=3e-5, minimum=3e-5, maximum=5e-4)
    low = edited_plan(plan, rate_changes(plan, "low", 2e-4)).low
    assert low == ExpertSettings(rate=2e-4, bump=2e-4, minimum=2e-4, maximum=2e-4)
    assert rate_changes(TrainingPlan(), "low", 2e-4) == {"low.rate": 2e-4}


def test_a_new_length_in_epochs_needs_to_know_how_much_an_epoch_shows():
    assert length_changes(2, Counts(16, 16.0, 0.0), steps=0, epochs=18.0) == {"steps": 144}
    assert length_changes(2, None, steps=5, epochs=0.0) == {"steps": 5}
    assert length_changes(2, None, steps=0, epochs=0.0) == {}
    with pytest.raises(UserError, match="no dataset is connected"):
        length_changes(2, None, steps=0, epochs=18.0)
    with pytest.raises(UserError, match="Set one of them to 0"):
        length_changes(2, Counts(16, 16.0, 0.0), steps=5, epochs=18.0)
