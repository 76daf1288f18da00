"""How strong a LoRA is at each sampling step: one small syntax, and the factor that it gives.

A schedule is a factor for every step of a run; the strength of the row multiplies it. It is written as one of

    0.8                       the same all along
    0.2 0.5 1                 one value a step, the last one holds (also 0.2, 0.5, 1 and [0.2, 0.5, 1])
    0.2 -> 1                  a ramp from the first step to the last
    0.2@0, 1@50%              keyframes VALUE@PLACE: a comma ramps to the next one, a bar jumps to it
    1@s1, 1@s4 | 0@s5         places as steps, counted from 1
    1@sigma0.9, 0@sigma0.5    places as noise levels, from 1 (noise) down to 0

A place without a word is a part of the run: 0 is its first step and 1 its last one. The first value holds before
its place and the last one after it. A schedule has places of one kind.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import UserError

Kind = Literal["fraction", "step", "sigma"]
LIMIT = 100.0
"""Largest value: the range of the strengths of the host's own LoRA nodes."""
MOST_STEPS = 10_000
SHOWN = 80
"""Letters of a schedule that an error repeats."""


@dataclass(frozen=True)
class Keyframe:
    """A value from a place on; `jump` holds the value before it until there, instead of a ramp."""

    value: float
    place: float
    """Part of the run in [0, 1], step counted from 1, or sigma in [0, 1]: by the schedule's kind."""
    jump: bool = False


@dataclass(frozen=True)
class StrengthSchedule:
    """Keyframes in the order of a run: rising parts and steps, falling sigmas. `parse_strength` makes them."""

    keyframes: tuple[Keyframe, ...]
    kind: Kind = "fraction"

    @property
    def constant(self) -> float | None:
        """The one value, or None when it changes."""
        values = {keyframe.value for keyframe in self.keyframes}
        return values.pop() if len(values) == 1 else None

    @property
    def peak(self) -> float:
        """The largest absolute value of the keyframes."""
        return max(abs(keyframe.value) for keyframe in self.keyframes)

    @property
    def is_list(self) -> bool:
        """One value for each of the first steps."""
        places = [keyframe.place for keyframe in self.keyframes]
        return (
            self.kind == "step"
            and places == list(range(1, len(places) + 1))
            and not any(keyframe.jump for keyframe in self.keyframes)
        )

    def at(self, *, step: int, steps: int, sigma: float) -> float:
        """The factor of one step.

        `step` counts from 0 over a run of `steps` (both experts' together); `sigma` is the noise at its start, 1 to 0.
        A part of the run is step / (steps - 1), so that the last step is 1; a run of one step is at 0.
        """
        now = self._order(_place_now(self.kind, step, steps, sigma))
        places = [self._order(keyframe.place) for keyframe in self.keyframes]
        passed = bisect_right(places, now)
        if passed in (0, len(places)):
            return self.keyframes[max(0, passed - 1)].value
        before, after = self.keyframes[passed - 1 : passed + 1]
        if after.jump:
            return before.value
        share = (now - places[passed - 1]) / (places[passed] - places[passed - 1])
        value = before.value + (after.value - before.value) * share
        # Rounding may not carry a ramp beyond its ends.
        return min(max(value, min(before.value, after.value)), max(before.value, after.value))

    def _order(self, place: float) -> float:
        """Rises along a run."""
        return -place if self.kind == "sigma" else place

    def __str__(self) -> str:
        """Text that `parse_strength` reads back."""
        first, *others = self.keyframes
        if not others:
            return number_text(first.value)
        if self.is_list:
            return " ".join(number_text(keyframe.value) for keyframe in self.keyframes)
        text = keyframe_text(self.kind, first)
        for keyframe in others:
            text += f"{' |' if keyframe.jump else ','} {keyframe_text(self.kind, keyframe)}"
        return text


def schedule_curve(schedule: StrengthSchedule, sigmas: Sequence[float]) -> list[float]:
    """The factor of each step; `sigmas` are the noise levels of a whole run, one more than it has steps."""
    steps = len(sigmas) - 1
    return [
        schedule.at(step=step, steps=steps, sigma=sigma) for step, sigma in enumerate(sigmas[:-1])
    ]


