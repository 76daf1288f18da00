"""What a text encoder's tokenizer makes of a trigger word."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UserError
from .trigger_neighbours import NO_USE, SPACE, CaptionUse, Vocabulary, caption_use
from .wording import counted

Verdict = Literal["good", "warning", "bad"]
Tokenize = Callable[[str], Sequence[str]]
"""Text to the tokenizer's pieces, without its end and padding; `▁` marks a space as in sentencepiece."""

UNKNOWN = "<unk>"
SENTENCE = "A person turns into a {} while the camera stands still."
# Ours: no measurement says from how many pieces on a word is learnt worse.
GOOD_PIECES, MOST_PIECES = 3, 5
SHOWN, SHOWN_PIECES = 5, 30

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
    line: tuple[tuple[str, bool], ...] = ()
    """All pieces of the sentence, and whether each is one of the trigger's; of the trigger alone if not inside."""
    rank: int | None = None
    """Its place among `ranked` words that are one piece, the most frequent 1; None if it is none, or unknown."""
    ranked: int = 0
    common: bool = False
    """It is in the more frequent half of those words: prompts use it for something else."""
    near: tuple[str, ...] = ()
    """Words of the vocabulary in other capitals, or at one letter's distance."""
    head: str = ""
    """The first piece, if it is a word of its own."""
    use: CaptionUse = NO_USE
    """How the captions use the same word otherwise."""

    @property
    def verdict(self) -> Verdict:
        """bad: characters that the tokenizer does not know, more than 5 pieces, or an unlike spelling
        in more than 3. warning: an unlike spelling, 4 or 5 pieces, a common word, or captions that have
        its word otherwise too. (Limits ours.)
        """
        count = len(self.pieces)
        if UNKNOWN in self.pieces or count > (GOOD_PIECES if self.signs else MOST_PIECES):
            return "bad"
        doubtful = self.signs or self.common or self.ordinary
        return "warning" if doubtful or count > GOOD_PIECES else "good"

    @property
    def ordinary(self) -> bool:
        """Whether captions use its word as an ordinary one: in another form, or twice where it is a word."""
        return bool(self.use.words) or (self.word and self.use.repeated > 0)

    def text(self) -> str:
        """What the tokenizer and the captions say, in a line."""
        count = len(self.pieces)
        where = "in a sentence" if self.inside else "alone"
        shown = [*self.pieces[:SHOWN_PIECES], *(["..."] if count > SHOWN_PIECES else [])]
        found = f"{counted(count, 'piece')} {where} ({' | '.join(shown)})"
        said = [f"The tokenizer makes {found} of {self.trigger}", *self._meaning()]
        if UNKNOWN in self.pieces:
            said.append("it does not know some of the characters")
        if self.signs:
            said.append("its spelling has " + " and ".join(self.signs))
        if self.near:
            said.append(f"near words that the encoder knows: {', '.join(self.near[:SHOWN])}")
        return "; ".join([*said, *self._collisions()]) + "."

    def _meaning(self) -> list[str]:
        if self.common:
            return [
                f"a common word, number {self.rank} of {self.ranked} that are one piece, which brings its own meaning"
            ]
        if self.word:
            return ["a word that the encoder knows, which brings its own meaning"]
        lower = self.trigger.lower()
        said = [f"{lower} is a word that the encoder knows"] if self.lower_word else []
        return [
            *said,
            *([f"its first piece, {self.head}, is a word of its own"] if self.head else []),
        ]

    def _collisions(self) -> list[str]:
        said = []
        if self.use.words:
            words = ", ".join(f"{word} ({n})" for word, n in self.use.words[:SHOWN])
            said.append(f"captions also have {words}, as an ordinary word")
        if self.word and self.use.repeated:
            those = counted(self.use.repeated, "caption has", "captions have")
            said.append(f"{those} it more than once")
        return said

    def fix(self, better: Sequence[TriggerCheck] = ()) -> str:
        """What to do, with better triggers if some were found; empty where nothing is to be done."""
        if self.verdict == "good":
            return ""
        last = "then write it into every caption and prompt, and nothing else of its spelling into a caption"
        if better:
            named = ", ".join(
                f"{each.trigger} ({counted(len(each.pieces), 'piece')}, {each.verdict})"
                for each in better
            )
            return f"Better with this tokenizer: {named}. Take one, {last}."
        return (
            "Take a short plain word, for example MERMAID and not [m3rm41dtr4nf0rm4t10n]; look at the pieces again, "
            f"{last}."
        )


