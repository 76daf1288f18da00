"""The tokenizer's own pieces of a trigger, with sentencepiece models that know some words."""

from __future__ import annotations

import io

import pytest
import sentencepiece
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.trigger_check import SENTENCE, check_trigger, spelling_signs

CORPUS = ["a mermaid turns into a person while the camera stands still", "the MERMAID swims"] * 40


@pytest.fixture(scope="module")
def tokenize():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*CORPUS, "0123456789 bcfghjkqvxyz T F []{}()."]),
        model_writer=model,
        vocab_size=120,
        model_type="bpe",
        character_coverage=1.0,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return lambda text: [pieces.id_to_piece(token) for token in pieces.encode(text)]


def test_a_word_of_the_vocabulary_is_one_piece(tokenize):
    check = check_trigger("MERMAID", tokenize)
    assert check.pieces == ("▁MERMAID",)
    assert check.word and check.lower_word and check.verdict == "good" and not check.fix()
    assert "1 piece in a sentence (▁MERMAID)" in check.text()


def test_leetspeak_in_brackets_falls_to_pieces(tokenize):
    check = check_trigger("[m3rm41dtr4nf0rm4t10n]", tokenize)
    assert check.verdict == "bad" and not check.word
    assert len(check.pieces) > 10
    assert check.signs == ("digits between letters", "brackets")
    assert "MERMAID" in check.fix()


def test_letters_behind_a_known_word_are_pieces_of_their_own(tokenize):
    word, longer, leet = (
        check_trigger(t, tokenize) for t in ("MERMAID", "MERMAIDTF", "[m3rm41dtr4nf0rm4t10n]")
    )
    assert longer.pieces[0] == "▁MERMAID" and "".join(longer.pieces) == "▁MERMAIDTF"
    assert len(word.pieces) < len(longer.pieces) < len(leet.pieces)
    assert not longer.word and not longer.signs


@pytest.mark.parametrize(
    "trigger",
    [
        "MERMAID",
        "MERMAIDTF",
        "mermaids",
        "m3rm41d",
        "[m3rm41d]",
        "qxz",
        "a",
        "swims person",
        "r2d2",
    ],
)
def test_the_pieces_are_those_of_the_sentence_that_hold_the_trigger(tokenize, trigger):
    check = check_trigger(trigger, tokenize)
    assert check.sentence == SENTENCE.replace("{}", trigger)
    # By hand: what the sentence's pieces have between its words before and after the trigger.
    whole = tokenize(check.sentence)
    before = tokenize(SENTENCE.split(" {}")[0])
    after = tokenize(SENTENCE.split("{} ")[1])
    inside = [p for p in whole[len(before) : len(whole) - len(after)] if p != "▁"]
    assert list(check.pieces) == inside


def test_a_letter_that_the_tokenizer_does_not_know_is_said(tokenize):
    check = check_trigger("鱼", tokenize)
    assert check.verdict == "bad"
    assert check.pieces == ("<unk>",) and not check.inside
    assert "1 piece alone" in check.text() and "does not know" in check.text()


@pytest.mark.parametrize("trigger", ["[m3rm41d]", "鱼", "mer鱼maid"])
def test_letters_that_come_as_bytes_are_pieces_of_the_sentence(trigger):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    check = check_trigger(
        trigger, lambda text: [pieces.id_to_piece(token) for token in pieces.encode(text)]
    )
    assert check.inside
    assert pieces.decode(list(check.pieces)) == trigger
    assert any(piece.startswith("<0x") for piece in check.pieces)


def test_a_word_beside_a_point_counts_its_own_pieces_only(tokenize):
    check = check_trigger("MERMAID", tokenize, sentence="the {}. it swims")
    assert check.pieces == ("▁MERMAID",)


@pytest.mark.parametrize(
    ("trigger", "signs"),
    [
        ("MERMAID", ()),
        ("toy2", ()),
        ("n30n", ("digits between letters",)),
        ("<neon>", ("brackets",)),
        ("glow worm", ()),
    ],
)
def test_the_signs_of_a_spelling(trigger, signs):
    assert spelling_signs(trigger) == signs


@pytest.mark.parametrize(
    ("pieces", "trigger", "verdict"),
    [
        (3, "abcdef", "good"),
        (4, "abcdef", "warning"),
        (5, "abcdef", "warning"),
        (6, "abcdef", "bad"),
        (3, "a1cdef", "warning"),
        (4, "a1cdef", "bad"),
    ],
)
def test_the_verdict_follows_the_pieces_and_the_spelling(pieces, trigger, verdict):
    def cut(text):
        # Every word whole but the trigger, whose last pieces are single letters.
        words = []
        for word in text.split():
            parts = [word[: 7 - pieces], *word[7 - pieces :]] if word == trigger else [word]
            words += [f"▁{parts[0]}", *parts[1:]]
        return words

    check = check_trigger(trigger, cut)
    assert (len(check.pieces), check.verdict) == (pieces, verdict)


def test_an_empty_trigger_is_refused(tokenize):
    with pytest.raises(UserError, match="The trigger is empty"):
        check_trigger("  ", tokenize)
