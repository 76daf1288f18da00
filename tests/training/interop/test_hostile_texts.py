"""Texts that would keep a parser busy, or break a number: each is an error in three parts, and at once."""

from __future__ import annotations

import json
import time
from itertools import accumulate, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.interop import documents, tables
from tandem_wan.training.interop.documents import LONGEST
from tandem_wan.training.interop.plans import import_plan
from tandem_wan.training.interop.report import import_report
from tandem_wan.training.plans.checks import LONGEST_RUN
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.wan.errors import UserError

MOST_S = 3.0
"""A parser that is led astray takes 4 to 50 s; what is bounded takes 0.4 s at most, on a machine that is free."""


def long(make):
    """As many units as a text may have."""
    lengths = accumulate(len(make(n)) for n in range(LONGEST))
    return "".join(
        make(n) for n, _ in enumerate(takewhile(lambda sum_: sum_ < LONGEST - 100, lengths))
    )


DEEP = ".".join("abcdefghij")
SLOW = {
    "dotted keys of ten parts": long(lambda n: f"{DEEP}.k{n}=1\n"),
    "dotted keys of four parts in an array's table": "[[a]]\n" + long(lambda n: f"b.c.d.e{n}=1\n"),
    "dotted keys inline": "x = {" + long(lambda n: f"{DEEP}.k{n}=1, ") + "z=1}",
    "headers of ten parts out of order": long(lambda n: f"[{DEEP}.k{n}]\n[b{n}]\n"),
    "dotted keys behind a quoted quote": 'a = "\\"" # """"\n' + long(lambda n: f"{DEEP}.k{n}=1\n"),
    "dotted keys behind four quotes": 'x = ["""a"""", {' + long(lambda n: f"{DEEP}.k{n}=1, ") + "}]",
    "quoted quotes": long(lambda _: '\\"""'),
    "quotes never closed": 'a = "' + long(lambda _: '\\"'),
    "brackets beside quoted ones": "a: " + long(lambda _: "[']',"),
    "braces beside quoted ones": "a: " + long(lambda _: "{']': [']', "),
    "brackets beside ones in comments": "a: " + long(lambda _: "[ # ]\n "),
    "lists in a row": long(lambda _: "- " * 29 + "x\n"),
    "one long list": "a: [" + long(lambda _: "a,"),
    "a number of base 60": "a: " + long(lambda _: "1:") + "1",
    "quotes in a command": "--dit " + long(lambda _: '"a" ') + '"',
    "many commands": long(lambda _: "wan_train_network.py --dit\n"),
    "many files": long(lambda n: f"# file: a{n}\n--dit\n"),
}  # fmt: skip


@pytest.mark.parametrize("toml", ["as it is", "without tomllib"])
@pytest.mark.parametrize("name", SLOW)
def test_a_text_that_leads_a_parser_astray_is_refused_at_once(name, toml, monkeypatch):
    if toml == "without tomllib":
        monkeypatch.setattr(tables, "tomllib", None)
    began = time.perf_counter()
    with pytest.raises(UserError) as caught:
        import_plan([SLOW[name]], clips=16)
    assert time.perf_counter() - began < MOST_S
    assert len(str(caught.value)) < 800


def test_a_text_is_parsed_once_for_the_queue_and_for_the_run(monkeypatch):
    seen = []
    monkeypatch.setattr(documents, "read_tables", lambda *_: seen.append(1) or {"directory": []})
    for _ in range(2):
        documents.read_documents(["parsed = 'once'"])
    assert len(seen) == 1


@pytest.mark.parametrize("toml", ["as it is", "without tomllib"])
def test_dots_in_texts_comments_and_numbers_are_no_long_keys(toml, monkeypatch):
    if toml == "without tomllib":
        monkeypatch.setattr(tables, "tomllib", None)
    text = '# a.b.c.d.e.f = 1\npath = \'a.b.c.d.e.f = 1\'\nmore = """\na.b.c.d.e.f = 1\n"""\n'
    text += "numbers = [" + "0.5, " * 300 + "]\nmodel.shift = 3.0\n"
    assert tables.read_tables("text", text)["model"] == {"shift": 3.0}


