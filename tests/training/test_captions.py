"""Captions from templates: in the weights asked for, the same again, and never at the cost of old ones."""

import os
from collections import Counter
from pathlib import Path

import pytest
from tandem_wan.training.captions import (
    Template,
    make_captions,
    parse_slots,
    parse_templates,
    write_captions,
)
from tandem_wan.training.dataset import Clip
from tandem_wan.wan.errors import UserError

MERMAID = "A {person} transforms into a beautiful {trigger} with shimmering tail underwater."


def clips(count: int, folder: Path = Path("clips")) -> list[Clip]:
    return [
        Clip(path=folder / f"clip_{i:04d}.mp4", caption="", frames=81, digest=str(i))
        for i in range(count)
    ]


def captions(templates: str, slots: str = "", *, count: int = 1, seed: int = 0, trigger: str = ""):
    return make_captions(
        clips(count), parse_templates(templates), parse_slots(slots), trigger=trigger, seed=seed
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
    assert "{place}, which has no choices" in caught.value.came
    assert "Slots with choices: person" in caught.value.can_be
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


@pytest.fixture
def folder(tmp_path):
    """Four clips in three folders, two of one name; three have captions."""
    texts = {"a": "old a", "one/x": "old one", "two/x": "old two", "new": None}
    for name, text in texts.items():
        path = tmp_path / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        if text is not None:
            path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return tmp_path


def clips_of(folder: Path) -> list[Clip]:
    paths = sorted(folder.rglob("*.mp4"))
    return [Clip(path=path, caption="", frames=9, digest="") for path in paths]


def texts_below(folder: Path) -> Counter:
    return Counter(path.read_text(encoding="utf-8").strip() for path in folder.rglob("*.txt"))


def test_new_captions_stand_beside_their_clips_and_every_old_one_is_kept(folder):
    found = clips_of(folder)
    new = [f"new {i} é" for i in range(len(found))]
    kept = write_captions(folder, found, new)
    for clip, text in zip(found, new, strict=True):
        assert clip.path.with_suffix(".txt").read_bytes() == f"{text}\n".encode()
    assert texts_below(kept) == Counter(["old a", "old one", "old two"])
    assert (kept / "one" / "x.txt").read_text(encoding="utf-8") == "old one"
    assert any(part.startswith(".") for part in kept.relative_to(folder).parts)


def test_captions_that_are_there_already_are_left_alone(folder):
    found = clips_of(folder)
    new = [f"new {i}" for i in range(len(found))]
    write_captions(folder, found, new)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert write_captions(folder, found, new) is None
    assert before == {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


def test_each_writing_keeps_its_own_old_captions(folder):
    found = clips_of(folder)
    first, second, third = ([f"{word} {i}" for i in range(4)] for word in ("b", "c", "d"))
    folders = {write_captions(folder, found, texts) for texts in (first, second, third)}
    assert len(folders) == 3
    assert texts_below(folder) == Counter(["old a", "old one", "old two", *first, *second, *third])


def test_two_files_that_share_a_caption_do_not_cost_the_old_one(tmp_path):
    paths = [tmp_path / "a.mp4", tmp_path / "a.png"]
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    found = [Clip(path=path, caption="", frames=1, digest="") for path in paths]
    kept = write_captions(tmp_path, found, ["film", "picture"])
    assert (kept / "a.txt").read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("calls", range(7))
def test_a_crash_leaves_every_caption_whole_and_every_old_one_somewhere(folder, monkeypatch, calls):
    found, done, replace = clips_of(folder), [], os.replace

    def replace_until_full(source, target):
        if len(done) == calls:
            raise OSError(28, "No space left on device")
        done.append(target)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_until_full)
        with pytest.raises(OSError, match="No space"):
            write_captions(folder, found, ["new"] * 4)
    texts = texts_below(folder)
    assert set(texts) <= {"old a", "old one", "old two", "new"}
    assert {"old a", "old one", "old two"} <= set(texts)
    assert not list(folder.rglob(".*.txt.*")), "nothing half written is left"
