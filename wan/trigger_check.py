"""What a text encoder's tokenizer makes of a trigger word."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UserError

Verdict = Literal["good", "warning", "bad"]
Tokenize = Callable[[str], Sequence[str]]
"""Text to the tokenizer's pieces, without its end and padding; `▁` marks a space as in sentencepiece."""

SPACE, UNKNOWN = "▁", "<unk>"
SENTENCE = "A person turns into a {} while the camera stands still."
# Ours: no measurement says from how many pieces on a word is learnt worse.
GOOD_PIECES, MOST_PIECES = 3, 5

_DIGITS_IN_LETTERS = re.compile(r"[^\W\d_]\d+[^\W\d_]")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BRACKETS = re.compile(r"[\[\](){}<>]")


@dataclass(frozen=True, kw_only=True)
class TriggerCheck:
    """How the tokenizer cuts `trigger` inside `sentence`, and what its spelling shows."""

    trigger: str
    sentence: str
    pieces: tuple[str, ...]
    """The pieces that hold a character of the trigger. One at its edge may hold a neighbour's, too."""
    inside: bool
    """Whether the pieces are those inside the sentence; else those of the trigger alone."""
    word: bool
    """The tokenizer has the trigger as one piece of its own: a word that the encoder knows."""
    lower_word: bool
    """The same of the trigger in small letters."""
    signs: tuple[str, ...]
    """What makes the spelling unlike a word: digits between letters, brackets."""

    @property
    def verdict(self) -> Verdict:
        """bad: characters that the tokenizer does not know, more than 5 pieces, or an unlike spelling
        in more than 3. warning: an unlike spelling, or 4 or 5 pieces. (Limits ours.)
        """
        count = len(self.pieces)
        if UNKNOWN in self.pieces or count > (GOOD_PIECES if self.signs else MOST_PIECES):
            return "bad"
        return "warning" if self.signs or count > GOOD_PIECES else "good"

    def text(self) -> str:
        """What the tokenizer says, in a line."""
        count = len(self.pieces)
        where = "in a sentence" if self.inside else "alone"
        found = f"{count} piece{'s' * (count != 1)} {where} ({' | '.join(self.pieces)})"
        said = [f"The tokenizer makes {found} of {self.trigger}"]
        if self.word:
            said.append("a word that the encoder knows, which brings its own meaning")
        elif self.lower_word:
            said.append(f"{self.trigger.lower()} is a word that the encoder knows")
        if UNKNOWN in self.pieces:
            said.append("it does not know some of the characters")
        return (
            "; ".join(
                [*said, *(["its spelling has " + " and ".join(self.signs)] if self.signs else [])]
            )
            + "."
        )

    def fix(self) -> str:
        """What to do; empty where nothing is to be done."""
        if self.verdict == "good":
            return ""
        return (
            "Take a short plain word, for example MERMAID and not [m3rm41dtr4nf0rm4t10n]; look at the pieces again, "
            "then write it into every caption and prompt."
        )


def check_trigger(trigger: str, tokenize: Tokenize, *, sentence: str = SENTENCE) -> TriggerCheck:
    """Cuts the trigger inside `sentence`, which has `{}` in its place.

    The pieces are the tokenizer's own. Where it changes the trigger's characters (an unknown letter),
    so that they are not found in its answer, the pieces are those of the trigger alone.
    Raises `UserError` for a trigger without characters.
    """
    trigger = trigger.strip()
    if not trigger:
        raise UserError(
            "The trigger is empty.", "A trigger is a word, for example MERMAID.", "Set a trigger."
        )
    inside = _inside(trigger, tokenize, sentence)
    alone = tuple(piece for piece in tokenize(trigger) if piece != SPACE)
    return TriggerCheck(
        trigger=trigger,
        sentence=sentence.replace("{}", trigger),
        pieces=alone if inside is None else inside,
        inside=inside is not None,
        word=_is_word(trigger, tokenize),
        lower_word=_is_word(trigger.lower(), tokenize),
        signs=spelling_signs(trigger),
    )


def spelling_signs(trigger: str) -> tuple[str, ...]:
    """What a plain word does not have. Digits at the end (`toy2`) are no sign."""
    found = {
        "digits between letters": _DIGITS_IN_LETTERS.search(trigger),
        "brackets": _BRACKETS.search(trigger),
    }
    return tuple(sign for sign, match in found.items() if match)


def _inside(trigger: str, tokenize: Tokenize, sentence: str) -> tuple[str, ...] | None:
    """The pieces of the sentence that hold the trigger; None where its characters do not come back."""
    pieces = tokenize(sentence.replace("{}", trigger))
    written = [_bytes(piece) for piece in pieces]
    joined, before = b"".join(written), sentence.partition("{}")[0].strip().encode()
    # From where the sentence puts it: the trigger "a" also stands elsewhere.
    head = joined.find(before)
    begins = joined.find(trigger.encode(), head + len(before)) if head >= 0 else -1
    if begins < 0:
        return None
    ends, at, found = begins + len(trigger.encode()), 0, []
    for piece, part in zip(pieces, written, strict=True):
        # A piece that is a space alone parts words: it is none of the trigger's.
        if at < ends and at + len(part) > begins and part.strip(b" "):
            found.append(piece)
        at += len(part)
    return tuple(found)


def _bytes(piece: str) -> bytes:
    """What a piece stands for in the text: one byte for `<0x5B>`, else its letters."""
    if byte := _BYTE.fullmatch(piece):
        return bytes.fromhex(byte[1])
    return piece.replace(SPACE, " ").encode()


def _is_word(text: str, tokenize: Tokenize) -> bool:
    # One piece with the space's mark: sentencepiece keeps `▁mermaid` apart from a word's inner part.
    return list(tokenize(text)) == [f"{SPACE}{text}"]