HUGE = "0x" + "F" * 6000
AI = "job: x\nconfig:\n  process:\n  - {train: {steps: 5}, %s}\n"
DP = "micro_batch_size_per_gpu = 1\nmax_steps = 5\n"
NUMBERS = {
    "steps": f"{DP.replace('5', HUGE)}",
    "unknown key": f"{DP}foo = {HUGE}",
    "a list": f"{DP}[optimizer]\nbetas = [1, {HUGE}]",
    "YAML's value": AI % f"foo: {HUGE}",
    "YAML's key": AI % f"{HUGE}: 1",
    "base 60": AI % ("seed: " + "1:" * 20_000 + "1"),
    "base 60 with a fraction": AI % ("seed: " + "1:" * 20_000 + "1.5"),
    "decimal": AI % ("seed: " + "9" * 6000),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_cannot_be_printed_are_errors_of_the_user(name):
    with pytest.raises(UserError) as caught:
        import_report(import_plan([NUMBERS[name]], clips=16), None)
    assert len(str(caught.value)) < 800


def test_a_number_of_5000_digits_in_the_comment_is_a_damaged_comment():
    for value in ("9" * 5000, "9" * 100):
        found = import_plan([f'{DP}# tandem: {{"plan": {{"steps": {value}}}}}\n'])
        assert found.plan.steps == 5
        assert any("damaged" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("--dit x --max_train_steps 1000000000", "at most 1,000,000"),
        ("--dit x --max_train_steps 9000000000000000", "at most 1,000,000"),
        ("--dit x --max_train_epochs 1e15", "at most 1,000,000"),
        ("--dit x --max_train_epochs 1e300", "at most 1,000,000"),
        ("epochs = 1e308\nmicro_batch_size_per_gpu = 1\n", "at most 1,000,000"),
        ("epochs = 0\nmicro_batch_size_per_gpu = 1\n", "above 0"),
        ("epochs = -20\nmicro_batch_size_per_gpu = 1\n", "above 0"),
        ("--dit x --max_train_epochs 0", "above 0"),
    ],
)
def test_a_run_without_end_or_beginning_is_refused(text, says):
    began = time.perf_counter()
    with pytest.raises(UserError, match=says):
        import_plan([text], clips=16)
    assert time.perf_counter() - began < MOST_S


def test_an_upper_bound_of_epochs_beyond_all_steps_does_not_count():
    found = import_plan(["epochs = 1e308\nmax_steps = 7\nmicro_batch_size_per_gpu = 1\n"], clips=16)
    assert found.plan.steps == 7


def test_saving_each_so_many_epochs_ends_somewhere():
    text = "epochs = 2\nsave_every_n_epochs = 1e308\nmicro_batch_size_per_gpu = 1\n"
    assert import_plan([text], counts=Counts(16, 16.0, 0.0)).plan.save_every == LONGEST_RUN


def test_the_longest_plan_is_a_plan_and_one_step_more_is_not():
    assert TrainingPlan(steps=LONGEST_RUN).steps == 1_000_000
    with pytest.raises(UserError, match=r"steps is 1000001. It can be at most 1,000,000"):
        TrainingPlan(steps=LONGEST_RUN + 1)


@pytest.mark.parametrize("repeats", ["0", "-3", "1e7", "1e300"])
@pytest.mark.parametrize(
    "text",
    [
        DP + "# file: data\nframe_buckets = [1]\n[[directory]]\npath = 'x'\nnum_repeats = %s",
        "--dit x --max_train_steps 5\n# file: data\n[[datasets]]\nvideo_directory = 'x'\nnum_repeats = %s",
        AI % "datasets: [{folder_path: x, num_repeats: %s}]",
    ],
)
def test_repeats_are_above_0(text, repeats):
    with pytest.raises(UserError, match=r"num_repeats in .* is .* above 0, up to 1,000,000"):
        import_plan([text % repeats], clips=16)


def test_repeats_in_the_comment_are_above_0_too():
    rows = [{"folder": "x", "keep": {"repeats": 0}, "seen": {"repeats": 1.0}}]
    data = "frame_buckets = [1]\nresolutions = [512]\n[[directory]]\npath = 'x'\n"
    found = import_plan([DP, f"# tandem: {json.dumps({'dataset': rows})}\n{data}"], clips=16)
    assert found.parts[0].repeats == 1.0
    assert any("repeats = 0, which was not used" in note for note in found.notes)


@settings(max_examples=150)
@given(st.text("ab.=[]{}\"'\\#:,-&*| \n01", max_size=80))
def test_any_few_signs_give_a_plan_or_a_user_error(text):
    for whole in (text, f"{DP}{text}", f"--dit x {text}"):
        try:
            import_plan([whole], clips=4)
        except UserError as error:
            assert error.to_do
