"""Captions from templates: all alike, as the runs that worked had them."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...wan.errors import UserError
from ..data.dataset import TRIGGER_SLOT, Clip, fill_trigger
from .shapes import placeholders
from .table import NO_TABLE, CaptionTable

_SLOT = re.compile(r"\{([^{}]*)\}")
_WEIGHTED = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*\|(.*)")
SHOWN = 3


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
    table: CaptionTable = NO_TABLE,
    folder: Path | None = None,
) -> list[str]:
    """A caption for every clip; the same seed and clips give the same captions.

    `{filename}` is the file's name without its suffix. What `table` says of a clip goes before `slots`; its file
    names begin at the clip's own root, or at `folder`. Regularisation clips keep their captions.
    Raises `UserError` for a slot that nobody fills, with the clip, and for a placeholder that is left.
    """
    captions = []
    for clip in clips:
        if clip.regularisation:
            captions.append(clip.caption)
            continue
        # Seeded by the name that the caption file has: a clip keeps its caption when others come or go,
        # and all parts of a file have one.
        chooser = random.Random(f"{seed}/{clip.path.stem}")
        template = chooser.choices(templates, [t.weight for t in templates])[0].text
        filler = _Filler(template, slots, table, clip, clip.root or folder or clip.path.parent)
        text = fill_trigger(filler.fill(chooser), trigger, f"The template {template!r}")
        _check_filled(text, clip, trigger.strip())
        captions.append(text)
    return captions


@dataclass(frozen=True)
class _Filler:
    """A template for one clip."""

    template: str
    slots: Mapping[str, Sequence[str]]
    table: CaptionTable
    clip: Clip
    root: Path

    def fill(self, chooser: random.Random) -> str:
        """The text with all slots filled but the trigger, which a value may hold too."""
        values = self.table.values(self.clip, self.root)
        return _SLOT.sub(
            lambda match: self._value(match[1].strip(), values, chooser), self.template
        )

    def _value(self, name: str, values: Mapping[str, str], chooser: random.Random) -> str:
        if name == "filename":
            return self.clip.path.stem
        if name == "trigger":
            return TRIGGER_SLOT
        # Drawn also where the table has a value: so a new row changes no other slot of its clip.
        drawn = chooser.choice(list(self.slots[name])) if name in self.slots else None
        value = values.get(name, drawn)
        if value is None:
            raise self._unfilled(name, listed=bool(values))
        return value

    def _unfilled(self, name: str, *, listed: bool) -> UserError:
        clip, known = self.clip, ", ".join(self.slots) or "none"
        if name in self.table.columns:
            came = f"has no value for {name}" if listed else "has no row"
            near = self.table.near(clip)
            like = f" Rows of like names: {', '.join(near)}." if near and not listed else ""
            return UserError(
                f"The table {came} of {clip.path.name}, whose template {self.template!r} has the slot {{{name}}}.",
                f"A row begins with the file's name, with or without its suffix.{like}",
                f"Add it to the table, or choices for all clips to slots: {name} = first | second.",
            )
        return UserError(
            f"The template {self.template!r} of {clip.path.name} has the slot {{{name}}}, which has no choices.",
            f"Slots with choices: {known}; columns of the table: "
            f"{', '.join(self.table.columns) or 'none'}; always there: {TRIGGER_SLOT}, {{filename}}.",
            f"Add a line to slots: {name} = first choice | second choice.",
        )


def _check_filled(text: str, clip: Clip, trigger: str) -> None:
    if left := placeholders(text, trigger):
        raise UserError(
            f"The caption {text!r} of {clip.path.name} has {', '.join(left[:SHOWN])} left in it.",
            "A caption holds words only: a slot is {name} in a template, with its choices in slots or the table.",
            "Write it as a slot, or as the word that is meant.",
        )