def check_trigger(
    trigger: str,
    tokenize: Tokenize,
    *,
    sentence: str = SENTENCE,
    vocabulary: Vocabulary | None = None,
    captions: Sequence[str] = (),
) -> TriggerCheck:
    """Cuts the trigger inside `sentence`, which has `{}` in its place.

    The pieces are the tokenizer's own. Where it changes the trigger's characters (an unknown letter),
    so that they are not found in its answer, the pieces are those of the trigger alone. With `vocabulary`
    it is told whether it is a common word and what is near to it, with `captions` what they collide with.
    Raises `UserError` for a trigger without characters.
    """
    trigger = trigger.strip()
    if not trigger:
        raise UserError(
            "The trigger is empty.", "A trigger is a word, for example MERMAID.", "Set a trigger."
        )
    line = _line(trigger, tokenize, sentence)
    inside = line is not None
    if line is None:
        line = tuple((piece, True) for piece in tokenize(trigger) if piece != SPACE)
    pieces = tuple(piece for piece, own in line if own)
    known = vocabulary or Vocabulary(())
    return TriggerCheck(
        trigger=trigger,
        sentence=sentence.replace("{}", trigger),
        pieces=pieces,
        inside=inside,
        word=_is_word(trigger, tokenize),
        lower_word=_is_word(trigger.lower(), tokenize),
        signs=spelling_signs(trigger),
        line=line,
        rank=known.rank(trigger),
        ranked=known.ranked,
        common=known.common(trigger),
        near=tuple(known.near(trigger)),
        head=_head(pieces, known),
        use=caption_use(trigger, captions),
    )


def spelling_signs(trigger: str) -> tuple[str, ...]:
    """What a plain word does not have. Digits at the end (`toy2`) are no sign."""
    found = {
        "digits between letters": _DIGITS_IN_LETTERS.search(trigger),
        "brackets": _BRACKETS.search(trigger),
    }
    return tuple(sign for sign, match in found.items() if match)


def _line(trigger: str, tokenize: Tokenize, sentence: str) -> tuple[tuple[str, bool], ...] | None:
    """The pieces of the sentence, and which hold the trigger; None where its characters do not come back."""
    pieces = tokenize(sentence.replace("{}", trigger))
    written = [_bytes(piece) for piece in pieces]
    joined, before = b"".join(written), sentence.partition("{}")[0].strip().encode()
    # From where the sentence puts it: the trigger "a" also stands elsewhere.
    head = joined.find(before)
    begins = joined.find(trigger.encode(), head + len(before)) if head >= 0 else -1
    if begins < 0:
        return None
    ends, at, line = begins + len(trigger.encode()), 0, []
    for piece, part in zip(pieces, written, strict=True):
        # A piece that is a space alone parts words: it is none of the trigger's.
        line.append((piece, bool(at < ends and at + len(part) > begins and part.strip(b" "))))
        at += len(part)
    return tuple(line)


def _head(pieces: Sequence[str], vocabulary: Vocabulary) -> str:
    first = pieces[0].removeprefix(SPACE) if len(pieces) > 1 else ""
    return first if first in vocabulary and pieces[0].startswith(SPACE) else ""


def _bytes(piece: str) -> bytes:
    """What a piece stands for in the text: one byte for `<0x5B>`, else its letters."""
    if byte := _BYTE.fullmatch(piece):
        return bytes.fromhex(byte[1])
    return piece.replace(SPACE, " ").encode()


def _is_word(text: str, tokenize: Tokenize) -> bool:
    # One piece with the space's mark: sentencepiece keeps `▁mermaid` apart from a word's inner part.
    return list(tokenize(text)) == [f"{SPACE}{text}"]
