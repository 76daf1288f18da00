"""Kinds of LoRAs as data, and what a stack of them is told: order, strengths, number, size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.lora.experts import Evidence
from tandem_wan.wan.lora.kinds import KINDS, PLACES, memory_mb, stack_size, stack_warnings
from tandem_wan.wan.lora.stack import Blend, Row, place_rows


def _placed(*rows):
    return place_rows(rows, lambda _: Evidence())


def _row(kind, strength=None, **values):
    strength = KINDS[kind].strength if strength is None else strength
    return Row(lora=values.pop("lora", kind), kind=kind, high=strength, low=strength, **values)


@pytest.mark.parametrize(
    ("kind", "route", "usual", "place"),
    [
        ("speed", "auto", (1.0, 1.0), "base"),
        ("style", "both", (0.7, 1.0), "middle"),
        ("character", "both", (0.9, 1.2), "middle"),
        ("motion", "both", (0.7, 1.0), "middle"),
        ("quality", "low", (0.3, 0.6), "top"),
        ("domain", "both", (0.7, 1.0), "middle"),
    ],
)
def test_the_kinds_are_those_that_practitioners_name(kind, route, usual, place):
    found = KINDS[kind]
    assert (found.route, found.usual, found.place) == (route, usual, place)
    assert len(KINDS) == 6


def test_every_kind_is_used_within_its_own_range():
    for kind in KINDS.values():
        assert (
            kind.possible[0] <= kind.usual[0] <= kind.strength <= kind.usual[1] <= kind.possible[1]
        )
        assert kind.place in PLACES


@pytest.mark.parametrize(
    "rows",
    [
        [_row("speed", 1.0), _row("style", 0.9)],
        [_row("speed"), _row("character", 1.1), _row("style", 0.8), _row("quality", 0.4, route="low")],
        [_row("speed"), _row("style", 0.85), _row("character", 1.0)],
        [Row(lora="x", high=2.5, low=0.1)],
        [],
    ],
    ids=["fast anime", "cinematic character", "influencer", "no kind", "empty"],
)  # fmt: skip
def test_stacks_that_are_known_to_work_raise_no_warning(rows):
    assert stack_warnings(_placed(*rows)) == ()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([_row("style"), _row("speed")], "Row 2 is speed, the base of a stack"),
        ([_row("quality", route="low"), _row("style")], "Row 1 is quality, the top of a stack"),
        ([_row("style", 1.5)], "Row 1: strength 1.5 is unusual for style; 0.7-1 is usual"),
        ([_row("speed", 3.0)], "Row 1: strength 3 is unusual for speed; 1 is usual"),
        ([_row("quality", -0.5)], "Row 1: strength -0.5 is unusual for quality"),
        ([_row("style", lora="x"), _row("style", 0.5, lora="x")],
         "x is in rows 1 and 2: their strengths add up, to 1.35 on high noise"),
        ([_row("style", 1.0, lora=f"{n}") for n in range(4)], "on high noise add up to 4, speed left out"),
        ([_row("style", 1.0, lora=f"{n}", route="low") for n in range(4)], "on low noise add up to 4"),
    ],
)  # fmt: skip
def test_what_is_unusual_is_said_with_its_row(rows, says):
    warnings = stack_warnings(_placed(*rows))
    assert len([text for text in warnings if says in text]) == 1


def test_what_has_no_effect_is_not_warned_of():
    rows = [
        Row(lora="x", kind="quality", high=9.0, low=0.5, route="low"),
        Row(lora="x", kind="style", high=0.0, low=9.0, route="high"),
        Row(lora="x", kind="style", high=9.0, low=9.0, on=False),
    ]
    assert stack_warnings(_placed(*rows)) == ()


def test_one_file_on_different_experts_does_not_add_up():
    rows = [Row(lora="x", route="high"), Row(lora="x", route="low")]
    assert stack_warnings(_placed(*rows)) == ()


def test_the_size_is_counted_for_each_expert_with_what_is_mixed_in():
    rows = [
        Row(lora="a", lora_low="b"),
        Row(lora="c", blend=Blend(lora="d", lora_low="e", share=0.3)),
        Row(lora="f", on=False),
        Row(lora="g", route="low", low=0.0),
    ]
    sizes = {"a": 100, "b": 200, "c": 30, "d": 4, "e": 5, "f": 1000, "g": 1000}
    placed = _placed(*rows)
    high = [file for row in placed for file in row.files_on("high")]
    low = [file for row in placed for file in row.files_on("low")]
    assert memory_mb(high, sizes) == pytest.approx((100 + 30 + 4) / 1e6)
    assert memory_mb(low, sizes) == pytest.approx((200 + 30 + 5) / 1e6)


@given(st.lists(st.sampled_from("abc")), st.lists(st.integers(0, 10**9), min_size=3, max_size=3))
def test_the_size_of_two_lists_is_the_sum_of_their_sizes(files, numbers):
    sizes = dict(zip("abc", numbers, strict=True))
    together = memory_mb(files, sizes) + memory_mb(["a"], sizes)
    assert memory_mb([*files, "a"], sizes) == pytest.approx(together)


def test_size_speed_and_card_are_said_before_anything_is_loaded():
    rows = [Row(lora=f"{n}") for n in range(5)]
    sizes = {f"{n}": 150_000_000 for n in range(5)}
    lines = stack_size(_placed(*rows), sizes, card_gib=15.6)
    assert "5 on high noise, about 750 MB; 5 on low noise, about 750 MB" in lines[0]
    assert "90% to 95% of the speed without (measured on a CPU" in lines[0]
    assert "On a card of 16 GiB" in lines[1]
    assert "5" in lines[1]
    assert stack_size(_placed(*rows), sizes) == lines[:1]
    assert stack_size((), {}) == ()
