"""Saved plans: whole, never over another, never outside their folder."""

import json
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.plans.budget import plan_for
from tandem_wan.training.plans.compare import compare_plans
from tandem_wan.training.plans.files import load_plan, plan_names, plan_path, save_plan
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.reading import plan_json
from tandem_wan.wan.errors import UserError

COUNTS = Counts(16, 16.0, 0.0)


def test_a_saved_plan_is_loaded_as_it_was(tmp_path):
    folder = tmp_path / "not there yet"
    plan = plan_for(COUNTS, "motion 4x")
    path = save_plan(folder, "swim", plan)
    assert path == folder / "swim.json"
    assert load_plan(folder, "swim") == plan
    assert plan_names(folder) == ["swim"]
    assert json.loads(path.read_text())["steps"] == 2200


def test_another_plan_under_the_same_name_gets_a_number_and_an_equal_one_does_not(tmp_path):
    plans = [replace(TrainingPlan(), steps=steps) for steps in (1, 2, 3)]
    paths = [save_plan(tmp_path, "my plan", plan) for plan in plans]
    assert [p.name for p in paths] == ["my plan.json", "my plan_2.json", "my plan_3.json"]
    before = {p: p.stat().st_mtime_ns for p in paths}
    assert [save_plan(tmp_path, "my plan", plan) for plan in plans] == paths
    assert {p: p.stat().st_mtime_ns for p in paths} == before
    assert [load_plan(tmp_path, p.stem) for p in paths] == plans


def test_a_file_that_is_no_plan_is_not_overwritten_either(tmp_path):
    (tmp_path / "mine.json").write_bytes(b"\xff not text")
    assert save_plan(tmp_path, "mine", TrainingPlan()).name == "mine_2.json"
    assert (tmp_path / "mine.json").read_bytes() == b"\xff not text"


def test_saving_at_the_same_time_loses_none(tmp_path):
    plans = [replace(TrainingPlan(), steps=steps) for steps in range(1, 9)]
    threads = [threading.Thread(target=save_plan, args=(tmp_path, "x", plan)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {load_plan(tmp_path, name).steps for name in plan_names(tmp_path)}
    assert found == set(range(1, 9))


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        save_plan(tmp_path, "x", TrainingPlan())
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock" and p.name != ".lock"] == []


@pytest.mark.parametrize(
    "name", ["../out", "a/b", "a\\b", "", " ", ".", "..", "con", "x" * 200, "a:b", "/etc/passwd"]
)
def test_a_name_cannot_leave_the_folder(tmp_path, name):
    for action in (
        lambda: save_plan(tmp_path, name, TrainingPlan()),
        lambda: load_plan(tmp_path, name),
    ):
        with pytest.raises(UserError, match="The plan's name is"):
            action()
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=100))
def test_whatever_the_name_the_file_lies_in_the_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    try:
        path = plan_path(folder, name)
    except UserError:
        return
    assert path.parent == folder and path.resolve().parent == folder.resolve()


def test_a_plan_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    with pytest.raises(UserError, match="There is none yet"):
        load_plan(tmp_path, "x")
    save_plan(tmp_path, "swim", TrainingPlan())
    with pytest.raises(UserError, match=r"No plan is saved as 'x'\. There are swim\."):
        load_plan(tmp_path, "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "broken.json: The plan is not JSON"),
        ('{"version": 1, "stepz": 3}', "broken.json: The plan has stepz.*Is steps meant"),
        ('{"version": 9}', "broken.json: The plan has version 9"),
    ],
)
def test_a_file_that_is_no_plan_is_named(tmp_path, text, said):
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(UserError, match=said):
        load_plan(tmp_path, "broken")


def test_hidden_files_are_not_offered(tmp_path):
    save_plan(tmp_path, "b", TrainingPlan())
    (tmp_path / ".half.json").write_text(plan_json(TrainingPlan()))
    assert plan_names(tmp_path) == ["b"]


def test_two_plans_are_compared_value_by_value_with_their_reasons():
    ours = plan_for(COUNTS, "video effect")
    theirs = replace(ours, steps=2000, lora=replace(ours.lora, rank=64))
    text = compare_plans(ours, theirs, COUNTS)
    assert text.startswith("2 values differ.")
    assert "steps: 160 in a, 2000 in b" in text
    assert "  a: 20 epochs: first signs at 5" in text
    assert "  b: the preset has 160 (set by hand)" in text
    assert "b has more steps: a stronger effect, and more danger of overtraining" in text
    assert "lora.rank: 32 in a, 64 in b" in text
    assert "Plan b:" in text and "250 epochs are 12.5 times the optimum" in text
    assert "250 epochs" not in compare_plans(ours, theirs)
    assert compare_plans(ours, replace(ours, notes=("x",))).startswith("The plans are equal")


def test_a_difference_is_the_other_way_round_when_the_plans_are():
    ours = plan_for(COUNTS, "character")
    theirs = replace(ours, shift=8.0, allow_long=True)
    assert "b has a higher shift" in compare_plans(ours, theirs)
    assert "a has a higher shift" in compare_plans(theirs, ours)
    assert "allow_long: off in a, on in b" in compare_plans(ours, theirs)
