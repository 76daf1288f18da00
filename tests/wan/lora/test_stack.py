"""Rows of a stack: what can stand in them, and which expert a file is for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.stack import (
    LoraStack,
    Row,
    decide_route,
    expert_in_name,
    parse_rows,
    rows_json,
)

GOOD = {"lora": "x.safetensors"}


@given(
    st.lists(
        st.builds(
            Row,
            lora=st.text(min_size=1).filter(lambda text: text.strip()),
            lora_low=st.none() | st.text(),
            on=st.booleans(),
            high=st.floats(-2, 2),
            low=st.floats(-2, 2),
            route=st.sampled_from(["auto", "both", "high", "low"]),
            kind=st.none() | st.text(),
        )
    ).map(tuple)
)
def test_rows_survive_their_text(rows):
    assert parse_rows(rows_json(rows)) == rows


def test_a_row_needs_only_its_lora():
    assert parse_rows('[{"lora": "x.safetensors"}]') == (
        Row(lora="x.safetensors", lora_low=None, on=True, high=1.0, low=1.0, route="auto"),
    )


def test_no_text_is_an_empty_stack():
    assert parse_rows("") == parse_rows("[]") == ()


@pytest.mark.parametrize(
    ("entry", "says", "remedy"),
    [
        ({**GOOD, "strenght": 1.0}, "has strenght", "spelling"),
        ({"high": 1.0}, "names no LoRA", "Add it"),
        ({"lora": " "}, "names no LoRA", "Add it"),
        ({"lora": 3}, "names no LoRA", "Add it"),
        ({**GOOD, "high": "strong"}, "high is 'strong'", "Change it"),
        ({**GOOD, "low": None}, "low is None", "Change it"),
        ({**GOOD, "high": True}, "high is True", "Change it"),
        ({**GOOD, "high": float("nan")}, "high is nan", "Change it"),
        ({**GOOD, "low": float("inf")}, "low is inf", "Change it"),
        ({**GOOD, "on": "yes"}, "on is 'yes'", "Change it"),
        ({**GOOD, "on": 1}, "on is 1", "Change it"),
        ({**GOOD, "lora_low": 5}, "lora_low is 5", "Change it"),
        ({**GOOD, "kind": ["style"]}, "kind is ['style']", "Change it"),
        ({**GOOD, "route": "upper"}, "route is 'upper'", "Choose one of them"),
        ({**GOOD, "route": None}, "route is None", "Choose one of them"),
        ({**GOOD, "schedule": "1@0"}, "schedule is set", "Set schedule to null"),
        ({**GOOD, "schedule_low": "1@0"}, "schedule_low is set", "Set schedule_low to null"),
        ({**GOOD, "blend": {}}, "blend is set", "Set blend to null"),
        ("x.safetensors", "is 'x.safetensors'", "For example"),
        (["x.safetensors"], "is ['x.safetensors']", "For example"),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_an_error_names_the_row_and_the_fix(entry, says, remedy, number):
    rows = [GOOD] * (number - 1) + [entry]
    with pytest.raises(UserError) as caught:
        parse_rows(json.dumps(rows))
    assert caught.value.came.startswith(f"Row {number}")
    assert says in caught.value.came
    assert remedy in caught.value.to_do


@pytest.mark.parametrize("text", ["{", '{"lora": "x"}', '"x"', "5", "null"])
def test_text_that_is_no_list_of_rows_gets_an_example_that_works(text):
    with pytest.raises(UserError, match="It is a list of rows") as caught:
        parse_rows(text)
    example = caught.value.to_do.removeprefix("For example: ")
    assert parse_rows(example)[0].lora_low == "x_low_noise.safetensors"


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        ("style_hero", None),
        ("style_light", None),
        ("highway", None),
        ("lowway", None),
        ("slow_motion", None),
        ("follow", None),
        ("yellow", None),
        ("wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise", "high"),
        ("wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise", "low"),
        ("Wan22-I2V-A14B-HIGH-x", "high"),
        ("Wan22-I2V-A14B-LOW-x", "low"),
        ("foo_HN", "high"),
        ("foo_LN", "low"),
        ("HN.v2", "high"),
        ("dance_high_noise_000001000", "high"),
        ("dance high noise", "high"),
        ("dance-LowNoise-v3", "low"),
        ("T2V_HighNoise", "high"),
        ("foo_hn", None),
        ("John", None),
        ("VLN", None),
        ("style_low_poly", None),
        ("high_quality_v2", None),
        ("my_lora_high", "high"),
        ("my-lora-low-v2", "low"),
        ("high_to_low", None),
        ("high_noise_and_low_noise", None),
        ("HN_LN_merged", None),
        ("high_LN", None),
        ("", None),
    ],
)
def test_a_file_name_speaks_of_an_expert_only_in_whole_words(name, expert):
    assert expert_in_name(f"{name}.safetensors") == expert
    assert expert_in_name(f"wan/{name}.safetensors") == expert


def test_a_folder_says_nothing_about_its_files():
    assert expert_in_name("high_noise/style.safetensors") is None
    assert expert_in_name("high\\style_low_noise.safetensors") == "low"


@pytest.mark.parametrize(
    ("row", "metadata_expert", "route", "reason"),
    [
        (Row(lora="a_high_noise", route="low"), "high_noise", "low", "route is low"),
        (Row(lora="a_high_noise", route="both"), "high_noise", "both", "route is both"),
        (Row(lora="a_high_noise"), "low_noise", "low", "its metadata says low_noise"),
        (Row(lora="a"), "high_noise", "high", "its metadata says high_noise"),
        (Row(lora="a_high_noise"), None, "high", "its name says high"),
        (Row(lora="a_LN"), None, "low", "its name says low"),
        (Row(lora="a_high_noise"), "single", "high", "its name says high"),
        (Row(lora="a"), "single", "both", "neither"),
        (Row(lora="a"), None, "both", "neither"),
    ],
)
def test_a_route_by_hand_wins_then_metadata_then_the_name(row, metadata_expert, route, reason):
    decided, why = decide_route(row, metadata_expert)
    assert decided == route
    assert reason in why


def test_one_stack_on_another_keeps_the_order_and_names_a_trigger_once():
    first = LoraStack((Row(lora="a"), Row(lora="b", on=False)), ("MERMAID", "ANIME"))
    second = LoraStack((Row(lora="c"),), ("NOIR", "MERMAID"))
    both = first.then(second)
    assert [row.lora for row in both.rows] == ["a", "b", "c"]
    assert both.triggers == ("MERMAID", "ANIME", "NOIR")
    assert [row.lora for row in both.active()] == ["a", "c"]