def parse_strength(text: str) -> StrengthSchedule:
    """The schedule that `text` writes, in the syntax at the top of this module.

    Raises `UserError` with the place in the text, counted from 1, what can stand there, and an example.
    """
    if not text.strip():
        raise UserError(
            "The strength schedule is empty.",
            "It is a number, a list of numbers, a ramp or keyframes.",
            "Write 1 for no change, or leave the schedule away.",
        )
    if ";" in text:
        raise _unexpected(
            text,
            text.index(";"),
            "';'",
            "A schedule is for one expert.",
            "Put the part for the low-noise expert into schedule_low, as in schedule 1, schedule_low 0",
        )
    if "->" in text:
        return _ramp(text)
    return _keyframes(text) if "@" in text else _list(text)


_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_IS_NUMBER = re.compile(_NUMBER, re.ASCII | re.IGNORECASE)
_IS_PLACE = re.compile(
    rf"(?P<word>sigma|step|s|\u03c3)?\s*(?P<number>{_NUMBER})\s*(?P<percent>%)?",
    re.ASCII | re.IGNORECASE,
)
_KINDS: dict[str, Kind] = {
    "": "fraction",
    "s": "step",
    "step": "step",
    "sigma": "sigma",
    "\N{GREEK SMALL LETTER SIGMA}": "sigma",
}


def _ramp(text: str) -> StrengthSchedule:
    parts = text.split("->")
    if len(parts) > 2:
        raise _unexpected(
            text,
            text.index("->", text.index("->") + 2),
            "a second '->'",
            "A ramp has two values.",
            "Write keyframes for more, as in 0.2@0, 1@0.5, 0.4@1",
        )
    first, last = (_value(text, part, at) for part, at in _placed(parts, 2))
    return StrengthSchedule((Keyframe(first, 0.0), Keyframe(last, 1.0)))


def _list(text: str) -> StrengthSchedule:
    body, at = _without_brackets(text)
    values = []
    for part, start in _placed(body.split(","), 1):
        words = [(match.group(), match.start()) for match in re.finditer(r"\S+", part)]
        values += [
            _value(text, word, at + start + offset) for word, offset in words or [("", len(part))]
        ]
    if len(values) == 1:
        return _constant(values[0])
    frames = (Keyframe(value, float(step)) for step, value in enumerate(values, 1))
    return StrengthSchedule(tuple(frames), "step")


def _without_brackets(text: str) -> tuple[str, int]:
    body = text.strip()
    at = text.index(body)
    if body.startswith("[") and body.endswith("]"):
        return body[1:-1], at + 1
    return body, at


def _keyframes(text: str) -> StrengthSchedule:
    found: list[tuple[Keyframe, Kind]] = []
    for part, at in _placed(re.split(r"[,|]", text), 1):
        value, sign, place = part.partition("@")
        place_at = at + len(value) + 1
        if not sign:
            word, at = _stripped(part, at)
            raise _unexpected(text, at, _name(word), "A keyframe is VALUE@PLACE.", _PLACE_EXAMPLE)
        number = _value(text, value, at)
        kind, where = _place(text, place, place_at)
        frame = Keyframe(number, where, jump=at > 0 and text[at - 1] == "|")
        if found:
            _check_order(text, place_at, found[-1], (frame, kind))
        found.append((frame, kind))
    if len(found) == 1:
        return _constant(found[0][0].value)
    return StrengthSchedule(tuple(frame for frame, _ in found), found[0][1])


def _constant(value: float) -> StrengthSchedule:
    return StrengthSchedule((Keyframe(value, 0.0),))


def _placed(parts: list[str], gap: int) -> list[tuple[str, int]]:
    """Each part with where it begins, when separators of `gap` letters stood between them."""
    starts = [0]
    for part in parts[:-1]:
        starts.append(starts[-1] + len(part) + gap)
    return list(zip(parts, starts, strict=True))


