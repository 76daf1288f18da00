"""Pasted text as values: TOML, YAML or a command line, bounded in size and depth; no file is opened."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tomlkit
import yaml
from tomlkit.exceptions import ParseError, TOMLKitError

from ...wan.errors import UserError

LONGEST = 50_000
"""Characters of all texts together; a config has a few thousand."""
MOST_VALUES, DEEPEST, MOST_ALIASES = 5_000, 30, 20
_ITEMS_IN_A_ROW = re.compile(r"(?:[-?:][ \t]+){30}")
PLACES = ("text", "dataset_text")
"""What a text is called that has no name of its own: the inputs of the node."""
_MARK = re.compile(r"^# file: (\S.*)$", re.M)
_OPTION = re.compile(r"(?:^|\s)--([A-Za-z][\w-]*)")
_MUSUBI_SIGNS = {
    "network_module",
    "network_dim",
    "dit",
    "dit_high_noise",
    "max_train_steps",
    "max_train_epochs",
    "discrete_flow_shift",
    "timestep_sampling",
}

DIFFUSION_PIPE, AI_TOOLKIT, MUSUBI = "diffusion-pipe", "ai-toolkit", "musubi-tuner"
TRAINERS = (DIFFUSION_PIPE, AI_TOOLKIT, MUSUBI)
DATA = " dataset"
"""Ends the kind of a document that holds a trainer's dataset only."""


class Document(NamedTuple):
    """One text, read. `kind` is a trainer's name, or that name and `DATA`."""

    name: str
    kind: str
    values: dict[str, Any]
    text: str


def mark(name: str) -> str:
    """The line that begins a file where several stand in one text; a comment in TOML, YAML and shell."""
    return f"# file: {name}"


def read_documents(texts: Sequence[str]) -> list[Document]:
    """Every document in the one or two texts; broken, oversized and unknown ones are errors."""
    length = sum(map(len, texts))
    if length > LONGEST:
        raise UserError(
            f"The pasted text has {length:,} characters.",
            f"A config has a few thousand; up to {LONGEST:,} are read.",
            "Paste the config alone.",
        )
    documents = [
        _document(name, text)
        for place, whole in zip(PLACES, texts, strict=False)
        for name, text in _split(whole, place)
        if _content(text)
    ]
    if not documents:
        raise UserError(
            "The pasted text is empty.",
            "It is a diffusion-pipe TOML, an ai-toolkit YAML, or a musubi-tuner command line.",
            "Paste the config's whole text.",
        )
    return documents


def _split(text: str, name: str) -> Iterator[tuple[str, str]]:
    text = re.sub(r"^[ \t]*```.*$", "", text.lstrip("\ufeff").replace("\r\n", "\n"), flags=re.M)
    marks = list(_MARK.finditer(text))
    yield name, text[: marks[0].start()] if marks else text
    ends = [*(found.start() for found in marks[1:]), len(text)]
    for found, end in zip(marks, ends, strict=False):
        yield found.group(1).strip(), text[found.end() + 1 : end]


