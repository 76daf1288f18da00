"""Better triggers from the one that came, with a sentencepiece model that knows some words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.dev.toy_tokenizer import trained_pieces
from tandem_wan.wan.trigger_check import check_trigger
from tandem_wan.wan.trigger_neighbours import vocabulary_of
from tandem_wan.wan.trigger_suggestions import candidates, pronounceable, suggest_triggers

ORDER = {"good": 0, "warning": 1, "bad": 2}


@pytest.fixture(scope="module")
def pieces():
    return trained_pieces(220, character_coverage=1.0)


@pytest.fixture(scope="module")
def tokenize(pieces):
    return lambda text: [pieces.id_to_piece(token) for token in pieces.encode(text)]


@pytest.fixture(scope="module")
def judged(pieces, tokenize):
    """A trigger's check, and what is better."""
    vocabulary = vocabulary_of(pieces)

    def judged(trigger, captions=()):
        check = check_trigger(trigger, tokenize, vocabulary=vocabulary, captions=captions)
        return check, suggest_triggers(check, tokenize, vocabulary=vocabulary, captions=captions)

    return judged


def test_the_trigger_that_was_cut_up_is_bad_and_the_word_in_it_is_found(judged):
    check, better = judged("[m3rm41dtr4nf0rm4t10n]")
    assert check.verdict == "bad" and len(check.pieces) > 10
    assert better[0].trigger in ("MERMAID", "mermaid")
    assert (better[0].verdict, len(better[0].pieces)) == ("good", 1)
    assert "Better with this tokenizer: MERMAID (1 piece, good)" in check.fix(better)


def test_the_word_itself_is_good_and_needs_none(judged):
    check, better = judged("MERMAID")
    assert (check.verdict, check.pieces, check.common) == ("good", ("▁MERMAID",), False)
    assert better == [] and check.fix(better) == ""


def test_letters_behind_the_word_cost_pieces(judged):
    check, better = judged("MERMAIDTFX")
    assert check.pieces == ("▁MERMAID", "T", "F", "X") and check.head == "MERMAID"
    assert check.verdict == "warning"
    assert "MERMAID" in [each.trigger for each in better]


def test_a_common_word_gets_words_that_are_not(judged):
    check, better = judged("person")
    assert check.common and check.verdict == "warning"
    assert better and not any(each.common or each.trigger.lower() == "person" for each in better)


def test_words_that_the_captions_have_are_not_suggested(judged):
    captions = ["a woman turns into one of the mermaids"]
    _, better = judged("[m3rm41dtr4nf0rm4t10n]", captions)
    assert better and not any(each.trigger.lower() == "mermaid" for each in better)


TRIGGERS = st.text("mermaid 0134[]$TF_鱼", min_size=1, max_size=14).filter(str.strip)


@given(TRIGGERS)
def test_suggestions_are_better_ranked_and_checked_by_the_same_tokenizer(judged, tokenize, trigger):
    check, better = judged(trigger)
    ranks = [(ORDER[c.verdict], len(c.pieces)) for c in better]
    assert ranks == sorted(ranks) and len(better) <= 5
    assert all(rank <= (ORDER[check.verdict], len(check.pieces)) for rank in ranks)
    assert all(c.trigger.isalpha() and c.verdict == "good" for c in better)
    assert len({c.trigger.lower().replace("l", "i") for c in better}) == len(better)
    for each in better:
        assert each.pieces == check_trigger(each.trigger, tokenize).pieces
    assert not better or check.verdict != "good"


@pytest.mark.parametrize(
    ("trigger", "word"),
    [
        ("m3rm41d", "mermaid"),
        ("(m3rm41d)", "MERMAID"),
        ("toy2", "toy"),
        ("neon-l1ght", "light"),
        ("gl0w", "GLOW"),
        ("sk1ll", "skill"),
        ("a1pha", "alpha"),
        ("glow worm", "glowworm"),
        ("MERMAIDTF", "MERMAID"),
        ("transformation", "trans"),
        ("鱼鱼鱼", "鱼鱼鱼"),
    ],
)
def test_what_can_be_made_of_a_trigger(trigger, word):
    assert word in candidates(trigger)


@given(st.text(max_size=20))
def test_a_candidate_is_a_short_word_of_letters(trigger):
    assert all(word.isalpha() and 3 <= len(word) <= 12 for word in candidates(trigger))


@pytest.mark.parametrize("trigger", ["m3rm41d", "[m3rm41d]", "dr4g0n", "gl0w1ng", "DANCEX"])
def test_what_is_suggested_is_good_and_can_be_spoken(judged, trigger):
    _, better = judged(trigger)
    words = [each.trigger.lower() for each in better]
    assert not {"mrmd", "mermald", "drgn", "glwng"} & set(words)
    assert all(each.verdict == "good" and pronounceable(each.trigger) for each in better)


def test_one_and_l_are_told_by_the_vocabulary(judged):
    check, better = judged("m3rma1d")
    assert better[0].trigger.lower() == "mermaid"
    assert check.verdict != "good"


@pytest.mark.parametrize(
    ("word", "can"),
    [
        ("mermaid", True),
        ("MERMAID", True),
        ("spring", False),
        ("dragon", True),
        ("glow", True),
        ("MRMD", False),
        ("mrmaid", False),
        ("mermaidtfx", False),
        ("beaau", False),
        ("x", False),
        ("鱼鱼鱼", True),
    ],
)
def test_words_that_can_be_spoken(word, can):
    assert pronounceable(word) == can


def test_what_cannot_be_spoken_is_suggested_only_as_a_word_of_the_vocabulary():
    def suggested(trigger, known=()):
        def halves(text):
            for word in text.split():
                yield from [f"▁{word}"] if word in known else [f"▁{word[:2]}", word[2:]]

        def tokenize(text):
            return list(halves(text))

        return [c.trigger for c in suggest_triggers(check_trigger(trigger, tokenize), tokenize)]

    assert "MERMAD" in suggested("[mermad]")
    assert not suggested("[mrmd]")
    assert suggested("[mrmd]", ("mrmd",))
