"""Captions from templates: in the weights asked for, the same again, and with nothing left unfilled."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.captions.shapes import placeholders
from tandem_wan.training.captions.table import NO_TABLE, parse_table
from tandem_wan.training.captions.templates import (
    Template,
    make_captions,
    parse_slots,
    parse_templates,
)
from tandem_wan.training.data.dataset import Clip
from tandem_wan.wan.errors import UserError

MERMAID = "A {person} transforms into a beautiful {trigger} with shimmering tail underwater."


def clips(count: int, folder: Path = Path("clips")) -> list[Clip]:
    return [
        Clip(path=folder / f"clip_{i:04d}.mp4", caption="", frames=81, digest=str(i))
        for i in range(count)
    ]


def captions(templates, slots="", *, count=1, seed=0, trigger="", table="", of=None):
    return make_captions(
        of or clips(count),
        parse_templates(templates),
        parse_slots(slots),
        trigger=trigger,
        seed=seed,
        table=parse_table(table),
        folder=Path("clips"),
    )


def test_the_received_template_becomes_the_received_caption():
    assert captions(MERMAID, "person = woman", trigger="MERMAID") == [
        "A woman transforms into a beautiful MERMAID with shimmering tail underwater."
    ]


@pytest.mark.parametrize(
    ("lines", "shares"),
    [
        ("60% | a\n40% | b", {"a": 0.6, "b": 0.4}),
        ("1% | a\n3% | b", {"a": 0.25, "b": 0.75}),
        ("a\nb", {"a": 0.5, "b": 0.5}),
        ("12.5% | a\n87.5%| b", {"a": 0.125, "b": 0.875}),
        ("0% | a\n1% | b", {"a": 0.0, "b": 1.0}),
    ],
)
def test_templates_come_in_their_weights(lines, shares):
    counts = Counter(captions(lines, count=4000))
    for text, share in shares.items():
        assert counts[text] / 4000 == pytest.approx(share, abs=0.03)
    assert set(counts) <= set(shares)


def test_the_choices_of_a_slot_come_equally_often():
    counts = Counter(captions("{person}", "person = woman | man | child", count=3000))
    assert set(counts) == {"woman", "man", "child"}
    assert all(count / 3000 == pytest.approx(1 / 3, abs=0.03) for count in counts.values())


def test_the_seed_decides():
    slots = "person = woman | man"
    first, again, other = (
        captions(MERMAID, slots, count=50, seed=s, trigger="X") for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_clip_keeps_its_caption_when_others_come_or_go():
    slots = {"person": ["woman", "man", "child"]}
    templates = parse_templates("60% | {person} a\n40% | {person} b")
    many = make_captions(clips(50), templates, slots, trigger="", seed=0)
    few = make_captions(clips(50)[20:30], templates, slots, trigger="", seed=0)
    assert few == many[20:30]


def test_the_clips_name_can_stand_in_a_caption():
    assert captions("{filename}: a {trigger}", trigger=" MERMAID ") == ["clip_0000: a MERMAID"]


def test_a_choice_can_hold_the_trigger():
    assert captions("A {who}", "who = {trigger}", trigger="MERMAID") == ["A MERMAID"]


@pytest.mark.parametrize("template", ["A {trigger}.", "A { trigger }."])
def test_a_placeholder_is_filled_or_an_error_but_never_left(template):
    assert captions(template, trigger="MERMAID") == ["A MERMAID."]
    with pytest.raises(UserError, match="no trigger is set"):
        captions(template)


def test_a_slot_without_choices_is_named_with_those_that_have_some():
    with pytest.raises(UserError) as caught:
        captions("A {person} in a {place}", "person = woman")
    assert "of clip_0000.mp4 has the slot {place}, which has no choices" in caught.value.came
    assert "Slots with choices: person; columns of the table: none" in caught.value.can_be
    assert "place = " in caught.value.to_do


@pytest.mark.parametrize("line", ["person", "person woman | man", "= woman", "person =", "a = |"])
def test_a_slot_line_that_cannot_be_read_is_shown(line):
    with pytest.raises(UserError, match="cannot be read") as caught:
        parse_slots(f"colour = red | blue\n{line}")
    assert repr(line) in caught.value.came


def test_slots_are_read_line_by_line():
    assert parse_slots("\n person = woman | man \n\nplace=a sea|a lake|\n") == {
        "person": ["woman", "man"],
        "place": ["a sea", "a lake"],
    }


@pytest.mark.parametrize("lines", ["", "\n  \n", "0% | a", "0% | a\n0% | b"])
def test_no_template_with_a_weight_is_an_error_that_shows_one(lines):
    with pytest.raises(UserError) as caught:
        parse_templates(lines)
    example = caught.value.can_be.removeprefix("A template is a line such as: ")
    assert parse_templates(example) == [Template("A {person} transforms into a {trigger}.", 60.0)]


def test_a_line_without_a_weight_is_a_template_as_it_stands():
    assert parse_templates("A | B") == [Template("A | B", 100.0)]


def test_the_table_goes_before_the_slots_and_fills_only_its_own_clips():
    table = "file, person\nclip_0001.mp4, mermaid hunter\nclip_0002, "
    assert captions("A {person}", "person = woman", count=3, table=table) == [
        "A woman",
        "A mermaid hunter",
        "A woman",
    ]


def test_a_row_changes_no_other_slot_of_its_clip():
    slots = "person = woman | man\nplace = a sea | a lake | a river"
    template = "{person} at {place}"
    plain = captions(template, slots, count=40)
    listed = captions(
        template,
        slots,
        count=40,
        table="file,person\n" + "".join(f"clip_{n:04},X\n" for n in range(40)),
    )
    assert listed == [f"X at {text.split(' at ')[1]}" for text in plain]


@pytest.mark.parametrize(
    ("table", "came", "can_be"),
    [
        (
            "file,colour\nclip_001,red",
            "has no row of clip_0000.mp4, whose template",
            "names: clip_001.",
        ),
        (
            "file,colour,x\nclip_0000,,1",
            "has no value for colour of clip_0000.mp4",
            "with or without",
        ),
    ],
)
def test_a_clip_whose_slot_no_row_fills_is_named(table, came, can_be):
    with pytest.raises(UserError) as caught:
        captions("A {colour} sea", table=table)
    assert came in caught.value.came and "{colour}" in caught.value.came
    assert can_be in caught.value.can_be
    assert "colour = " in caught.value.to_do


@pytest.mark.parametrize(
    ("template", "slots", "left"),
    [
        ("A [PERSON] swims", "", "[PERSON]"),
        ("portrait, STYLE_TOKEN", "", "STYLE_TOKEN"),
        ("A {who} swims", "who = {person}", "{person}"),
        ("A {who} swims", "who = <name>", "<name>"),
    ],
)
def test_a_placeholder_that_is_left_is_an_error_that_names_it(template, slots, left):
    with pytest.raises(UserError) as caught:
        captions(template, slots)
    assert f"of clip_0000.mp4 has {left} left in it" in caught.value.came


def test_a_trigger_that_looks_like_a_placeholder_is_none():
    assert captions("a {trigger} swims", trigger="[MERMAID]") == ["a [MERMAID] swims"]


def test_all_parts_of_a_file_and_a_picture_of_its_name_have_one_caption():
    slots = "person = a | b | c | d | e | f | g | h"
    film = clips(20)
    later = [replace(clip, start=40) for clip in film]
    pictures = [replace(clip, path=clip.path.with_suffix(".png")) for clip in film]
    first, second, third = (
        captions("{person} {filename}", slots, of=each) for each in (film, later, pictures)
    )
    assert first == second == third


def test_regularisation_clips_keep_their_captions():
    mixed = [
        replace(clip, caption="a [man]", regularisation=n == 1) for n, clip in enumerate(clips(3))
    ]
    assert captions("A {trigger}", trigger="X", of=mixed) == ["A X", "a [man]", "A X"]


WORDS = st.text("abcdefg", min_size=1, max_size=5)
SLOTS = st.dictionaries(st.sampled_from(["x", "y", "z"]), st.lists(WORDS, min_size=1), min_size=3)
SLOT_NAMES = ["{x}", "{y}", "{z}", "{ x }", "{trigger}", "{filename}"]
PARTS = st.lists(st.one_of(WORDS, st.sampled_from(SLOT_NAMES)), min_size=1)
TEMPLATES = st.lists(
    st.builds(Template, PARTS.map(" ".join), st.sampled_from([1.0, 25.0, 60.0])),
    min_size=1,
    max_size=4,
)
NAMES = st.lists(
    st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=1, max_size=12, unique=True
)
ROWS = st.dictionaries(st.integers(0, 11), WORDS)


def made(names, templates, slots, seed, rows=None):
    found = [Clip(path=Path(f"{n}.mp4"), caption="", frames=9, digest="") for n in names]
    cells = [f"{names[at]},{word}" for at, word in (rows or {}).items() if at < len(names)]
    table = parse_table("\n".join(["file,x", *cells])) if cells else NO_TABLE
    return make_captions(found, templates, slots, trigger="MERMAID", seed=seed, table=table)


def matches(text, template, slots, name, row):
    """The template as a pattern, with exactly the words that a slot can have for this clip."""

    def choices(match):
        slot = match[1].strip()
        one = {"trigger": ["MERMAID"], "filename": [name]}.get(slot)
        row_first = [row] if slot == "x" and row else slots.get(slot)
        return f"(?:{'|'.join(map(re.escape, one or row_first))})"

    return re.fullmatch(re.sub(r"\{([^{}]*)\}", choices, template.text), text)


@given(NAMES, TEMPLATES, SLOTS, st.integers(0, 2**32 - 1), ROWS)
def test_every_caption_is_a_template_with_its_own_choices_and_nothing_left(
    names, templates, slots, seed, rows
):
    texts = made(names, templates, slots, seed, rows)
    assert texts == made(names, templates, slots, seed, rows)
    for at, (name, text) in enumerate(zip(names, texts, strict=True)):
        assert any(matches(text, each, slots, name, rows.get(at)) for each in templates), text
        assert not placeholders(text, "MERMAID")


@given(NAMES, TEMPLATES, SLOTS, st.integers(0, 2**32 - 1), st.data())
def test_a_clip_more_changes_no_other_caption(names, templates, slots, seed, data):
    texts = dict(zip(names, made(names, templates, slots, seed), strict=True))
    some = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    assert made(some, templates, slots, seed) == [texts[name] for name in some]


@settings(max_examples=15)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_weights_are_kept_over_many_clips(weights, seed):
    templates = [Template(chr(97 + n), float(weight)) for n, weight in enumerate(weights)]
    counts = Counter(made([f"c{n}" for n in range(2000)], templates, {}, seed))
    for template in templates:
        # 5 standard deviations of 2,000 draws are at most 0.056.
        assert counts[template.text] / 2000 == pytest.approx(
            template.weight / sum(weights), abs=0.056
        )
