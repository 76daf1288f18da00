"""Captions that are nearly another one: those that a comparison of each with each finds."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.captions.near import NEARLY, near_pairs
from tandem_wan.training.captions.report import caption_report
from tandem_wan.training.data.dataset import Clip, Dataset
from tandem_wan.wan.shapes import ClipSize

CAPTIONS = st.lists(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9).map(" ".join), max_size=12
)


@given(CAPTIONS)
def test_the_pairs_are_those_that_share_enough_words(captions):
    first = {caption: captions.index(caption) for caption in captions}
    expected = set()
    for a, b in combinations(first, 2):
        one, two = Counter(a.split()), Counter(b.split())
        if (one & two).total() >= NEARLY * (one | two).total():
            expected.add(tuple(sorted((first[a], first[b]))))
    assert set(near_pairs(captions)) == expected


def test_ten_thousand_captions_from_few_words_take_a_bounded_time():
    captions = [f"{n % 97} {n % 89} {n % 83} a b c d e f g" for n in range(10_000)]
    began = time.process_time()
    near_pairs(captions)
    assert time.process_time() - began < 4


def report(captions, trigger="MERMAID", **more):
    clips = tuple(
        Clip(path=Path(f"clip_{n:02}.mp4"), caption=text, frames=17, digest="")
        for n, text in enumerate(captions)
    )
    clips += more.get("clips", ())
    size = ClipSize(64, 64, 17)
    return caption_report(
        Dataset(folder=Path("clips"), clips=clips, size=size, fps=16.0, trigger=trigger)
    )


LINES = [
    "A tall man walks slowly along the beach and turns into a MERMAID",
    "Rain falls on an empty street at night, MERMAID",
    "The camera rises over green hills, then a MERMAID appears in a lake",
    "Someone laughs; MERMAID transformation, close view of hands and face",
    "Underwater bubbles, a MERMAID, fish and coral in warm light",
]


def test_a_caption_with_one_other_word_is_found_among_many_shapes_and_expected_of_a_template():
    assert report(LINES).finding("near").verdict == "good"
    nearly = LINES[0].replace("tall", "young")
    finding = report([*LINES, nearly]).finding("near")
    assert (finding.verdict, finding.text.split()[0]) == ("warning", "2")
    assert nearly in finding.text and LINES[0] in finding.text and finding.fix
    alike = [f"A {who} slowly turns into a MERMAID by the sea" for who in ("man", "woman", "child")]
    assert report(alike).finding("near").verdict == "good"


def test_parts_of_a_film_share_their_caption_and_are_no_copies():
    film = Clip(path=Path("film.mp4"), caption=LINES[0], frames=17, digest="")
    parts = tuple(replace(film, start=17 * n) for n in range(9))
    found = report(LINES[1:], clips=parts)
    assert found.finding("duplicates").text == "No caption is a copy"
    assert found.names == (*(f"clip_{n:02}.mp4" for n in range(4)), "film.mp4")
    assert found.captions == (*LINES[1:], LINES[0]) and len(found.words) == len(found.places) == 5
    other = replace(film, start=200, caption="MERMAID")
    assert report(LINES[1:], clips=(*parts, other)).names[-1] == "film.mp4@200"


def test_regularisation_clips_are_judged_for_what_is_missing_and_for_the_trigger_alone():
    alike = ["A woman slowly turns into a MERMAID while the camera stands still"] * 6
    plain = Clip(path=Path("r.png"), caption="a man", frames=1, digest="", regularisation=True)
    found = report(alike, clips=(plain,))
    assert (found.score, found.verdict) == (100, "good")
    assert found.finding("regularisation").text == "1 regularisation clip, which needs no trigger"
    assert "6 of 6" in found.finding("trigger").text and len(found.names) == 6
    empty = replace(plain, caption="", path=Path("e.png"))
    wrong = replace(plain, caption="a MERMAID", path=Path("w.png"))
    found = report(alike, clips=(plain, empty, wrong))
    assert "1 of 9 clips" in found.finding("missing").text
    finding = found.finding("regularisation")
    assert finding.verdict == "bad" and "1 has MERMAID in the caption: w.png" in finding.text
    assert report(alike).finding("regularisation") is None
