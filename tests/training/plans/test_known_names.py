"""A wrong name or text is answered with what is meant, first, and with an example."""

import json

import pytest
from tandem_wan.training.plans.changes import check_changes, edited_plan
from tandem_wan.training.plans.examples import EXAMPLES
from tandem_wan.training.plans.known_names import _ALIASES, all_names
from tandem_wan.training.plans.plan import LISTS, PARTS, TrainingPlan
from tandem_wan.training.plans.reading import part_value, plan_json, read_plan
from tandem_wan.wan.errors import UserError


def refusal(changes: dict) -> UserError:
    with pytest.raises(UserError) as refused:
        check_changes(changes)
    return refused.value


def reading(text: str) -> UserError:
    with pytest.raises(UserError) as refused:
        read_plan(text)
    return refused.value


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("keep_checkpoints", "prune.last"),
        ("rate_high", "high.rate"),
        ("rate_low", "low.rate"),
        ("rank", "lora.rank"),
        ("learning_rate", "high.rate"),
        ("lr", "high.rate"),
        ("lr_high", "high.rate"),
        ("low.lr", "low.rate"),
        ("high.learning-rate", "high.rate"),
        ("gradient_accumulation", "accumulate"),
        ("gradient_accumulation_steps", "accumulate"),
        ("network_dim", "lora.rank"),
        ("network_alpha", "lora.alpha"),
        ("lora.dim", "lora.rank"),
        ("blocks_to_swap", "swap_blocks"),
        ("max_train_steps", "steps"),
        ("num_epochs", "steps"),
        ("weight_decay", "optimizer.weight_decay"),
        ("stepz", "steps"),
    ],
)
def test_a_name_of_another_place_is_answered_first_with_what_it_is_called_here(name, meant):
    told = refusal({name: 1})
    assert told.can_be.startswith(f"Is {meant} meant? ") and "There are " in told.can_be
    values = json.loads(plan_json(TrainingPlan()))
    part, _, inner = name.rpartition(".")
    (values[part] if part else values)[inner] = 1
    assert reading(json.dumps(values)).can_be.startswith(f"Is {meant} meant? ")


def test_a_rate_is_asked_for_both_experts_and_epochs_say_where_they_are_set():
    assert "Is high.rate meant? Or low.rate?" in refusal({"lr": 1}).can_be
    assert "Tandem Plan Form" in refusal({"epochs": 1}).can_be


def test_whatever_is_meant_is_a_name_that_there_is():
    known = all_names()
    assert len(set(known)) == len(known) and not set(_ALIASES) & set(known)
    assert all(name in known for names in _ALIASES.values() for name in names)


def test_every_widget_of_the_form_has_its_name_here():
    widgets = ("rank", "alpha", "dropout", "rate_high", "rate_low", "epochs", "keep_checkpoints")
    assert all(name in _ALIASES for name in widgets)


@pytest.mark.parametrize("name", [*PARTS, *LISTS])
def test_the_example_of_a_part_is_one_that_can_be_read(name):
    part_value(name, json.loads(EXAMPLES[name]))
    wrong = refusal({name: "something"})
    assert wrong.came == f"{name} is something." and EXAMPLES[name] in wrong.can_be


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha_phases": [8, 16]}, 'an object of settings such as {"alphas": [8, 14, 20]}'),
        ({"patterns": ".*ffn.*"}, '"rank": 8}]'),
        ({"patterns": [".*ffn.*"]}, r'such as {"pattern": "blocks\\.\\d+\\.ffn\\..*", "rank": 8}'),
        (
            {"rules": {"rule": "overtraining"}},
            'such as [{"rule": "overtraining", "level": "stop"}]',
        ),
        ({"lora.targets": ".*"}, r'a list of texts such as ["blocks\\.\\d+\\.ffn\\..*"]'),
        ({"steps": "many"}, "a whole number"),
        ({"lora": {"rnak": 1}}, "Is lora.rank meant?"),
        ({"patterns": [{"pattern": "("}]}, "patterns has '('"),
        ({"lora.targets": ["("]}, "lora.targets has '('"),
        ({"low": {"targets": ["["]}}, "low.targets has '['"),
        ({"alpha_phases": {"targets": ["*"]}}, "alpha_phases.targets has '*'"),
    ],
)
def test_a_value_of_another_kind_and_a_broken_pattern_are_refused_before_there_is_a_plan(
    changes, words
):
    assert words in str(refusal(changes))


def test_what_a_plan_has_may_be_given_back_to_it():
    values = json.loads(plan_json(TrainingPlan()))
    del values["version"]
    check_changes(values)


@pytest.mark.parametrize(
    ("text", "place", "cause"),
    [
        ('{"steps": 3,}', "line 1, column", "no comma follows the last value"),
        ('{\n "steps": 3\n "batch": 2}', "line 3, column 2", "a comma between two values"),
        ("{steps: 3}", "line 1, column 2", "names stand in double quotes"),
        ('{"steps": True}', "line 1, column 11", "true, false or null"),
        ('{"steps" 3}', "line 1, column 10", "a colon stands"),
        ('{"lora": {"targets": ["blocks\\.0"]}}', "line 1, column", "is typed twice"),
        ('{"steps": 3} more', "line 1, column 14", "behind the end"),
        ("{", "line 1, column 2", "double quotes"),
    ],
)
def test_text_that_is_no_json_is_answered_with_line_column_and_cause(text, place, cause):
    told = reading(text).came
    assert told.startswith("The plan is not JSON (") and place in told and cause in told


def test_two_edits_are_one_note():
    once = edited_plan(TrainingPlan(notes=("why",)), {"steps": 5, "high.rate": 0.1})
    twice = edited_plan(once, {"lora.rank": 8, "steps": 6})
    assert twice.notes == ("why", "Changed by hand: steps, high.rate, lora.rank.")
    assert edited_plan(twice, {}).notes == twice.notes
