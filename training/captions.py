"""Captions from templates: all alike, as the runs that worked had them."""

from __future__ import annotations

import os
import random
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..wan.errors import UserError
from .dataset import TRIGGER_SLOT, Clip, fill_trigger

_SLOT = re.compile(r"\{([^{}]*)\}")
_WEIGHTED = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*\|(.*)")


@dataclass(frozen=True)
class Template:
    """A caption with slots in braces, and how often it is taken relative to the others."""

    text: str
    weight: float


def parse_templates(lines: str) -> list[Template]:
    """One template a line, with or without a weight: `60% | A {person} transforms into a {trigger}.`"""
    templates = []
    for line in filter(None, map(str.strip, lines.splitlines())):
        match = _WEIGHTED.fullmatch(line)
        weight, text = (float(match[1]), match[2].strip()) if match else (100.0, line)
        templates.append(Template(text, weight))
    if not templates or not any(template.weight > 0 for template in templates):
        raise UserError(
            "There is no caption template with a weight above 0.",
            "A template is a line such as: 60% | A {person} transforms into a {trigger}.",
            "Write at least one.",
        )
    return templates


def parse_slots(lines: str) -> dict[str, list[str]]:
    """One slot a line with its choices: `person = woman | man`."""
    slots = {}
    for line in filter(None, map(str.strip, lines.splitlines())):
        name, equals, choices = line.partition("=")
        words = [word.strip() for word in choices.split("|") if word.strip()]
        if not equals or not name.strip() or not words:
            raise UserError(
                f"The slot line {line!r} cannot be read.",
                "A slot line is a name and its choices: person = woman | man.",
                "Mend or remove the line.",
            )
        slots[name.strip()] = words
    return slots


def make_captions(
    clips: Sequence[Clip],
    templates: Sequence[Template],
    slots: Mapping[str, Sequence[str]],
    *,
    trigger: str,
    seed: int,
) -> list[str]:
    """A caption for every clip; the same seed and clips give the same captions.

    `{filename}` is the clip's name. A slot that nobody fills is an error.
    """
    captions = []
    for clip in clips:
        # Seeded by the file's name: a clip keeps its caption when others come or go.
        chooser = random.Random(f"{seed}/{clip.path.name}")
        template = chooser.choices(templates, [t.weight for t in templates])[0]
        captions.append(_fill(template.text, slots, clip, trigger, chooser))
    return captions


def write_captions(folder: Path, clips: Sequence[Clip], captions: Sequence[str]) -> Path | None:
    """Writes each caption beside its clip, whole or not at all; the old ones go to a dated folder
    inside `folder`, under the same relative names.

    Returns that folder, or None when there were no old captions to keep.
    """
    changed = [(c.path.with_suffix(".txt"), text) for c, text in zip(clips, captions, strict=True)]
    changed = [
        (p, text)
        for p, text in changed
        if not p.is_file() or p.read_bytes() != f"{text}\n".encode()
    ]
    kept = None
    for path, text in changed:
        if path.is_file():
            kept = kept or _dated_folder(folder)
            old = kept / path.relative_to(folder)
            if not old.exists():  # a film and a picture of one name share their caption
                old.parent.mkdir(parents=True, exist_ok=True)
                _replace(old, path.read_bytes())
        _replace(path, f"{text}\n".encode())
    return kept


def _fill(
    text: str, slots: Mapping[str, Sequence[str]], clip: Clip, trigger: str, chooser: random.Random
) -> str:
    def choice(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name == "filename":
            return clip.path.stem
        if name == "trigger":
            return TRIGGER_SLOT  # filled last, so that a slot's choices may hold it
        if name not in slots:
            raise UserError(
                f"The template {text!r} has the slot {{{name}}}, which has no choices.",
                f"Slots with choices: {', '.join(slots) or 'none'}, and {TRIGGER_SLOT}, {{filename}}.",
                f"Add a line to slots: {name} = first choice | second choice.",
            )
        return chooser.choice(list(slots[name]))

    return fill_trigger(_SLOT.sub(choice, text), trigger, f"The template {text!r}")


def _dated_folder(parent: Path) -> Path:
    # Hidden from the dataset: a folder that begins with a dot is not searched for media.
    folder = parent / f".captions_before_{time.strftime('%Y%m%d-%H%M%S')}_{secrets.token_hex(2)}"
    folder.mkdir()
    return folder


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
