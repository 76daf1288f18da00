"""A config's values, taken one by one, so that what nobody took can be named."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...wan.errors import UserError

Reasons = Sequence[tuple[str, str]]
"""(pattern for a whole key, why it has no place in a plan)."""
MOST_REPEATS = 1_000_000


class Keys:
    """`values` by dotted name; a name that was asked for counts as read, whether it was there or not."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.where = where
        self._values = dict(_flat(values))
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def raw(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever the text holds
        self._read.add(key)
        value = self._values.get(key, default)
        # A command line gives words; one word is a value.
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            return value[0]
        return value

    def number(self, key: str, default: float | None = None) -> float | None:
        """Numbers, and text that is one: YAML reads 1e-4 as text."""
        value = self.raw(key, default)
        if value is None or value == "":
            return default
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self._wrong(key, value, "a number, for example 0.0001")
        return number

    def positive(
        self, key: str, default: float | None = None, most: float = math.inf
    ) -> float | None:
        """Numbers above 0."""
        value = self.number(key, default)
        if value is not None and not 0 < value <= most:
            up_to = f", up to {most:,.0f}" if most < math.inf else ""
            raise self._wrong(key, self.raw(key), f"above 0{up_to}")
        return value

    def whole(self, key: str, default: int | None = None, least: int = 0) -> int | None:
        value = self.number(key)
        if value is None:
            return default
        if value != int(value) or not least <= value < 2**53:
            raise self._wrong(key, self.raw(key), f"a whole number, {least} or more")
        return int(value)

    def seed(self, key: str) -> int:
        """Whole numbers of any sign, as large as a generator takes, without rounding; 0 where there is none."""
        value = self.raw(key)
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,30}", value):
            value = int(value)
        if value is None or value == "":
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**64:
            raise self._wrong(key, value, "a whole number, for example 42")
        return value

    def text(self, key: str, default: str = "") -> str:
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, (dict, list)):
            raise self._wrong(key, value, "text")
        return str(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """Booleans; an option without a word is true."""
        value = self.raw(key)
        if value is None:
            return default
        if value == [] or str(value).lower() == "true":
            return True
        if str(value).lower() == "false":
            return False
        raise self._wrong(key, value, "true or false")

    def words(self, key: str) -> list[str]:
        """The words of an option, or a list's values, as text."""
        value = self.raw(key)
        if value is None:
            return []
        return [str(word) for word in (value if isinstance(value, list) else [value])]

    def left(self) -> dict[str, Any]:
        """What was there and never read."""
        return {key: value for key, value in self._values.items() if key not in self._read}

    def _wrong(self, key: str, value: object, can_be: str) -> UserError:
        return UserError(
            f"{key} in {self.where} is {value!r:.80}.", f"It is {can_be}.", f"Correct {key}."
        )


def sort_left(keys: Keys, reasons: Reasons) -> tuple[list[str], list[str]]:
    """(ignored, with the reason; unknown) of what was never read."""
    ignored, unknown = [], []
    for key, value in keys.left().items():
        shown = key if value == [] else f"{key} = {_short(value)}"
        reason = next((why for pattern, why in reasons if re.fullmatch(pattern, key)), None)
        if reason is None:
            unknown.append(f"{shown} ({keys.where})")
        else:
            ignored.append(f"{shown}: {reason}")
    return ignored, unknown


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
