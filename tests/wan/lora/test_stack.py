"""Rows of a stack: what can stand in them, and which expert a file is for."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.experts import Evidence
from tandem_wan.wan.lora.kinds import KINDS
from tandem_wan.wan.lora.pairing import PairFinder
from tandem_wan.wan.lora.stack import (
    Blend,
    LoraStack,
    Row,
    alone,
    decide_route,
    expert_in_name,
    parse_rows,
    place_rows,
    rows_json,
    with_pairs,
)

GOOD = {"lora": "x.safetensors"}


NAMES = st.text(min_size=1).filter(lambda text: text.strip())
SCHEDULES = st.none() | st.sampled_from(["0.8", "0.2 -> 1", "0.2@0, 1@50%", "1@s1 | 0@s5"])


@given(
    st.lists(
        st.builds(
            Row,
            lora=NAMES,
            lora_low=st.none() | NAMES,
            on=st.booleans(),
            high=st.floats(-2, 2),
            low=st.floats(-2, 2),
            route=st.sampled_from(["auto", "both", "high", "low"]),
            kind=st.none() | st.sampled_from(list(KINDS)),
            schedule=SCHEDULES,
            schedule_low=SCHEDULES,
            blend=st.none()
            | st.builds(Blend, lora=NAMES, lora_low=st.none() | NAMES, share=st.floats(0, 1)),
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
        ({**GOOD, "high": 10**309}, "high is 1000", "Change it"),
        ({**GOOD, "low": -(10**309)}, "low is -1000", "Change it"),
        ({**GOOD, "on": "yes"}, "on is 'yes'", "Change it"),
        ({**GOOD, "on": 1}, "on is 1", "Change it"),
        ({**GOOD, "lora_low": 5}, "lora_low is 5", "Change it"),
        ({**GOOD, "lora_low": " "}, "lora_low is ' '", "Change it"),
        ({**GOOD, "kind": ["style"]}, "kind is ['style']", "Choose one of them"),
        ({**GOOD, "kind": "stile"}, "kind is 'stile'", "Choose one of them"),
        ({**GOOD, "lora_name": "x"}, "has both lora and lora_name", "Keep lora"),
        ({**GOOD, "on": True, "enabled": True}, "has both on and enabled", "Keep on"),
        ({**GOOD, "strength": "1"}, "high is '1'", "Change it"),
        ({**GOOD, "route": "upper"}, "route is 'upper'", "Choose one of them"),
        ({**GOOD, "route": None}, "route is None", "Choose one of them"),
        ({**GOOD, "schedule": "fast"}, "schedule: The strength schedule 'fast'", "for example"),
        ({**GOOD, "schedule_low": "1;0"}, "schedule_low: The strength", "schedule_low"),
        ({**GOOD, "schedule": 0.5}, "schedule is 0.5", "in quotes"),
        ({**GOOD, "blend": "y"}, "blend is 'y'", "For example"),
        ({**GOOD, "blend": {}}, "blend names no LoRA", "For example"),
        ({**GOOD, "blend": {"lora": "y", "shar": 1}}, "blend has shar", "spelling"),
        ({**GOOD, "blend": {"lora": "y", "share": 1.5}}, "blend: share is 1.5", "For example"),
        ({**GOOD, "blend": {"lora": "y", "share": True}}, "blend: share is True", "For example"),
        ({**GOOD, "blend": {"lora": "y", "share": 10**309}}, "blend: share is 1000", "For example"),
        ({**GOOD, "blend": {"lora": "y", "lora_low": 3}}, "blend: lora_low is 3", "Change it"),
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


@pytest.mark.parametrize(
    "text", ["{", '{"lora": "x"}', '"x"', "5", "null", "[" * 100_000, "9" * 5000]
)
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
        (Row(lora="a", kind="quality"), None, "low", "quality goes to low noise"),
        (Row(lora="a_high_noise", kind="quality"), None, "high", "its name says high"),
        (Row(lora="a", kind="style"), None, "both", "neither"),
        (Row(lora="a"), None, "both", "neither"),
    ],
)
def test_a_route_by_hand_wins_then_metadata_then_the_name(row, metadata_expert, route, reason):
    decided, why = decide_route(row, Evidence(metadata_expert))
    assert decided == route
    assert reason in why


@pytest.mark.parametrize(("keys", "route"), [("low_noise", "low"), ("high_noise", "high")])
def test_keys_for_one_expert_go_before_metadata_and_name(keys, route):
    other = "high_noise" if keys == "low_noise" else "low_noise"
    evidence = Evidence(other, keys)
    assert decide_route(Row(lora=f"a_{other}"), evidence) == (route, f"its keys are for {keys}")
    assert decide_route(Row(lora="a", route="both"), evidence) == ("both", "route is both")


def test_one_stack_on_another_keeps_the_order_and_names_a_trigger_once():
    first = LoraStack((Row(lora="a"), Row(lora="b", on=False)), ("MERMAID", "ANIME"))
    second = LoraStack((Row(lora="c"),), ("NOIR", "MERMAID"))
    both = first.then(second)
    assert [row.lora for row in both.rows] == ["a", "b", "c"]
    assert both.triggers == ("MERMAID", "ANIME", "NOIR")
    assert [row.lora for row in both.active()] == ["a", "c"]


def test_the_hosts_own_words_for_a_row_are_understood():
    text = '[{"lora_name": "x", "strength": 0.6, "enabled": false}]'
    assert parse_rows(text) == (Row(lora="x", high=0.6, low=0.6, on=False),)


def test_a_strength_of_one_expert_goes_before_the_strength_of_both():
    assert parse_rows('[{"low": 0.2, "lora": "x", "strength": 0.6}]') == (
        Row(lora="x", high=0.6, low=0.2),
    )


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_kind_gives_the_strengths_that_a_row_leaves_out(kind):
    usual = KINDS[kind].strength
    given = {"lora": "x", "kind": kind}
    assert parse_rows(json.dumps([given])) == (Row(lora="x", kind=kind, high=usual, low=usual),)
    assert parse_rows(json.dumps([{**given, "high": 0.1}])) == (
        Row(lora="x", kind=kind, high=0.1, low=usual),
    )


def test_half_a_blend_is_an_equal_mix():
    blended = parse_rows('[{"lora": "x", "blend": {"lora": "y"}}]')[0].blend
    assert blended == Blend(lora="y", lora_low=None, share=0.5)


PAIR = ("x_high_noise.safetensors", "x_low_noise.safetensors")
HIGH, LOW = PAIR


def _with_pairs(*rows, names=PAIR):
    return with_pairs(rows, PairFinder(names, lambda _: {}))


@pytest.mark.parametrize("named", PAIR)
def test_a_row_that_names_one_half_takes_the_other_and_says_so(named):
    (row,), (note,) = _with_pairs(Row(lora=named, high=0.8, low=0.6))
    assert row == Row(lora=HIGH, lora_low=LOW, high=0.8, low=0.6, named=named)
    assert f"Row 1: {named} takes its other half" in note
    assert "their names differ in high_noise and low_noise alone" in note


@pytest.mark.parametrize("route", ["high", "low", "both"])
def test_a_route_by_hand_takes_this_file_alone(route):
    row = Row(lora=HIGH, route=route)
    assert _with_pairs(row) == ((row,), ())


@pytest.mark.parametrize(
    "row", [Row(lora=HIGH, lora_low="other"), Row(lora=HIGH, on=False), Row(lora="style")]
)
def test_nothing_is_taken_for_a_whole_pair_a_row_that_is_off_or_a_file_without_another_half(row):
    names = (*PAIR, "style.safetensors", "other")
    assert _with_pairs(row, names=names) == ((row,), ())


@pytest.mark.parametrize("on", [True, False])
def test_halves_with_a_row_each_go_to_their_own_expert(on):
    rows, notes = _with_pairs(Row(lora=LOW), Row(lora=HIGH, on=on))
    assert rows[0] == Row(lora=LOW, route="low")
    assert rows[1] == (Row(lora=HIGH, route="high") if on else Row(lora=HIGH, on=False))
    where = "row 2." if on else "row 2, which is off."
    assert notes[0].endswith(f"its other half {HIGH} is in {where}")


@pytest.mark.parametrize("first", [True, False])
def test_a_pair_that_is_off_keeps_no_half_from_a_row_that_is_on(first):
    off, on = Row(lora=HIGH, lora_low=LOW, on=False), Row(lora=HIGH)
    rows, (note,) = _with_pairs(*((off, on) if first else (on, off)))
    assert rows[1 if first else 0] == Row(lora=HIGH, lora_low=LOW, named=HIGH)
    assert rows[0 if first else 1] == off
    assert "takes its other half" in note


def test_of_several_candidates_none_is_taken_and_all_are_named():
    names = ("wan-h-e8.safetensors", "wan-l-e8.safetensors")
    rows, (note,) = _with_pairs(Row(lora=names[0]), names=names)
    assert rows == (Row(lora=names[0]),)
    assert f"{names[0]} may belong with {names[1]}" in note
    assert "Set lora_low" in note


def test_a_blend_takes_its_other_half_too():
    blend = Blend(lora=LOW, share=0.3)
    (row,), (note,) = _with_pairs(Row(lora="style.safetensors", blend=blend))
    assert row.blend == Blend(lora=HIGH, lora_low=LOW, share=0.3, named=LOW)
    assert note.startswith("Row 1, blend:")
    assert alone(row).blend == blend


ROWS = st.builds(
    Row,
    lora=st.sampled_from([*PAIR, "wan-h.safetensors", "wan-l.safetensors", "style.safetensors"]),
    lora_low=st.none() | st.just(LOW),
    on=st.booleans(),
    route=st.sampled_from(["auto", "high", "both"]),
    blend=st.none() | st.just(Blend(lora=HIGH)),
)


@given(st.lists(ROWS, max_size=5).map(tuple))
def test_finding_pairs_twice_is_finding_them_once(rows):
    names = (*PAIR, "wan-h.safetensors", "wan-l.safetensors", "style.safetensors")
    once, _ = _with_pairs(*rows, names=names)
    assert _with_pairs(*once, names=names)[0] == once


@given(st.lists(ROWS, max_size=5).map(tuple))
def test_what_was_found_can_be_left_again_for_a_single_model(rows):
    for row, found in zip(rows, _with_pairs(*rows)[0], strict=True):
        assert alone(found).lora == row.lora
        assert alone(found).lora_low == row.lora_low
        assert alone(found).blend == row.blend


def test_rows_are_placed_on_the_experts_that_they_reach():
    rows = (
        Row(lora="off", on=False),
        Row(lora="a", lora_low="b", low=0.5),
        Row(lora="a", lora_low="b", route="low"),
        Row(lora="style", high=0.0),
        Row(lora="q_low_noise"),
        Row(lora="m", blend=Blend(lora="y", lora_low="z")),
        Row(lora="n", blend=Blend(lora="y")),
    )
    placed = place_rows(rows, lambda _: Evidence())
    assert [row.number for row in placed] == [2, 3, 4, 5, 6, 7]
    assert [row.files for row in placed] == [
        {"high": "a", "low": "b"},
        {"low": "b"},
        {"low": "style"},
        {"low": "q_low_noise"},
        {"high": "m", "low": "m"},
        {"high": "n", "low": "n"},
    ]
    assert [row.files_on("low") for row in placed[-2:]] == [("m", "z"), ("n", "y")]
    assert placed[-2].files_on("high") == ("m", "y")
    assert placed[1].files_on("high") == ()
    assert placed[0].strength("low") == 0.5


def test_five_hundred_rows_are_read_and_paired_in_a_second():
    names = [f"style{n}_{side}_noise.safetensors" for n in range(1000) for side in ("high", "low")]
    text = json.dumps([{"lora": name, "schedule": "0.2 -> 1"} for name in names[:1000:2]])
    began = time.perf_counter()
    rows, notes = with_pairs(parse_rows(text), PairFinder(names, lambda _: {}))
    assert time.perf_counter() - began < 1
    assert len(notes) == 500
    assert all(row.lora_low is not None for row in rows)
