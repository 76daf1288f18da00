"""A table of slot values, as people copy it from a spreadsheet; and what a caption's change looks like."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.captions.diff import caption_change
from tandem_wan.training.captions.table import NO_TABLE, parse_table
from tandem_wan.training.data.dataset import Clip
from tandem_wan.wan.errors import UserError

ROOT = Path("clips")


def clip(name: str) -> Clip:
    return Clip(path=ROOT / name, caption="", frames=9, digest="")


def values(table: str, name: str):
    return parse_table(table).values(clip(name), ROOT)


@pytest.mark.parametrize(
    "table",
    [
        'file,person,place\na.mp4,woman,"by the sea, at night"\nb,man,',
        "file\tperson\tplace\na.mp4\twoman\tby the sea, at night\nb\tman",
        "file;person;place\n\na.mp4; woman ;by the sea, at night\nb;man;\n",
        "| file | person | place |\n|---|:-:|---|\n| a.mp4 | woman | by the sea, at night |\n| b | man | |",
    ],
    ids=["comma", "tab", "semicolon", "markdown"],
)
def test_a_table_is_read_whatever_parts_its_columns(table):
    read = parse_table(table)
    assert read.columns == ("person", "place")
    assert read.values(clip("a.mp4"), ROOT) == {"person": "woman", "place": "by the sea, at night"}
    assert read.values(clip("b.mov"), ROOT) == {"person": "man"}
    assert read.values(clip("c.mp4"), ROOT) == {}


def test_the_most_exact_name_of_a_clip_counts():
    table = "file,x\na,stem\na.mp4,name\none/a,below\none/a.mp4,exact"
    assert values(table, "two/a.mov")["x"] == "stem"
    assert values(table, "two/a.mp4")["x"] == "name"
    assert values(table, "one/a.mov")["x"] == "below"
    assert values(table, "one/a.mp4")["x"] == "exact"
    assert values("file,x\none\\a.mp4,windows", "one/a.mp4")["x"] == "windows"


def test_a_row_for_no_clip_is_told_with_clips_of_like_names():
    table = parse_table("file,x\nsea_1,1\nsea_02.mp4,2\nzebra,3")
    clips = [(clip("sea_01.mp4"), ROOT), (clip("sea_02.mp4"), ROOT)]
    first, second = table.strangers(clips)
    assert "'sea_1'" in first and "sea_01.mp4" in first
    assert "'zebra'" in second and "like" not in second


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("a.mp4", "has one column"),
        ("file,x\na,1,2", "the line 'a,1,2' has more than 2 values"),
        ("file,x\n,1", "the line ',1' has no file"),
        ("file,x\na,1\na,2", "two rows for a"),
        ("file,x,x\na,1,2", "its columns are 'x', 'x'"),
        ("file,x,\na,1,2", "its columns are 'x', ''"),
        ("file,trigger\na,MERMAID", "its column trigger"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(table, said):
    with pytest.raises(UserError, match="The table cannot be read") as caught:
        parse_table(table)
    assert said in caught.value.came


def test_no_table_is_no_table():
    assert parse_table("  \n ") == NO_TABLE


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1).filter(
    lambda text: not set(text) <= set("-:|")
)


@given(
    st.lists(st.tuples(CELLS, CELLS), unique_by=lambda row: row[0].replace("\\", "/"), min_size=1)
)
def test_what_a_spreadsheet_writes_comes_back(rows):
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, delimiter="\t").writerows([("file", "x"), *rows])
    read = parse_table(text.getvalue())
    assert read.rows == {name.replace("\\", "/"): {"x": value} for name, value in rows}


@pytest.mark.parametrize(
    ("old", "new", "kind", "text"),
    [
        ("", "A man swims.", "new", ""),
        ("A man swims.", "A man swims.", "same", ""),
        (
            "A man swims in a lake",
            "A woman swims in a lake",
            "changed",
            "A [man -> woman] swims in a lake",
        ),
        ("A man swims", "A man swims fast", "changed", "A man swims [+fast]"),
        ("A big old man swims", "A man swims", "changed", "A [-big old] man swims"),
        ("a b c d e", "v w x a z", "changed", "[a b c d e -> v w x a z]"),
    ],
)
def test_a_change_is_shown_word_by_word(old, new, kind, text):
    assert caption_change(old, new) == (kind, text)


@given(*[st.lists(st.sampled_from("abcd")).map(" ".join)] * 2)
def test_a_shown_change_can_be_read_back_to_both_captions(old, new):
    import re

    kind, text = caption_change(old, new)
    if kind != "changed":
        assert old == new if kind == "same" else not old
        return
    tokens = re.findall(r"\[[^\]]*\]|\w+", text)
    sides = {"old": [], "new": []}
    for token in tokens:
        before, after = token, token
        if token.startswith("[+"):
            before, after = "", token[2:-1]
        elif token.startswith("[-"):
            before, after = token[2:-1], ""
        elif token.startswith("["):
            before, after = token[1:-1].split(" -> ") if " -> " in token else (token, token)
        sides["old"] += before.split()
        sides["new"] += after.split()
    assert sides == {"old": old.split(), "new": new.split()}
