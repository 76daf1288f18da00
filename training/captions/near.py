"""Captions that are nearly another one, found without comparing each with each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from math import ceil

NEARLY = 0.8
"""Part of the words of both captions together that they share, each counted as often as it stands (ours)."""
MOST_COMPARED = 200_000
"""Pairs that are compared at most: about a second."""
MOST_PAIRS = 1_000


def near_pairs(captions: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of captions, counted from 0, of which at least `NEARLY` of the words are shared, in any order.

    `captions` are words with spaces between them, in small letters; equal ones are no pair. Finds all
    pairs unless `MOST_COMPARED` or `MOST_PAIRS` is reached, as by thousands of captions from few words.
    """
    first_of: dict[str, int] = {}
    for index, caption in enumerate(captions):
        first_of.setdefault(caption, index)
    bags = {index: _bag(caption) for caption, index in first_of.items()}
    often = Counter(word for bag in bags.values() for word in bag)
    pairs: list[tuple[int, int]] = []
    for a, b in islice(_rivals(bags, often), MOST_COMPARED):
        if len(pairs) == MOST_PAIRS:
            break
        shared = len(bags[a] & bags[b])
        if shared >= NEARLY * (len(bags[a]) + len(bags[b]) - shared):
            pairs.append((a, b))
    return list(dict.fromkeys(pairs))


def _bag(caption: str) -> frozenset[tuple[str, int]]:
    """The words, the second of a kind told from the first."""
    seen: Counter[str] = Counter()
    bag = []
    for word in caption.split():
        seen[word] += 1
        bag.append((word, seen[word]))
    return frozenset(bag)


def _rivals(
    bags: dict[int, frozenset[tuple[str, int]]], often: Counter[tuple[str, int]]
) -> Iterator[tuple[int, int]]:
    """Each pair that can share enough, some of them more than once.

    Two bags that share the part `NEARLY` must also share one of their rarest words: of n words one of the
    n - ceil(NEARLY n) + 1 rarest, in one order for all (the prefix filter of Chaudhuri, Ganti, Kaushik, "A
    Primitive Operator for Similarity Joins in Data Cleaning", ICDE 2006). So captions that share only
    small words never meet.
    """
    at_word: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, bag in bags.items():
        rare = sorted(bag, key=lambda word: (often[word], word))
        for word in rare[: len(bag) - ceil(NEARLY * len(bag)) + 1]:
            for other in at_word[word]:
                yield other, index
            at_word[word].append(index)
