"""The words by which a LoRA is called, from its metadata and from the files that other programs leave beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from .files import tandem_metadata

# Entries that were written as triggers. `ss_tag_frequency` is not among them: it counts words of captions.
METADATA_KEYS = (
    "modelspec.trigger_phrase",
    "trigger_phrase",
    "trigger_words",
    "trigger_word",
    "trigger",
)
# LoRA Manager, Civitai helpers, A1111 and ComfyUI-Custom-Scripts, in this order.
SIDECARS = (".metadata.json", ".civitai.info", ".json", ".txt")
JSON_KEYS = ("trainedWords", "trained_words", "trigger_words", "activation text", "trigger")
LONGEST = 200
"""Characters of a set; longer text is a description."""
MOST_BYTES = 5_000_000


class TriggerSet(NamedTuple):
    """Words that belong together, `MERMAID` or `cinematic, film grain`, and where they were found."""

    words: str
    source: str


class Triggers(NamedTuple):
    """The sets of one file, each once, and what could not be read."""

    sets: tuple[TriggerSet, ...] = ()
    troubles: tuple[str, ...] = ()


def find_triggers(path: Path, metadata: Mapping[str, str]) -> Triggers:
    """The trigger words of the LoRA at `path`, whose header holds `metadata`."""
    sets, troubles = _from_metadata(metadata), []
    for suffix in SIDECARS:
        beside = path.with_suffix(suffix)
        if not beside.is_file():
            continue
        found, trouble = _from_sidecar(beside)
        sets += found
        troubles += trouble
    return Triggers(unique_sets(sets), tuple(troubles))


def unique_sets(sets: Iterable[TriggerSet]) -> tuple[TriggerSet, ...]:
    """Each set once, where it comes first; case, spaces and order of its words do not matter."""
    seen: dict[frozenset[str], TriggerSet] = {}
    for found in sets:
        words = [word.strip() for word in found.words.split(",") if word.strip()]
        if words and len(found.words) <= LONGEST:
            key = frozenset(word.lower() for word in words)
            seen.setdefault(key, TriggerSet(", ".join(dict.fromkeys(words)), found.source))
    return tuple(seen.values())


def _from_metadata(metadata: Mapping[str, str]) -> list[TriggerSet]:
    found = [
        TriggerSet(text, "Tandem's metadata")
        for text in _texts(tandem_metadata(metadata).get("trigger"))
    ]
    for key in METADATA_KEYS:
        found += [TriggerSet(text, f"metadata {key}") for text in _texts(_plain(metadata.get(key)))]
    return found


def _plain(value: str | None) -> object:
    """Metadata is text; some programs put a JSON list into it."""
    if value is None or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _from_sidecar(path: Path) -> tuple[list[TriggerSet], list[str]]:
    if path.stat().st_size > MOST_BYTES:
        return [], [f"{path.name} is too long to hold trigger words"]
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = text.splitlines() if path.suffix == ".txt" else _trained_words(json.loads(text))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return [], [f"{path.name} cannot be read for trigger words ({error})"]
    lines = (line for line in _texts(content) if not re.match(r"#|\w+://", line))
    return [TriggerSet(line, path.name) for line in lines], []


def _trained_words(content: object) -> list[str]:
    """The words of a JSON file: at its top, or inside what LoRA Manager keeps of Civitai's answer."""
    found: list[str] = []
    if isinstance(content, Mapping):
        for key in JSON_KEYS:
            found += _texts(content.get(key))
        found += _trained_words(content.get("civitai"))
    return found


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    return []
