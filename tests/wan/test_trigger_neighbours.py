"""Common words, near words, and captions that use a trigger's word otherwise."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.trigger_check import check_trigger
from tandem_wan.wan.trigger_neighbours import Vocabulary, caption_use

SOME = [
    "▁the",
    "▁woman",
    "▁mermaid",
    "▁Mermaid",
    "▁mermaids",
    "▁woven",
    "▁cat",
    "▁a",
    "maid",
    "▁x2y",
]


def vocabulary(pieces=SOME):
    return Vocabulary((piece, -1.0 - n) for n, piece in enumerate(pieces))


def test_words_are_ranked_by_their_scores_and_the_first_half_is_common():
    known = vocabulary()
    assert known.ranked == 7, "no single letters, inner pieces or digits"
    assert [known.rank(word) for word in ("the", "woman", "cat", "maid", "a")] == [
        1,
        2,
        7,
        None,
        None,
    ]
    assert [known.common(word) for word in ("woman", "mermaid", "Mermaid")] == [True, True, False]


def test_a_piece_that_was_set_by_hand_is_a_word_without_a_rank():
    known = Vocabulary([("▁MERMAID", 0.0), ("▁the", -1.0), ("▁rare", -2.0)])
    assert "MERMAID" in known and known.rank("MERMAID") is None and not known.common("MERMAID")
    assert known.near("mermaid") == ["MERMAID"]


def distance(a: str, b: str) -> int:
    """Levenshtein's, the slow way."""
    if not a or not b:
        return len(a) + len(b)
    return min(
        distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0])
    )


WORDS = st.text("abB", min_size=4, max_size=6)


@given(WORDS, st.lists(WORDS, unique=True))
def test_near_words_are_those_at_an_edit_distance_of_one_capitals_aside(word, words):
    known = vocabulary([f"▁{each}" for each in words])
    expected = [w for w in words if w != word and distance(w.lower(), word.lower()) <= 1]
    assert known.near(word) == expected


def test_short_words_are_near_only_to_their_own_letters():
    assert vocabulary(["▁CAT", "▁bat", "▁cats"]).near("cat") == ["CAT"]


def test_a_large_vocabulary_is_asked_in_less_than_a_second():
    letters = "abcdefghijklmnop"
    pieces = [
        f"▁{a}{b}{c}{d}{e}"
        for a in letters
        for b in letters
        for c in letters
        for d in letters
        for e in letters[:4]
    ]
    known = vocabulary(pieces)
    assert known.ranked == 262_144
    began = time.process_time()
    assert len(known.near("abcda")) == 4 * 15 + 3
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("trigger", "captions", "words", "repeated"),
    [
        (
            "MERMAID",
            ["a MERMAID", "a mermaid", "two Mermaids, a mermaid"],
            {"mermaid": 2, "Mermaids": 1},
            0,
        ),
        ("MERMAID", ["a MERMAID in mermaidtown", "MERMAID2"], {}, 0),
        ("woman", ["a woman turns into a woman", "a woman"], {}, 1),
        ("FAIRY", ["two fairies"], {"fairies": 1}, 0),
        ("GLASS", ["a glass", "glasses"], {"glass": 1, "glasses": 1}, 0),
        ("sirens", ["a siren"], {"siren": 1}, 0),
        ("[m3rm41d]", ["a [m3rm41d] swims", "[M3RM41D]"], {"[M3RM41D]": 1}, 0),
    ],
)
def test_captions_that_use_the_word_otherwise_are_counted(trigger, captions, words, repeated):
    assert caption_use(trigger, captions) == (tuple(words.items()), repeated)


def cut(text):
    """Words of the vocabulary are a piece, others fall to pairs of letters."""
    pieces = []
    for word in text.replace(".", " .").split():
        whole = f"▁{word}" in SOME
        pairs = [f"▁{word[:2]}", *(word[n : n + 2] for n in range(2, len(word), 2))]
        pieces += [f"▁{word}"] if whole else pairs
    return pieces


def check(trigger, captions=()):
    return check_trigger(trigger, cut, vocabulary=vocabulary(), captions=captions)


def test_a_common_word_is_a_warning_with_its_rank():
    found = check("woman")
    assert (found.verdict, found.rank, found.ranked, found.common) == ("warning", 2, 7, True)
    assert "a common word, number 2 of 7 that are one piece" in found.text()
    assert check("Mermaid").verdict == "good"
    assert "near words that the encoder knows: mermaid, mermaids" in check("Mermaid").text()


def test_captions_that_have_its_word_are_a_warning():
    assert check("Mermaid", ["a Mermaid"] * 3).verdict == "good"
    found = check("Mermaid", ["a Mermaid", "a mermaid", "mermaids"])
    assert found.verdict == "warning" and found.fix()
    assert "captions also have mermaid (1), mermaids (1), as an ordinary word" in found.text()
    assert check("Mermaid", ["a Mermaid meets a Mermaid"]).verdict == "warning"
    # A made-up word can stand twice: it means nothing else.
    assert check("qixo", ["a qixo meets a qixo"]).verdict == "good"


def test_a_first_piece_that_is_a_word_is_said():
    def split(text):
        return [p for w in text.split() for p in (["▁cat", "nip"] if w == "catnip" else [f"▁{w}"])]

    found = check_trigger("catnip", split, vocabulary=vocabulary())
    assert found.head == "cat" and "its first piece, cat, is a word of its own" in found.text()
    assert check("cat").head == ""


def test_the_line_is_the_sentence_with_the_triggers_pieces_marked():
    found = check_trigger("woman", cut, sentence="the {} a cat")
    assert found.line == (("▁the", False), ("▁woman", True), ("▁a", False), ("▁cat", False))
