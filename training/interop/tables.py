"""TOML and YAML as values, within bounds that hold before and while a parser reads: any text is read at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import tomlkit
import yaml
from tomlkit.exceptions import ParseError, TOMLKitError

from ...wan.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None

MOST_VALUES, DEEPEST, MOST_ALIASES = 5_000, 30, 20
MOST_PARTS, MOST_DOTTED = 4, 100
"""Parts of a dotted key or header, and how many of these there are: parsers need more than linear time for both."""
LARGEST = 10**60
"""Whole numbers below can be printed and made floats; Python refuses to print more than 4,300 digits."""

# What is never closed ends with its line or the text: it is broken, and costs one pass.
_PART = r"(?:[\w-]+|\"(?:[^\"\\\n]|\\[^\n])*(?:\"|\\?$)|'[^'\n]*(?:'|$))"
_DOTTED = re.compile(
    # Long strings and comments hold no keys; a long string can end in two quotes of its own.
    r"\"{3}(?:[^\\]|\\.)*?(?:\"{3,5}|\\?\Z)|'{3}.*?(?:'{3,5}|\Z)|#[^\n]*"
    rf"|(?P<header>^[ \t]*\[\[?[ \t]*(?=[\w\"'-]))?(?P<key>{_PART}(?:[ \t]*\.[ \t]*{_PART})*)(?P<equals>[ \t]*=)?",
    re.M | re.S,
)
_TOML_LINE = re.compile(r"^[ \t]*(?:\[|[\w.'\"-]+[ \t]*=)", re.M)


def read_tables(name: str, text: str) -> object:
    """TOML if it is that, else YAML; the error is that of the format that the text looks like."""
    try:
        values: object = _limited_toml(name, text)
    except UserError as error:
        values = _yaml_or(error, name, text)
    bounded(values, name)
    return values


def _yaml_or(toml_error: UserError, name: str, text: str) -> object:
    like_toml = _TOML_LINE.search(text)
    try:
        values = _limited_yaml(name, text)
    except UserError:
        if like_toml:
            raise toml_error from None
        raise
    # The one YAML that is known has this key; lines of any YAML can look like TOML's.
    if like_toml and not (isinstance(values, dict) and "config" in values):
        raise toml_error
    return values


def toml_values(text: str) -> dict[str, Any]:
    """TOML of our own, without bounds."""
    return tomllib.loads(text) if tomllib else tomlkit.parse(text).unwrap()


def yaml_values(text: str) -> Any:  # noqa: ANN401 - whatever the text holds
    """YAML of our own, without bounds."""
    return yaml.safe_load(text)


def _limited_toml(name: str, text: str) -> dict[str, Any]:
    _short_keys(name, text)
    try:
        return toml_values(text)
    except (TOMLKitError, RecursionError, ValueError, OverflowError) as error:
        raise _broken(name, "TOML", text, error) from error


def _short_keys(name: str, text: str) -> None:
    dotted = 0
    for found in _DOTTED.finditer(text):
        if not (found["equals"] or found["header"]) or "." not in found["key"]:
            continue
        dotted += 1
        parts = len(re.findall(_PART, found["key"], re.M))
        if parts > MOST_PARTS or dotted > MOST_DOTTED:
            raise UserError(
                f"{name} has {found['key'][:60]!r}: a key of more than {MOST_PARTS} parts, or the dotted key "
                f"number {MOST_DOTTED + 1}.",
                "The keys of a config have one or two parts.",
                "Paste the config alone.",
            )


class _Loader(yaml.SafeLoader):
    """Counts while it parses, so that nothing is built of a text that is too deep or too long."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._name = name
        self._depth = self._values = self._aliases = 0

    def get_event(self) -> Any:  # noqa: ANN401 - the parser's own
        event: Any = super().get_event()
        if isinstance(event, yaml.CollectionStartEvent):
            self._depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            self._depth -= 1
        self._values += isinstance(event, yaml.NodeEvent)
        self._aliases += isinstance(event, yaml.AliasEvent)
        # A mapping's keys are events too.
        if self._depth > DEEPEST or self._values > 2 * MOST_VALUES:
            raise _too_much(self._name)
        merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
        if self._aliases > MOST_ALIASES or merge:
            raise _aliases(self._name)
        return event


def _limited_yaml(name: str, text: str) -> object:
    try:
        loader = _Loader(text, name)
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError, ArithmeticError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise _broken(name, "YAML", text, error) from error


def _aliases(name: str) -> UserError:
    return UserError(
        f"{name} has more than {MOST_ALIASES} aliases (*name), or a merge (<<).",
        f"Up to {MOST_ALIASES} aliases and no merges are read.",
        "Write the values out where they are used.",
    )


def _too_much(name: str) -> UserError:
    return UserError(
        f"{name} holds more than {MOST_VALUES:,} values, or is nested deeper than {DEEPEST}.",
        "A config has tens of values.",
        "Paste the config alone.",
    )


def bounded(values: object, name: str, most: int = MOST_VALUES) -> None:
    """Refuses what is too deep, too much or too large to be a config, before anything walks through it."""
    left = most
    stack = [(values, 0)]
    while stack:
        value, depth = stack.pop()
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise _too_much(name)
        if isinstance(value, Mapping):
            stack += [(inner, depth + 1) for inner in value.values()]
            _printable(name, *value)
        elif isinstance(value, (list, tuple, set)):
            stack += [(inner, depth + 1) for inner in value]
        else:
            _printable(name, value)


def _printable(name: str, *values: object) -> None:
    if any(isinstance(value, int) and abs(value) >= LARGEST for value in values):
        raise UserError(
            f"{name} holds a whole number of more than 60 digits.",
            "A config's numbers have a few digits.",
            "Correct it.",
        )


def _broken(name: str, syntax: str, text: str, error: Exception) -> UserError:
    lines = text.splitlines()
    line = _line_of(error) or _open_quote(lines)
    at = f" in line {line}" if line else ""
    shown = f": {lines[line - 1].strip()[:80]!r}" if 0 < line <= len(lines) else ""
    why = "nested too deeply" if isinstance(error, RecursionError) else _reason(error)
    return UserError(
        f"{name} is broken {syntax}{at}{shown} ({why}).",
        "A config is complete TOML or YAML, as its trainer reads it.",
        "Correct that line, or paste the whole file again.",
    )


def _line_of(error: Exception) -> int:
    if isinstance(error, ParseError):
        return error.line
    if isinstance(error, yaml.MarkedYAMLError):
        return error.problem_mark.line + 1 if error.problem_mark else 0
    found = re.search(r"\(at line (\d+), column \d+\)$", str(error))
    return int(found.group(1)) if found else 0


def _open_quote(lines: list[str]) -> int:
    """The first line with a quote that does not end in it, for an error at the text's end; 0 is none."""
    strings = re.compile(r"\"(?:[^\"\\]|\\.)*(\"?)|'[^']*('?)|#.*")
    for number, line in enumerate(lines, 1):
        for found in strings.finditer(line):
            if found[0][0] != "#" and not (found[1] or found[2]):
                return number
    return 0


def _reason(error: Exception) -> str:
    lines = (getattr(error, "problem", None) or str(error)).splitlines() or [""]
    return re.sub(
        r"\s+(at line \d+ col \d+|\(at line \d+, column \d+\)|\(at end of document\))$",
        "",
        lines[0],
    )[:160]
