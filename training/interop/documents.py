"""Pasted text as values: TOML, YAML or a command line, bounded in size and depth; no file is opened."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ...wan.errors import UserError
from .commands import SIGNS, looks_like_command, read_commands
from .tables import read_tables, toml_values, yaml_values

LONGEST = 50_000
"""Characters of all texts together; a config has a few thousand."""
MOST_DOCUMENTS = 20
PLACES = ("text", "dataset_text")
"""What a text is called that has no name of its own: the inputs of the node."""
_MARK = re.compile(r"^# file: (\S.*)$", re.M)
DIFFUSION_PIPE, AI_TOOLKIT, MUSUBI = "diffusion-pipe", "ai-toolkit", "musubi-tuner"
TRAINERS = (DIFFUSION_PIPE, AI_TOOLKIT, MUSUBI)
DATA = " dataset"
"""Ends the kind of a document that holds a trainer's dataset only."""
DATASET_FILE = "dataset.toml"
"""What a dataset of its own is called where it is written."""


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
    return list(_read(tuple(texts)))


# A text is read when it is queued, and again when it runs.
@lru_cache(maxsize=4)
def _read(texts: tuple[str, ...]) -> tuple[Document, ...]:
    pieces = [
        (name, text)
        for place, whole in zip(PLACES, texts, strict=False)
        for name, text in _split(whole, place)
        if _content(text)
    ]
    documents = [
        found for name, text in pieces[:MOST_DOCUMENTS] for found in _documents_in(name, text)
    ]
    if max(len(pieces), len(documents)) > MOST_DOCUMENTS:
        raise UserError(
            f"The pasted text has more than {MOST_DOCUMENTS} configs in it.",
            "It is one training: a config or command for each expert, and its datasets.",
            "Paste the config of one training.",
        )
    if not documents:
        raise UserError(
            "The pasted text is empty.",
            "It is a diffusion-pipe TOML, an ai-toolkit YAML, or a musubi-tuner command line.",
            "Paste the config's whole text.",
        )
    return tuple(documents)


def _split(text: str, name: str) -> Iterator[tuple[str, str]]:
    text = re.sub(r"^[ \t]*```.*$", "", text.lstrip("\ufeff").replace("\r\n", "\n"), flags=re.M)
    marks = list(_MARK.finditer(text))
    yield name, text[: marks[0].start()] if marks else text
    ends = [*(found.start() for found in marks[1:]), len(text)]
    for found, end in zip(marks, ends, strict=False):
        yield found.group(1).strip(), text[found.end() + 1 : end]


def _content(text: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def _documents_in(name: str, text: str) -> list[Document]:
    """One document of tables, or each of the commands. A table's texts may name what commands name."""
    try:
        return [_table_document(name, text)]
    except UserError:
        if not looks_like_command(text):
            raise
    commands = read_commands(name, text)
    if not commands:
        raise _unknown(name, "no command of musubi-tuner's training script")
    names = (
        [name] if len(commands) == 1 else [f"{name}, command {n + 1}" for n in range(len(commands))]
    )
    return [Document(of, MUSUBI, values, text) for of, values in zip(names, commands, strict=True)]


def _table_document(name: str, text: str) -> Document:
    values = read_tables(name, text)
    if not isinstance(values, dict):
        raise _unknown(name, f"the line {text.strip().splitlines()[0][:80]!r}")
    return Document(name, _kind(name, values), values, text)


def own_documents(files: Mapping[str, str], trainer: str) -> list[Document]:
    """The files that were written here for `trainer`: known, so not guessed and not bounded."""
    return [
        Document(
            name, trainer + (DATA if name == DATASET_FILE else ""), _own_values(name, text), text
        )
        for name, text in files.items()
    ]


def _own_values(name: str, text: str) -> dict[str, Any]:
    if name.endswith(".sh"):
        return read_commands(name, text)[0]
    return yaml_values(text) if name.endswith(".yaml") else toml_values(text)


def _kind(name: str, values: Mapping[str, Any]) -> str:
    config = values.get("config")
    if isinstance(config, dict) and "process" in config:
        return AI_TOOLKIT
    if isinstance(values.get("directory"), list):
        return DIFFUSION_PIPE + DATA
    if isinstance(values.get("datasets"), list):
        return MUSUBI + DATA
    if SIGNS & option_names(values):
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
