"""Captions that made a run fail are caught, and those that made one work pass."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from tandem_wan.training.captions.findings import token_finding
from tandem_wan.training.captions.report import caption_report
from tandem_wan.training.captions.shapes import (
    MOST_SHAPES,
    other_capitals,
    placeholders,
    sentence_shapes,
    trigger_places,
    words_of,
)
from tandem_wan.training.captions.templates import make_captions, parse_slots, parse_templates
from tandem_wan.training.data.dataset import Clip, Dataset
from tandem_wan.wan.shapes import ClipSize

TEMPLATE = "A {person} transforms into a beautiful {trigger} with shimmering tail underwater."
SIZE = ClipSize(64, 64, 17)


def dataset(captions, trigger="MERMAID"):
    clips = tuple(
        Clip(path=Path(f"clip_{n:02}.mp4"), caption=text, frames=17, digest="")
        for n, text in enumerate(captions)
    )
    return Dataset(folder=Path("clips"), clips=clips, size=SIZE, fps=16.0, trigger=trigger)


def from_template(templates, count=20, trigger="MERMAID"):
    """What Tandem Caption Template writes."""
    slots = parse_slots("person = woman | man | person")
    clips = dataset([""] * count).clips
    return make_captions(clips, parse_templates(templates), slots, trigger=trigger, seed=0)


def rambling(count=16, seed=0):
    """Captions of 65-115 words in an order of their own, every third with a broken trigger."""
    chooser = random.Random(seed)
    pool = [f"word{n}" for n in range(400)]
    captions = []
    for n in range(count):
        words = chooser.sample(pool, chooser.randint(65, 115))
        if n % 3 == 0:
            words[chooser.randrange(len(words))] = "[m3rm41dtr4nf0rm4t10n]"
        captions.append(" ".join(words))
    return captions


def verdicts(captions, trigger="MERMAID"):
    return {f.kind: f.verdict for f in caption_report(dataset(captions, trigger)).findings}


@pytest.mark.parametrize(
    "templates",
    [
        TEMPLATE,
        f"60% | {TEMPLATE}\n40% | Underwater, in clear light, a {{person}} slowly turns into a {{trigger}}.",
    ],
    ids=["one template", "60 and 40 percent"],
)
def test_captions_of_a_rigid_template_have_no_fault(templates):
    report = caption_report(dataset(from_template(templates)))
    assert (report.verdict, report.score) == ("good", 100), report.text()
    assert not [finding.fix for finding in report.findings if finding.fix]


def test_the_run_that_failed_is_caught():
    report = caption_report(dataset(rambling(), "[m3rm41dtr4nf0rm4t10n]"))
    bad = {finding.kind for finding in report.findings if finding.verdict == "bad"}
    assert {"length", "spread", "overlong", "shapes", "trigger"} <= bad
    assert (report.verdict, report.score) == ("bad", 0)
    assert report.text().startswith("BAD, 0 of 100")
    assert all(f.fix for f in report.findings if f.verdict != "good")


def test_long_sentences_of_everyday_words_are_not_one_shape():
    """They share their small words (the, a, and, of), though not in one order."""
    parts = [
        "the camera moves slowly along the edge of a pool while",
        "a woman with long dark hair and a red dress looks up at the light",
        "and the water around her begins to shimmer with the colours of the evening",
        "behind her there is a wall of old stones and a row of small windows",
        "in the foreground some leaves drift past on the surface of the water",
        "her legs slowly turn into the tail of a MERMAID with green scales",
        "the scene is calm and warm and full of soft shadows and fine detail",
        "as the sun goes down the sky becomes a deep blue with a few thin clouds",
    ]
    chooser = random.Random(1)
    captions = [
        ", ".join(chooser.sample(parts, chooser.randint(5, 8))).capitalize() for _ in range(16)
    ]
    assert all(55 < len(words_of(caption)) < 116 for caption in captions)
    report = caption_report(dataset(captions))
    bad = {finding.kind for finding in report.findings if finding.verdict == "bad"}
    assert {"length", "overlong", "shapes"} <= bad, report.text()


def test_the_score_is_100_less_what_the_findings_cost():
    # One caption without the trigger of 20: a warning. One empty caption: bad.
    captions = from_template(TEMPLATE)
    captions[3] = captions[3].replace("MERMAID", "creature")
    assert caption_report(dataset(captions)).score == 90
    captions[7] = ""
    assert caption_report(dataset(captions)).score == 65


def test_without_any_caption_the_score_is_0_and_only_that_is_said():
    report = caption_report(dataset(["", " ... ", ""]))
    assert (report.verdict, report.score) == ("bad", 0)
    assert [f.kind for f in report.findings] == ["missing", "placeholders"]
    assert "3 of 3" in report.finding("missing").text


def test_words_and_places_are_those_that_a_person_counts():
    caption = "A well-known woman's hand: it's (MERMAID), 2 tails!"
    assert words_of(caption) == [
        "A",
        "well-known",
        "woman's",
        "hand",
        "it's",
        "MERMAID",
        "2",
        "tails",
    ]
    assert trigger_places(caption, "MERMAID") == [6]
    assert trigger_places("MERMAIDS are no MERMAID", "MERMAID") == [4]
    assert trigger_places("a [m3rm41d] here", "[m3rm41d]") == [2]
    assert len(words_of("一个女人变成美人鱼")) == 9


def test_the_trigger_with_other_capitals_is_not_the_trigger():
    captions = from_template(TEMPLATE)
    captions[0] = captions[0].replace("MERMAID", "Mermaid")
    report = caption_report(dataset(captions))
    assert other_capitals(captions[0], "MERMAID") and not other_capitals(captions[1], "MERMAID")
    assert (
        "19 of 20" in report.finding("trigger").text
        and "other capitals" in report.finding("trigger").text
    )
    assert report.places[0] is None and report.places[1] == 7


def test_a_trigger_that_wanders_is_a_warning():
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
    ]
    captions = [" ".join([*words[:n], "MERMAID", *words[n:]]) for n in range(8)]
    found = verdicts(captions)
    assert found["places"] == "warning"
    assert found["shapes"] == found["trigger"] == found["length"] == "good"


def test_a_skeleton_keeps_what_all_captions_share():
    captions = [
        "A woman turns into a MERMAID by the sea",
        "A tall man turns into a MERMAID by the lake",
        "A person turns into a MERMAID by the sea",
        "Rain falls on an empty street at night",
    ]
    shapes = sentence_shapes(captions)
    assert [shape.skeleton for shape in shapes] == [
        "a ___ turns into a mermaid by the ___",
        "rain falls on an empty street at night",
    ]
    assert [shape.members for shape in shapes] == [(0, 1, 2), (3,)]


def test_every_caption_has_one_shape_and_its_skeletons_words_in_order():
    captions = from_template(f"50% | {TEMPLATE}\n50% | One {{person}} swims.", 30) + rambling(6)
    shapes = sentence_shapes(captions)
    assert sorted(i for shape in shapes for i in shape.members) == list(range(36))
    for shape in shapes:
        for index in shape.members:
            rest = iter(" ".join(words_of(captions[index])).lower().split())
            assert all(word in rest for word in shape.skeleton.split() if word != "___")


def test_very_many_shapes_are_counted_up_to_a_limit():
    captions = rambling(MOST_SHAPES + 10)
    assert len(sentence_shapes(captions)) == MOST_SHAPES
    assert "50 or more" in caption_report(dataset(captions)).finding("shapes").text


@pytest.mark.parametrize(
    ("caption", "trigger", "found"),
    [
        ("A {person} turns", "", ["{person}"]),
        ("A [PERSON] and <name>", "", ["[PERSON]", "<name>"]),
        ("portrait, STYLE_TOKEN and TOKEN", "", ["STYLE_TOKEN", "TOKEN"]),
        ("a token of love [laughs] 2 < 3", "", []),
        ("a [MERMAID] swims", "[MERMAID]", []),
        ("a [MERMAID] swims", "SIREN", ["[MERMAID]"]),
    ],
)
def test_what_a_template_left_behind_is_found(caption, trigger, found):
    assert placeholders(caption, trigger) == found


def test_a_left_placeholder_is_bad_and_named():
    captions = from_template(TEMPLATE)
    captions[5] = captions[5].replace("with", "[COLOUR]")
    finding = caption_report(dataset(captions)).finding("placeholders")
    assert finding.verdict == "bad"
    assert "[COLOUR]" in finding.text and "clip_05.mp4" in finding.text


def test_a_copy_is_expected_of_a_template_and_suspicious_among_many_shapes():
    assert verdicts(from_template(TEMPLATE))["duplicates"] == "good"
    different = rambling(8)
    assert verdicts(different)["duplicates"] == "good"
    assert verdicts([*different, different[0]])["duplicates"] == "warning"


def test_texts_that_differ_by_a_point_are_found():
    captions = ["A woman turns into a MERMAID."] * 3 + ["a woman turns into a MERMAID"]
    finding = caption_report(dataset(captions)).finding("spelling")
    assert (finding.verdict, finding.text.split()[0]) == ("warning", "2")


def test_a_missing_trigger_is_a_warning():
    assert verdicts(from_template(TEMPLATE), "")["trigger"] == "warning"


def test_one_caption_too_long_warns_and_many_are_bad():
    long = " ".join(["word"] * 41)
    assert verdicts([*from_template(TEMPLATE), long])["overlong"] == "warning"
    assert verdicts([long] * 4 + from_template(TEMPLATE, 10))["overlong"] == "bad"
    assert verdicts([long.removesuffix(" word")])["overlong"] == "good"


def test_tokens_over_the_limit_are_bad():
    assert token_finding([10, 512], 512).verdict == "good"
    found = token_finding([10, 513], 512)
    assert found.verdict == "bad" and "1 is over it" in found.text


@pytest.mark.parametrize("trigger", ["m3rm41d", "[MERMAID]", "[m3rm41d]"])
def test_brackets_and_leetspeak_in_a_trigger_need_no_tokenizer(trigger):
    captions = from_template(TEMPLATE, trigger=trigger)
    report = caption_report(dataset(captions, trigger))
    spelling = report.finding("trigger spelling")
    assert (spelling.verdict, report.finding("trigger").verdict) == ("warning", "good")
    assert trigger in spelling.text and "MERMAID" in spelling.fix
    captions[0] = "A person"
    assert "plain word" in caption_report(dataset(captions, trigger)).finding("trigger").fix


def test_what_a_tokenizer_says_takes_the_place_of_the_spelling():
    report = caption_report(dataset(from_template(TEMPLATE, trigger="m3rm41d"), "m3rm41d"))
    tokens = replace(report.finding("trigger spelling"), kind="trigger tokens")
    with_tokens = report.with_trigger_tokens(tokens)
    assert (with_tokens.finding("trigger spelling"), with_tokens.score) == (None, report.score)


@pytest.mark.parametrize(
    ("words", "verdict"), [(9, "warning"), (10, "good"), (22, "good"), (23, "warning")]
)
def test_the_words_that_are_said_to_be_good_are_those_that_are_judged_good(words, verdict):
    finding = caption_report(dataset([" ".join(["swim"] * words)] * 3)).finding("length")
    assert finding.verdict == verdict
    assert "good: 10-22 (aim 12-20)" in finding.text and bool(finding.fix) != (verdict == "good")


def test_the_shortest_and_the_longest_caption_are_named():
    finding = caption_report(dataset(["one " * 12, "one " * 9, "one " * 17])).finding("length")
    assert "(9 in clip_01.mp4, 17 in clip_02.mp4)" in finding.text


def test_copies_are_told_by_their_texts():
    def copies(*counts):
        captions = [
            f"A {name} swims" for name, n in zip("abc", counts, strict=False) for _ in range(n)
        ]
        return caption_report(dataset(captions)).finding("duplicates").text

    assert copies(8, 8).startswith("Copies: 2 texts on 8 clips each, as")
    assert copies(5, 1).startswith("Copies: 1 text on 5 clips, as")
    assert copies(5, 2, 1).startswith("Copies: 2 texts on 2-5 clips each")
    assert copies(1, 1, 1) == "No caption is a copy"


def test_shapes_that_come_to_one_skeleton_are_one():
    captions = [
        "A ball on a green ground.",
        "A cup on a white ground.",
        "A small cat on a dark grey ground.",
        "A big dog on a pale grey ground.",
        "A big cow on a dark blue ground.",
        "Rain falls.",
    ]
    apart = sentence_shapes(captions[:2]), sentence_shapes(captions[2:5])
    assert {shape.skeleton for found in apart for shape in found} == {"a ___ on a ___ ground"}
    shapes = sentence_shapes(captions)
    assert [shape.members for shape in shapes] == [(0, 1, 2, 3, 4), (5,)]


def test_a_skeleton_of_one_small_word_does_not_make_captions_one_shape():
    def around(letter):
        words = [f"{letter}{n}" for n in range(1, 10)]
        others = [f"{letter}other{n}" for n in range(4)]
        kept = [words, [*words[:5], *others], [*others, *words[4:]], [*words[:4], "z", *words[5:]]]
        return [" ".join(["the", *each]) for each in kept]

    shapes = sentence_shapes([*around("a"), *around("b")])
    assert [shape.skeleton for shape in shapes] == ["the ___", "the ___"]


def test_files_of_one_name_are_told_by_their_folders():
    paths = ["one/x.mp4", "two/x.mp4", "y.mp4"]
    clips = tuple(
        Clip(path=Path("clips") / path, caption="", frames=17, digest="", start=n * 16)
        for n, path in enumerate(paths)
    )
    found = Dataset(folder=Path("clips"), clips=clips, size=SIZE, fps=16.0)
    assert caption_report(found).names == ("one/x.mp4", "two/x.mp4@16", "y.mp4@32")
    elsewhere = replace(clips[0], root=Path("other/one"), path=Path("other/one/two/x.mp4"))
    names = caption_report(replace(found, clips=(*clips, elsewhere))).names
    assert names == ("one/x.mp4", "clips/two/x.mp4@16", "y.mp4@32", "one/two/x.mp4")


def test_one_of_a_thing_is_one_in_the_words():
    one = caption_report(
        dataset(["A {person} and a MERMAID swim slowly by the shore of a lake"])
    ).text()
    assert not [word for word in ("1 clips", "1 captions", "1 are", "1 have ") if word in one]
    shapes = caption_report(dataset([f"{letter} " * 12 for letter in "abcd"])).text()
    assert shapes.endswith("... and 1 more shape")
