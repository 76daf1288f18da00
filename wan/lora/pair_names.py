"""What a file's name says about high and low noise: which words speak of an expert, and what is left without them.

Two names are the halves of a pair when they are equal but for such a word. The words are whole ones, so that
`highway` and `style_hero` say nothing; a word that may mean something else (`low_poly`) is not certain.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

Side = Literal["high", "low"]
SIDES: tuple[Side, ...] = ("high", "low")

SUFFIXES = (".safetensors", ".sft")


class Word(NamedTuple):
    """One word of a name that may speak of an expert."""

    start: int
    end: int
    side: Side
    certain: bool
    in_folder: bool


class Reading(NamedTuple):
    """A name without the words that would tell it from its other half."""

    side: Side
    exact: str
    """Everything else, letter by letter, and how the words were written. Equal in both halves of a pair."""
    alike: str
    """The same without capitals, separators, and numbers that are no version, step or epoch; empty for folders."""
    certain: bool
    in_folder: bool
    words: tuple[str, str]
    """How the two halves write it, high first."""


@lru_cache(maxsize=20_000)
def readings(name: str) -> tuple[Reading, ...]:
    """Every way in which `name` can be half of a pair; none for most names."""
    text = without_suffix(name)
    words = _words(text)
    # The file's own name counts for more than its folder's.
    if any(word.certain and not word.in_folder for word in words):
        alone = [word for word in words if not word.in_folder]
    else:
        alone = words
    found = [_reading(text, [word]) for word in alone]
    if len(words) > 1 and len({word.side for word in words}) == 1:
        found.append(_reading(text, words))
    return tuple(found)


def without_suffix(name: str) -> str:
    """The name with `/` between folders and without the suffix of a LoRA file."""
    text = name.replace("\\", "/")
    for suffix in SUFFIXES:
        if text.lower().endswith(suffix):
            return text[: -len(suffix)]
    return text


def folder_of(name: str) -> str:
    """The folder, with `/` between its parts; empty for a file that lies in none."""
    return name.replace("\\", "/").rpartition("/")[0]


_WHOLE = re.compile(
    r"(?<![A-Za-z0-9])(?:(?P<bare>high|low)(?P<noise>[_\- .]?noise)?|(?P<short>[hl]n?))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
# BounceHighWan2_2, 56Low-noise: inside a word, told apart by capitals alone.
_INSIDE = re.compile(r"(?<![A-Z])(?P<bare>High|Low)(?:Noise)?(?![a-z])")

# Words beside a bare `high` or `low` by which it speaks of an expert, as public files are named.
_BEFORE = re.compile(
    r"(?<![A-Za-z0-9])(?:t2v|i2v|ti2v|v2v|s2v|vace|animate|inp|a?14b|wan(?:[ _\-]?2[._]?2)?|w22)[_\- .]+$", re.I
)  # fmt: skip
_AFTER = re.compile(
    r"lora|loha|lokr|model|expert|rank|dim|fp16|bf16|fp8|fp32|t2v|i2v|wan.*|v\d.*|e\d+|ep\d+|epochs?|steps?|\d.*", re.I
)  # fmt: skip
# ... and by which it does not.
_ELSE = re.compile(
    r"poly|quality|res|resolution|details?|key|angle|contrast|speed|fps|fashion|fantasy|heels?|end|rise|light|fidelity|"
    r"saturation|motion|dynamics?|energy|waist|cut|life|def|definition|definite|tide|class|school|fidelity|to|and",
    re.I,
)  # fmt: skip


def _words(text: str) -> list[Word]:
    stem = text.rfind("/") + 1
    found: dict[int, Word] = {}
    for match in _WHOLE.finditer(text):
        written = match.group()
        if written in (written.lower(), written.upper()) or match["bare"]:
            side: Side = "high" if written[0] in "hH" else "low"
            found[match.start()] = Word(
                match.start(), match.end(), side, _certain(text, match), match.start() < stem
            )
    for match in _INSIDE.finditer(text):
        if not any(word.start <= match.start() < word.end for word in found.values()):
            side = "high" if match.group()[0] == "H" else "low"
            found[match.start()] = Word(
                match.start(), match.end(), side, False, match.start() < stem
            )
    return [found[start] for start in sorted(found)]


def _certain(text: str, match: re.Match[str]) -> bool:
    """Whether a whole word can mean nothing but an expert."""
    if match["noise"]:
        return True
    if match["short"]:
        return len(match["short"]) == 2 or match["short"].isupper()
    after = re.match(r"[_\- .]+([A-Za-z0-9]+)", text[match.end() :])
    if after is None:
        return True
    if _ELSE.fullmatch(after[1]):
        return False
    if match["bare"].isupper() or _AFTER.fullmatch(after[1]):
        return True
    return _BEFORE.search(text[: match.start()]) is not None


def _reading(text: str, words: list[Word]) -> Reading:
    exact, alike, at = "", "", 0
    for word in words:
        exact += text[at : word.start] + "\0" + _as_high(text[word.start : word.end])
        alike += text[at : word.start] + "_\0_"
        at = word.end
    in_folder = any(word.in_folder for word in words)
    first = text[words[0].start : words[0].end]
    high = _as_high(first)
    return Reading(
        words[0].side,
        exact + text[at:],
        "" if in_folder else _alike(alike + text[at:]),
        all(word.certain for word in words),
        in_folder,
        (high, _as_low(high)),
    )


def _as_high(word: str) -> str:
    """The word as the high half writes it: `Low_Noise` -> `High_Noise`, `LN` -> `HN`."""
    if word[0] in "hH":
        return word
    if word.lower().startswith("low"):
        return _in_case("high", word[:3]) + word[3:]
    return _in_case("h", word[0]) + word[1:]


def _as_low(word: str) -> str:
    if word.lower().startswith("high"):
        return _in_case("low", word[:4]) + word[4:]
    return _in_case("l", word[0]) + word[1:]


def _in_case(word: str, like: str) -> str:
    if like.isupper():
        return word.upper()
    return word.capitalize() if like[0].isupper() else word


# Numbers that say when a file was made: two files that differ there are of two moments, and no pair.
_MOMENT = re.compile(
    r"(?:v|ver|version|e|ep|epoch?s?|s|steps?|it|iter)\d\w*|\d+(?:step|epoch?|ep|it|k)s?", re.I
)


def _alike(text: str) -> str:
    folder, _, stem = text.rpartition("/")
    tokens = [token for token in re.split(r"[^A-Za-z0-9\0]+", stem) if token]
    kept = []
    for before, token in zip(["", *tokens], tokens, strict=False):
        if _MOMENT.fullmatch(token) or (token.isdigit() and before.lower() not in ("rank", "dim")):
            kept.append(token)
        else:
            kept.append(re.sub(r"\d+", "#", token))
    return f"{folder}/{'_'.join(kept)}".lower()
