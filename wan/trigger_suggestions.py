"""Triggers that a tokenizer takes better, made from the one that came."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .trigger_check import SENTENCE, UNKNOWN, Tokenize, TriggerCheck, check_trigger
from .trigger_neighbours import Vocabulary, word_forms

SUGGESTED = 5
SHORTEST, LONGEST = 3, 12
CUT_LETTERS = (4, 8)
"""Letters of a word that was cut from a longer one."""
_LEET = str.maketrans("034578@$", "oeastbas")
_ENDINGS = ("ix", "ora", "ara", "iro", "ava")
MOST_CONSONANTS, EDGE_CONSONANTS = 3, 2
"""In a row within a word that can be spoken, and at its ends (ours)."""
_THREE_VOWELS = re.compile("[aeiou]{3}")
_ORDER = {"good": 0, "warning": 1, "bad": 2}
_SYLLABLE = re.compile(r"[^aeiouy]*[aeiouy]+(?:[^aeiouy]+$|[^aeiouy]+(?=[^aeiouy][aeiouy]))?")
_WORD = re.compile(r"\w+")


def suggest_triggers(
    check: TriggerCheck,
    tokenize: Tokenize,
    *,
    sentence: str = SENTENCE,
    vocabulary: Vocabulary | None = None,
    captions: Iterable[str] = (),
) -> list[TriggerCheck]:
    """At most 5 good triggers made from `check.trigger`, each checked in the same sentence, the best first.

    Ranked by the number of pieces. None for a trigger that is good, none that cannot be spoken, none whose
    word the captions have as an ordinary one. Of words that differ by an i in place of an l alone only
    one, for a 1 stands for either: the i, unless the other is a word of the vocabulary.
    """
    if check.verdict == "good":
        return []
    taken = {_one(word) for caption in captions for word in _WORD.findall(caption)}
    known = vocabulary or Vocabulary(())
    best: dict[str, TriggerCheck] = {}
    for word in candidates(check.trigger):
        low = word.lower()
        # Any sentence can begin with the capitals of a common word.
        if word == check.trigger or known.common(low) or taken & set(map(_one, word_forms(low))):
            continue
        found = check_trigger(word, tokenize, sentence=sentence, vocabulary=known)
        one, speakable = _one(word), found.word or found.lower_word or pronounceable(word)
        good = found.verdict == "good" and speakable and not _spelled_out(found)
        other = best.get(one, check)
        alike = one not in best or other.trigger.lower() == low
        if good and (alike or found.word) and _rank(found) < _rank(other):
            best[one] = found
    # A stable sort: among equals the form that is nearest to what came stays first.
    return sorted(best.values(), key=_rank)[:SUGGESTED]


def candidates(trigger: str) -> list[str]:
    """Words of letters alone that can be made from a trigger, the nearest to it first: leetspeak undone,
    brackets and other signs left out, cut after a syllable, with a made-up ending; each in capitals, as it is,
    and in small letters."""
    words = list(dict.fromkeys(_bases(trigger)))
    shorter = [cut for word in words for cut in _cuts(word)]
    made_up = [form for word in words[:2] for form in _made_up(word)]
    found = [
        spelled
        for word in [*words, *shorter, *made_up]
        if SHORTEST <= len(word) <= LONGEST
        for spelled in (word.upper(), word, word.lower(), word.capitalize())
    ]
    return list(dict.fromkeys(found))


def pronounceable(word: str) -> bool:
    """Whether a word looks like one that can be spoken: vowels, and no long runs of other letters. Of letters
    beyond a-z nothing is known: True."""
    low = word.lower()
    if not low.isascii():
        return True
    runs = [len(run) for run in re.split("[aeiouy]", low)]
    return (
        len(runs) > 1
        and max(runs) <= MOST_CONSONANTS
        and max(runs[0], runs[-1]) <= EDGE_CONSONANTS
        and not _THREE_VOWELS.search(low)
    )


def _one(word: str) -> str:
    """Equal for words that differ by an i in place of an l."""
    return word.lower().replace("l", "i")


def _spelled_out(check: TriggerCheck) -> bool:
    """Whether the tokenizer does not know a letter, or has it as bytes only."""
    return any(piece == UNKNOWN or piece.startswith("<0x") for piece in check.pieces)


def _rank(check: TriggerCheck) -> tuple[int, int, bool]:
    return _ORDER[check.verdict], len(check.pieces), check.common


def _bases(trigger: str) -> Iterator[str]:
    """The trigger as words of letters: all in one, then each alone."""
    parts = re.findall(r"[^\W_]+(?:[@$]+[^\W_]+)*", trigger)
    for one in "il":  # a 1 stands for either
        read = [_unleet(part, one) for part in parts]
        yield "".join(read)
        yield from read


def _unleet(part: str, one: str) -> str:
    text = part.rstrip("0123456789") or part  # a number at the end is none
    return "".join(filter(str.isalpha, text.translate(_LEET).replace("1", one)))


def _cuts(word: str) -> Iterator[str]:
    """The word up to the end of a syllable, also with but one of the consonants that end it."""
    for match in _SYLLABLE.finditer(word.lower()):
        cut = word[: match.end()]
        vowels = max((n for n, letter in enumerate(cut.lower()) if letter in "aeiouy"), default=0)
        for end in (vowels + 2, match.end()):
            if CUT_LETTERS[0] <= min(end, len(word)) <= CUT_LETTERS[1] and end < len(word):
                yield word[:end]


def _made_up(word: str) -> Iterator[str]:
    if first := _SYLLABLE.match(word.lower()):
        stem = first.group()[:4].rstrip("aeiouy")
        yield from (f"{stem}{ending}" for ending in _ENDINGS if stem)
