"""What a trigger collides with: words that a tokenizer has as one piece, and words of the captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sentencepiece

SPACE = "▁"
# Ours: the more frequent half of the words that are one piece. Of the 21,071 in T5's vocabulary, woman is
# number 1,629 and dragon 9,814, wizard 16,652; mermaid is none of them.
COMMON_SHARE = 0.5
SHORTEST_WORD = 3
SHORTEST_NEAR = 4
"""Letters from which on words at one letter's distance are looked for: shorter ones are near to everything."""


class Vocabulary:
    """The whole words of a tokenizer's vocabulary: its pieces of three or more letters that begin a word.

    A word's rank counts them from the most frequent one, 1. What is frequent is what the tokenizer's
    own scores say: log probabilities in a unigram model, the order of merges in a BPE one.
    """

    def __init__(self, pieces: Iterable[tuple[str, float]]) -> None:
        """`pieces` with their scores; a score of exactly 0 is no frequency, as of pieces set by hand."""
        words = {p[1:]: score for p, score in pieces if p.startswith(SPACE) and _is_word(p[1:])}
        scored = sorted((word for word in words if words[word]), key=lambda word: -words[word])
        self._ranks = {word: rank for rank, word in enumerate(scored, 1)}
        self._by_length: dict[int, list[str]] = {}
        for word in [*scored, *(word for word in words if not words[word])]:
            self._by_length.setdefault(len(word), []).append(word)
        self._words = words.keys()

    @property
    def ranked(self) -> int:
        """How many words have a rank."""
        return len(self._ranks)

    def __contains__(self, word: str) -> bool:
        return word in self._words

    def rank(self, word: str) -> int | None:
        """1 for the most frequent word; None for what is no word of it, or one without a frequency."""
        return self._ranks.get(word)

    def common(self, word: str) -> bool:
        """Whether a word is in the more frequent half."""
        rank = self.rank(word)
        return rank is not None and rank <= COMMON_SHARE * self.ranked

    def near(self, word: str) -> list[str]:
        """Other words with the same letters in other capitals, or one letter more, less or other; capitals
        aside, the most frequent first."""
        low, found = word.lower(), []
        for length in (len(word) - 1, len(word), len(word) + 1):
            found += [
                w for w in self._by_length.get(length, []) if w != word and _near(low, w.lower())
            ]
        return sorted(found, key=lambda each: self._ranks.get(each, len(self._ranks) + 1))


def vocabulary_of(pieces: sentencepiece.SentencePieceProcessor) -> Vocabulary:
    """The vocabulary of a sentencepiece model. Takes a moment for 256,000 pieces: keep it."""
    ids = list(range(pieces.get_piece_size()))
    return Vocabulary(zip(pieces.id_to_piece(ids), pieces.get_score(ids), strict=True))


class CaptionUse(NamedTuple):
    """Where captions have the trigger's letters without meaning the trigger."""

    words: tuple[tuple[str, int], ...] = ()
    """Its word in other capitals, as plural or singular, with how often."""
    repeated: int = 0
    """Captions in which the trigger stands more than once."""


NO_USE = CaptionUse()


def caption_use(trigger: str, captions: Sequence[str]) -> CaptionUse:
    """How the captions use the trigger's word beside the trigger itself."""
    pattern = re.compile(
        rf"(?<!\w)(?:{'|'.join(map(re.escape, word_forms(trigger)))})(?!\w)", re.IGNORECASE
    )
    found: Counter[str] = Counter()
    repeated = 0
    for caption in captions:
        words = Counter(pattern.findall(caption))
        repeated += words.pop(trigger, 0) > 1
        found += words
    return CaptionUse(tuple(found.most_common()), repeated)


def word_forms(word: str) -> list[str]:
    """A word with its plurals, or its singular; the longest first."""
    forms = {word, f"{word}s", f"{word}es"}
    if word[-1:] in "yY":
        forms.add(f"{word[:-1]}ies")
    if word[-1:] in "sS" and len(word) > SHORTEST_NEAR:
        forms.add(word[:-1])
    return sorted(forms, key=lambda form: (-len(form), form))


def _is_word(text: str) -> bool:
    return len(text) >= SHORTEST_WORD and text.isalpha()


def _near(a: str, b: str) -> bool:
    """Equal, or one letter inserted, left out or replaced, if they are long enough."""
    if a == b:
        return True
    if min(len(a), len(b)) < SHORTEST_NEAR or abs(len(a) - len(b)) > 1:
        return False
    if len(a) > len(b):
        a, b = b, a
    head = 0
    while head < len(a) and a[head] == b[head]:
        head += 1
    return a[head + (len(a) == len(b)) :] == b[head + 1 :]
