"""Captions as words: how many there are, where the trigger stands, and what shapes the sentences have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

# Kana and Han are written without spaces: there each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['\u2019\-][^\W{_UNSPACED}]+)*")
_PLACEHOLDERS = re.compile(
    r"\{[^{}]*\}|\[[A-Z][A-Z0-9_ ]*\]|<[A-Za-z_]+>|\b(?:[A-Z0-9]+_)*(?:TOKEN|TRIGGER|PLACEHOLDER)\b"
)
SLOT = "___"
SAME_SHAPE = 0.6
"""Part of the longer caption's words that two captions of one shape share, in the same order (ours)."""
SAME_SKELETON = 0.4
"""Part of its longest caption's words that a skeleton keeps, so that another of the same words is the same (ours)."""
MOST_SHAPES = 50
"""Shapes are told apart up to here; a caption that would begin another one is left out."""
MOST_COMPARED = 50_000
"""Comparisons after which, with so many shapes, the captions that are left are not read either."""


@dataclass(frozen=True)
class Shape:
    """Captions that are one sentence with other words in its slots."""

    skeleton: str
    """The words that all of them share, in small letters; `___` where they differ."""
    members: tuple[int, ...]
    """Which captions, counted from 0."""


def words_of(caption: str) -> list[str]:
    """The words of a caption as they are written, without punctuation."""
    return _WORD.findall(caption)


def folded(caption: str) -> str:
    """A caption without capitals and punctuation: equal for captions that say the same."""
    return " ".join(words_of(caption)).lower()


def trigger_places(caption: str, trigger: str) -> list[int]:
    """At which words the trigger begins, counted from 1; whole words in the trigger's own capitals."""
    return [len(words_of(caption[: m.start()])) + 1 for m in _as_word(trigger).finditer(caption)]


def other_capitals(caption: str, trigger: str) -> bool:
    """Whether the trigger stands in a caption only with other capitals, which are other tokens."""
    anyhow = re.search(_as_word(trigger).pattern, caption, re.IGNORECASE)
    return bool(anyhow) and not trigger_places(caption, trigger)


def placeholders(caption: str, trigger: str) -> list[str]:
    """What a template has left behind: `{trigger}`, `[PERSON]`, `<name>`, `TOKEN`, `STYLE_TOKEN`.

    The trigger itself is none, whatever it looks like.
    """
    text = _as_word(trigger).sub(" ", caption) if trigger else caption
    return _PLACEHOLDERS.findall(text)


def sentence_shapes(captions: Sequence[str]) -> list[Shape]:
    """The shapes of the sentences, the most frequent first.

    A caption is read as its words in small letters. It has the shape of the first caption with which it shares
    at least `SAME_SHAPE` of the longer one's words in the same order; if there is none, it begins a shape of its own.
    The skeleton of a shape is what all its captions share, in order; each run of words in which they
    differ is a slot. So "A woman turns into a MERMAID" and "A man turns into a MERMAID" are one shape,
    "a ___ turns into a mermaid". Shapes that come to one skeleton are one. Captions should be given
    without the empty ones.
    """
    texts = [folded(caption) for caption in captions]
    homes: list[_Home] = []
    known: dict[str, _Home | None] = {}
    left = MOST_COMPARED
    for index, text in enumerate(texts):
        if text not in known:
            words = _Words(text)
            # When the shapes are many the verdict is certain: ten thousand captions need not all be read.
            fits = (
                (home for home in homes if home.first.same_shape(words)) if left > 0 else iter(())
            )
            home = next(fits, None)
            if len(homes) == MOST_SHAPES:
                left -= MOST_SHAPES
            elif home is None:
                home = _Home(words, [])
                homes.append(home)
            known[text] = home
        if (home := known[text]) is not None:
            home.members.append(index)
    made = [
        Shape(_skeleton([texts[i] for i in home.members]), tuple(home.members)) for home in homes
    ]
    return sorted(_merged(made, texts), key=lambda shape: -len(shape.members))


def _merged(shapes: Sequence[Shape], texts: Sequence[str]) -> list[Shape]:
    """Shapes of one skeleton are one: a first caption with long slots is far from the others.

    A skeleton that has lost most of its words is none: long captions all share some small ones.
    """
    of_skeleton: dict[object, list[int]] = {}
    for number, shape in enumerate(shapes):
        whole = max(len(texts[index].split()) for index in shape.members)
        kept = sum(word != SLOT for word in shape.skeleton.split())
        alone = kept < SAME_SKELETON * whole
        key = number if alone else shape.skeleton
        of_skeleton.setdefault(key, []).append(number)
    return [
        Shape(shapes[same[0]].skeleton, tuple(sorted(i for n in same for i in shapes[n].members)))
        for same in of_skeleton.values()
    ]


class _Words:
    """A caption's words, and how often each stands in it."""

    def __init__(self, text: str) -> None:
        self.words = text.split()
        self.counts = Counter(self.words)

    def same_shape(self, other: _Words) -> bool:
        longer = max(len(self.words), len(other.words))
        if min(len(self.words), len(other.words)) < SAME_SHAPE * longer:
            return False
        # Cheap, and most captions of other shapes end here: words in any order.
        theirs = other.counts
        shared = sum(min(n, theirs[word]) for word, n in self.counts.items() if word in theirs)
        return (
            shared >= SAME_SHAPE * longer
            and _matched(self.words, other.words) >= SAME_SHAPE * longer
        )


class _Home(NamedTuple):
    """The first caption of a shape, and which captions have it."""

    first: _Words
    members: list[int]


def _matched(a: list[str], b: list[str]) -> int:
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())


def _skeleton(texts: Sequence[str]) -> str:
    first, *others = (text.split() for text in dict.fromkeys(texts))
    skeleton: list[str | None] = [*first]
    for words in others:
        skeleton = _common(skeleton, words)
    return " ".join(SLOT if word is None else word for word in skeleton)


def _common(skeleton: list[str | None], words: list[str]) -> list[str | None]:
    """The skeleton with a slot (None) wherever `words` goes another way."""
    matcher = SequenceMatcher(None, skeleton, words, autojunk=False)
    common: list[str | None] = []
    for kind, begin, end, _, _ in matcher.get_opcodes():
        if kind == "equal":
            common += skeleton[begin:end]
        elif not common or common[-1] is not None:
            common.append(None)
    return common


def _as_word(trigger: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)")
