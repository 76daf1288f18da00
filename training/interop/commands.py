"""Pasted command lines of musubi-tuner's training script: bash, cmd or PowerShell, one or several."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from ...wan.errors import UserError

SIGNS = {
    "network_module",
    "network_dim",
    "dit",
    "dit_high_noise",
    "max_train_steps",
    "max_train_epochs",
    "discrete_flow_shift",
    "timestep_sampling",
}
"""Options by which its arguments are known."""
SCRIPT = "wan_train_network"
_OPTION = re.compile(r"(?:^|\s)--([A-Za-z][\w-]*)")
_WINDOWS = re.compile(rf"[\^`][ \t]*$|(?:^|[\s\"'=])[A-Za-z]:\\|\\{SCRIPT}", re.M)
_LAUNCHER = re.compile(r"(?:.*[\\/])?(?:accelerate|python[\d.]*|torchrun|uv)(?:\.exe)?")

_PLAIN = r"[^\s\"'\\;|&<>]"
# One character at a time within quotes: what is never closed costs one pass.
_POSIX_PARTS = rf"{_PLAIN}+|\\.|\"(?:[^\"\\]|\\.)*\"|'[^']*'"
_WINDOWS_PARTS = rf"(?:{_PLAIN}|\\)+|\"[^\"]*\"|'[^']*'"
_TOKEN = (
    r"(?P<redirect>(?:(?<!\S)\d(?=[<>]))?&?[<>]+&?)"
    r"|(?P<end>[|&;\n]+)|[ \t\r\f\v]+|(?P<word>(?:{parts})+)|(?P<other>.)"
)


class _Segment(NamedTuple):
    """Words between two ends of commands; `end` is what stands before them."""

    end: str
    words: list[str]


def looks_like_command(text: str) -> bool:
    """Whether the text names the script or its options anywhere; a TOML may too."""
    options = set(_OPTION.findall(_without_comments(text)))
    return SCRIPT in text or bool(options & SIGNS)


def read_commands(name: str, text: str) -> list[dict[str, list[str]]]:
    """Each command's option names without dashes, to their words. What follows `|`, `>`, `&&` or `;` is no argument."""
    segments = list(_segments(name, text))
    has_script = any(_scripts(segment.words) for segment in segments)
    commands: list[list[str]] = []
    goes_on = False
    for end, words in segments:
        lines_only = not end.strip()
        if places := _scripts(words):
            commands += _after_scripts(words, places)
            goes_on = True
        elif goes_on and lines_only and _continues(words, commands[-1]):
            commands[-1] += words
        elif not has_script and not commands and any(word.startswith("--") for word in words):
            commands.append(words)
            goes_on = True
        else:
            goes_on = False
    return [_options(words) for words in commands]


def _scripts(words: list[str]) -> list[int]:
    """Where the script's name stands: as a file, or as a module after -m."""
    ends = [re.split(r"[\\/]", word)[-1] for word in words]
    return [
        n
        for n, end in enumerate(ends)
        if end == f"{SCRIPT}.py" or (n and words[n - 1] == "-m" and end.split(".")[-1] == SCRIPT)
    ]


def _after_scripts(words: list[str], places: list[int]) -> Iterator[list[str]]:
    for place, following in pairwise([*places, None]):
        arguments = words[place + 1 : following] if place is not None else []
        if following is not None:
            launcher = [n for n, word in enumerate(arguments) if _LAUNCHER.fullmatch(word)]
            arguments = arguments[: launcher[-1]] if launcher else arguments
        yield arguments


def _continues(words: list[str], command: list[str]) -> bool:
    """A line of arguments whose line before had no sign that it goes on."""
    return words[0].startswith("-") or bool(command and command[-1].startswith("--"))


def _options(words: list[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    current: list[str] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            option, equals, value = word[2:].partition("=")
            current = options[option.replace("-", "_")] = [value] if equals else []
        else:
            current.append(word)
    return options


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _segments(name: str, text: str) -> Iterator[_Segment]:
    text = _without_comments(text)
    windows = bool(_WINDOWS.search(text))
    # A line goes on after \, ^ or ` at its end; a quoted Windows path can end in \" before that.
    text = re.sub(r"[\\^`][ \t]*(\n|$)", " ", text)
    parts = _WINDOWS_PARTS if windows else _POSIX_PARTS
    segment, redirected = _Segment("", []), False
    for token in re.finditer(_TOKEN.replace("{parts}", parts), text, re.S):
        if token["other"] and token["other"] in "\"'":
            raise _unclosed(name)
        if token["redirect"]:
            redirected = True
        elif token["end"]:
            if segment.words:
                yield segment
                segment = _Segment("", [])
            segment, redirected = _Segment(segment.end + token["end"], []), False
        elif token["word"] and not redirected:
            segment.words.append(_unquoted(token["word"], parts, windows))
    if segment.words:
        yield segment


def _unquoted(word: str, parts: str, windows: bool) -> str:
    return "".join(_part(found[0], windows) for found in re.finditer(parts, word, re.S))


def _part(part: str, windows: bool) -> str:
    if part[0] == '"':
        return part[1:-1] if windows else re.sub(r"\\([\\\"])", r"\1", part[1:-1])
    if part[0] == "'":
        return part[1:-1]
    return part[1:] if part[0] == "\\" and not windows else part


def _unclosed(name: str) -> UserError:
    return UserError(
        f"{name} has a quote that is never closed.",
        "It is a command line as a shell reads it.",
        "Close the quote, or paste the command again.",
    )