def _value(text: str, part: str, at: int) -> float:
    word, at = _stripped(part, at)
    number = float(word) if _IS_NUMBER.fullmatch(word) else None
    if number is None or abs(number) > LIMIT:
        raise _unexpected(
            text,
            at,
            _name(word),
            f"A value is a number from -{LIMIT:g} to {LIMIT:g} with a decimal point.",
            "Write for example 0.8, or 0.2@0, 1@0.5 for keyframes",
        )
    return number


def _place(text: str, part: str, at: int) -> tuple[Kind, float]:
    word, at = _stripped(part, at)
    found = _IS_PLACE.fullmatch(word)
    if found is not None:
        kind = _KINDS[(found["word"] or "").lower()]
        place = float(found["number"]) / (100 if found["percent"] else 1)
        if _fits(kind, place) and not (found["word"] and found["percent"]):
            return kind, place
    raise _unexpected(text, at, _name(word), _PLACES, _PLACE_EXAMPLE)


def _fits(kind: Kind, place: float) -> bool:
    if kind == "step":
        return 1 <= place <= MOST_STEPS and place == int(place)
    return 0 <= place <= 1


def _stripped(part: str, at: int) -> tuple[str, int]:
    return part.strip(), at + len(part) - len(part.lstrip())


def _name(word: str) -> str:
    return repr(word) if word else "nothing"


_PLACES = (
    "A place is a part of the run from 0 to 1 or in percent, a step such as s3 counted from 1, or a noise level such "
    "as sigma0.9."
)
_PLACE_EXAMPLE = "Write for example 1@0.5, 1@50%, 1@s3 or 1@sigma0.9"


def _check_order(
    text: str, at: int, before: tuple[Keyframe, Kind], now: tuple[Keyframe, Kind]
) -> None:
    (earlier, kind), (frame, other) = before, now
    what = f"{place_text(other, frame.place)} after {place_text(kind, earlier.place)}"
    if kind != other:
        raise _unexpected(
            text,
            at,
            what,
            "All places of a schedule are of one kind: parts of the run, steps, or sigmas.",
            f"Write for example {_RAMPS[kind]} or {_RAMPS[other]}",
        )
    can_be = "Places follow the run: parts and steps rise, sigmas fall, and no two are equal."
    if frame.place == earlier.place:
        to_do = f"A bar jumps to a value, for example {_JUMPS[kind]}"
        raise _unexpected(text, at, what, can_be, to_do)
    if (frame.place < earlier.place) != (kind == "sigma"):
        turned = f"{keyframe_text(kind, frame)}, {keyframe_text(kind, earlier)}"
        raise _unexpected(text, at, what, can_be, f"Write them in order: {turned}")


_RAMPS: dict[Kind, str] = {
    "fraction": "0.2@0, 1@0.5",
    "step": "0.2@s1, 1@s10",
    "sigma": "0.2@sigma1, 1@sigma0.9",
}
_JUMPS: dict[Kind, str] = {kind: ramp.replace(",", " |") for kind, ramp in _RAMPS.items()}


def _unexpected(text: str, at: int, what: str, can_be: str, to_do: str) -> UserError:
    shown = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
    return UserError(
        f"The strength schedule {shown!r} has {what} at position {at + 1}.", can_be, f"{to_do}."
    )


def number_text(value: float) -> str:
    """The shortest text of the same number."""
    return repr(value).removesuffix(".0")


def keyframe_text(kind: Kind, keyframe: Keyframe) -> str:
    """A keyframe as it is written."""
    return f"{number_text(keyframe.value)}@{place_text(kind, keyframe.place)}"


def place_text(kind: Kind, place: float) -> str:
    """A place as it is written behind the @."""
    return {"fraction": "", "step": "s", "sigma": "sigma"}[kind] + number_text(place)


def rounded(sigma: float) -> float:
    """Samplers hold sigmas in float32, where 0.9 is 0.89999998; a place or boundary of 0.9 is meant to be reached."""
    return round(sigma, 6)


def _place_now(kind: Kind, step: int, steps: int, sigma: float) -> float:
    if kind == "sigma":
        return rounded(sigma)
    if kind == "step":
        return float(step + 1)
    return step / (steps - 1) if steps > 1 else 0.0