def _content(text: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def _document(name: str, text: str) -> Document:
    options = set(_OPTION.findall(re.sub(r"^[ \t]*#.*$", "", text, flags=re.M)))
    if "wan_train_network" in text or options & _MUSUBI_SIGNS:
        return Document(name, MUSUBI, _command(name, text), text)
    _shallow(name, text)
    values = _tables(name, text)
    bounded(values, name)
    return Document(name, _kind(name, values), values, text)


def _shallow(name: str, text: str) -> None:
    """Refuses brackets and list items inside each other before a parser, slow with those, meets them."""
    depth = deepest = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        depth = max(depth, 0)
        deepest = max(deepest, depth)
    if deepest > DEEPEST or _ITEMS_IN_A_ROW.search(text):
        raise _too_much(name)


def _too_much(name: str) -> UserError:
    return UserError(
        f"{name} holds more than {MOST_VALUES:,} values, or is nested deeper than {DEEPEST}.",
        "A config has tens of values.",
        "Paste the config alone.",
    )


def _tables(name: str, text: str) -> dict[str, Any]:
    """TOML if it is that, else YAML; the error is that of the format that the text looks like."""
    try:
        return tomlkit.parse(text).unwrap()
    except (TOMLKitError, RecursionError, ValueError) as error:
        if re.search(r"^[ \t]*(\[|[\w.'\"-]+[ \t]*=)", text, re.M):
            raise _broken(name, "TOML", text, error) from error
    try:
        _check_yaml(name, text)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _broken(name, "YAML", text, error) from error
    if not isinstance(values, dict):
        raise _unknown(name, f"the line {text.strip().splitlines()[0][:80]!r}")
    return values


def _check_yaml(name: str, text: str) -> None:
    """Aliases that would unfold to more than the text, before anything is unfolded."""
    aliases = merges = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        aliases += isinstance(event, yaml.AliasEvent)
        merges += isinstance(event, yaml.ScalarEvent) and event.value == "<<"
    if aliases > MOST_ALIASES or merges:
        raise UserError(
            f"{name} has {aliases} aliases (*name) and {merges} merges (<<).",
            f"Up to {MOST_ALIASES} aliases and no merges are read.",
            "Write the values out where they are used.",
        )


def _broken(name: str, syntax: str, text: str, error: Exception) -> UserError:
    if isinstance(error, ParseError):
        line = error.line
    elif isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        line = error.problem_mark.line + 1
    else:
        line = 0
    lines = text.splitlines()
    at = f" in line {line}" if line else ""
    shown = f": {lines[line - 1].strip()[:80]!r}" if 0 < line <= len(lines) else ""
    why = "nested too deeply" if isinstance(error, RecursionError) else _reason(error)
    return UserError(
        f"{name} is broken {syntax}{at}{shown} ({why}).",
        "A config is complete TOML or YAML, as its trainer reads it.",
        "Correct that line, or paste the whole file again.",
    )


def _reason(error: Exception) -> str:
    problem = getattr(error, "problem", None) or str(error)
    return re.sub(r"\s+at line \d+ col \d+$", "", problem.splitlines()[0])[:160]


def _command(name: str, text: str) -> dict[str, list[str]]:
    """Option names without dashes to their words; several lines joined by a backslash, ^ or ` at their end."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"[\\^`][ \t]*(\n|$)", " ", "\n".join(lines))
    try:
        words = shlex.split(joined, comments=False)
    except ValueError as error:
        raise UserError(
            f"{name} has a quote that is never closed ({error}).",
            "It is a command line as a shell reads it.",
            "Close the quote, or paste the command again.",
        ) from error
    script = [n for n, word in enumerate(words) if "wan_train_network" in word]
    options: dict[str, list[str]] = {}
    current: list[str] = []
    # What stands before the script is for the launcher.
    for word in words[script[-1] + 1 if script else 0 :]:
        if word.startswith("--") and len(word) > 2:
            option, equals, value = word[2:].partition("=")
            current = options[option.replace("-", "_")] = [value] if equals else []
        else:
            current.append(word)
    return options


def bounded(values: object, name: str) -> None:
    """Refuses what is too deep or too much to be a config, before anything walks through it."""
    left = MOST_VALUES
    stack = [(values, 0)]
    while stack:
        value, depth = stack.pop()
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise _too_much(name)
        if isinstance(value, Mapping):
            stack += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, (list, tuple, set)):
            stack += [(inner, depth + 1) for inner in value]


def _kind(name: str, values: Mapping[str, Any]) -> str:
    config = values.get("config")
    if isinstance(config, dict) and "process" in config:
        return AI_TOOLKIT
    if isinstance(values.get("directory"), list):
        return DIFFUSION_PIPE + DATA
    if isinstance(values.get("datasets"), list):
        return MUSUBI + DATA
    if _MUSUBI_SIGNS & option_names(values):
        return MUSUBI
    tables = sum(isinstance(values.get(key), dict) for key in ("model", "adapter", "optimizer"))
    if tables >= 2 or "micro_batch_size_per_gpu" in values:
        return DIFFUSION_PIPE
    raise _unknown(name, f"the keys {', '.join(map(str, list(values)[:8]))}")


def option_names(values: Mapping[str, Any]) -> set[str]:
    """Names at the top and one table below, which is how musubi-tuner reads its arguments' TOML."""
    names = {str(key) for key in values}
    for table in values.values():
        names |= {str(key) for key in table} if isinstance(table, dict) else set()
    return names


def _unknown(name: str, what: str) -> UserError:
    return UserError(
        f"{name} is no config that is known here: it has {what}.",
        "It can be a diffusion-pipe config or dataset TOML, an ai-toolkit YAML or JSON, a musubi-tuner command "
        "line, its arguments as TOML, or its dataset TOML.",
        "Paste the trainer's config, not its log. A plan saved by Tandem is loaded by the plan nodes.",
    )
