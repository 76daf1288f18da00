"""Rows as flat inputs: the same rows as JSON, a misspelt one refused, links left open."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.flat_rows import LINKED, flat_rows
from tandem_wan.wan.lora.rows import Blend, Row, parse_rows, row_entry

NAMES = st.text(min_size=1).filter(lambda text: text.strip() and text.strip().lower() != "none")
ROWS = st.builds(
    Row,
    lora=NAMES,
    lora_low=st.none() | NAMES,
    on=st.booleans(),
    high=st.floats(-2, 2),
    low=st.floats(-2, 2),
    route=st.sampled_from(["auto", "both", "high", "low"]),
    kind=st.none() | st.just("style"),
    schedule=st.none() | st.just("0.2 -> 1"),
    blend=st.none() | st.builds(Blend, lora=NAMES, share=st.floats(0, 1)),
)


@given(st.lists(ROWS).map(tuple), st.randoms())
def test_flat_inputs_in_any_order_are_the_rows_of_the_json(rows, random):
    inputs = [
        (f"loras.{3 * n}.{key}", value)
        for n, row in enumerate(rows)
        for key, value in row_entry(row).items()
    ]
    random.shuffle(inputs)
    assert flat_rows(dict(inputs)) == rows == parse_rows(json.dumps([row_entry(r) for r in rows]))


def test_the_hosts_own_row_is_understood():
    inputs = {
        "loras.0.lora_name": "x",
        "loras.0.strength": 0.6,
        "loras.0.enabled": True,
        "loras.2.lora_name": "y",
        "loras.2.strength": "0.5",
        "loras.2.enabled": 0,
        "loras.10.lora_name": "z",
    }
    assert flat_rows(inputs) == (
        Row(lora="x", high=0.6, low=0.6),
        Row(lora="y", high=0.5, low=0.5, on=False),
        Row(lora="z"),
    )


def test_an_empty_widget_is_not_given():
    inputs = {
        "loras.0.lora": "x",
        "loras.0.lora_low": "",
        "loras.0.schedule": "",
        "loras.0.kind": "",
        "loras.0.blend": "",
        "loras.1.lora_name": "None",
        "loras.1.strength": 1.0,
        "loras.2.lora": " ",
        "$$node-text-preview": "text",
    }
    assert flat_rows(inputs) == (Row(lora="x"),)


@pytest.mark.parametrize(
    "blend",
    [
        {"loras.0.blend": '{"lora": "y", "share": 0.3}'},
        {"loras.0.blend": {"lora": "y", "share": 0.3}},
        {"loras.0.blend.lora": "y", "loras.0.blend.share": "0.3", "loras.0.blend.lora_low": ""},
        {"loras.0.blend": None, "loras.0.blend.lora": "y", "loras.0.blend.share": 0.3},
        {"loras.0.blend.share": 0.3, "loras.0.blend": "", "loras.0.blend.lora": "y"},
        {"loras.0.blend": '{"lora": "y", "share": 0.3}', "loras.0.blend.lora_low": None},
    ],
)
def test_a_blend_is_json_or_inputs_of_its_own(blend):
    rows = flat_rows({"loras.0.lora": "x", **blend})
    assert rows == (Row(lora="x", blend=Blend(lora="y", share=0.3)),)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"loras.1.lora": "x", "loras.1.strenght": 1}, r"Row loras\.1 has strenght\..*A row can have.*spelling"),
        ({"loras.0.strength": 1}, r"Row loras\.0 names no LoRA.*Add it"),
        ({"lora.0.lora": "x"}, r"There is an input 'lora\.0\.lora'\..*loras\.N\.FIELD.*spelling"),
        ({"row": "[]"}, r"There is an input 'row'\..*rows and stack"),
        ({"loras.x.lora": "x"}, r"There is an input 'loras\.x\.lora'"),
        ({"loras.0.lora": "x", "loras.0.lora_name": "y"}, r"Row loras\.0 gives lora twice.*Keep lora"),
        ({"loras.0.lora": "x", "loras.0.on": True, "loras.0.enabled": True}, r"gives on twice"),
        ({"loras.0.lora": "x", "loras.0.strength": "strong"}, r"Row loras\.0: high is 'strong'"),
        ({"loras.0.lora": "x", "loras.0.on": "yes"}, r"Row loras\.0: on is 'yes'"),
        ({"loras.0.lora": "x", "loras.0.route": "up"}, r"Row loras\.0: route is 'up'.*auto, both"),
        ({"loras.0.lora": "x", "loras.0.schedule": "fast"}, r"Row loras\.0, schedule: The strength schedule"),
        ({"loras.0.lora": "x", "loras.0.blend": "{"}, r"Row loras\.0: blend is not JSON"),
        ({"loras.0.lora": "x", "loras.0.blend.shar": 1}, r"Row loras\.0: blend has shar"),
        ({"loras.0.lora": "x", "loras.0.lora.x": 1}, r"Row loras\.0 has lora\.x"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("links_open", [True, False])
def test_what_is_wrong_is_named_with_its_row_and_the_fix(inputs, says, links_open):
    with pytest.raises(UserError, match=says):
        flat_rows(inputs, links_open=links_open)


@pytest.mark.parametrize("field", ["lora", "lora_low", "share"])
@pytest.mark.parametrize("whole", ['{"lora": "y"}', {"lora": "y"}])
@pytest.mark.parametrize("whole_first", [True, False])
def test_a_blend_is_not_both_one_input_and_inputs_of_its_own(field, whole, whole_first):
    parts = [("loras.0.blend", whole), (f"loras.0.blend.{field}", "z")]
    inputs = {"loras.0.lora": "x", **dict(parts if whole_first else parts[::-1])}
    says = rf"Row loras\.0 has blend and blend\.{field}\..*one input.*Put {field} into blend"
    with pytest.raises(UserError, match=says):
        flat_rows(inputs)


def test_a_link_is_open_when_a_prompt_is_queued_and_must_have_come_when_it_runs():
    inputs = {
        "loras.0.lora": None,
        "loras.0.strength": None,
        "loras.1.lora": "x",
        "loras.1.high": None,
        "loras.1.blend.lora": None,
        "loras.1.blend.share": 0.3,
    }
    assert flat_rows(inputs, links_open=True) == (Row(lora="x"),)
    with pytest.raises(UserError, match=r"Row loras\.0 names no LoRA"):
        flat_rows(inputs)
    with pytest.raises(UserError, match=r"Row loras\.0: route is 'up'"):
        flat_rows({**inputs, "loras.0.route": "up"}, links_open=True)
    come = {**inputs, "loras.0.lora": "a", "loras.0.strength": 0.5, "loras.1.blend.lora": "b"}
    assert flat_rows(come) == (
        Row(lora="a", high=0.5, low=0.5),
        Row(lora="x", blend=Blend(lora="b", share=0.3)),
    )


@pytest.mark.parametrize("links_open", [True, False])
def test_no_name_of_a_file_stands_for_a_link(links_open):
    row = Row(lora=LINKED, blend=Blend(lora=LINKED))
    inputs = {"loras.0.lora": LINKED, "loras.0.blend.lora": LINKED}
    assert flat_rows(inputs, links_open=links_open) == (row,)


def test_five_hundred_rows_are_read_in_a_second():
    inputs = {
        f"loras.{n}.{key}": v for n in range(500) for key, v in row_entry(Row(lora="x")).items()
    }
    began = time.perf_counter()
    assert len(flat_rows(inputs)) == 500
    assert time.perf_counter() - began < 1
