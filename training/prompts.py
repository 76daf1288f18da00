"""Prompts that a person gives to a run, with the trigger in its place."""

from __future__ import annotations

import re

from ..wan.errors import UserError
from .captions.shapes import placeholders
from .data.dataset import TRIGGER_SLOT

STYLE_SLOT = "STYLE_TOKEN"
_SLOTS = re.compile(rf"{re.escape(TRIGGER_SLOT)}|\b{STYLE_SLOT}\b")


def filled_prompts(text: str, trigger: str) -> tuple[str, ...]:
    """The prompts of `text`, one a line, with the trigger wherever `{trigger}` or `STYLE_TOKEN` stands.

    Raises `UserError` for a placeholder without a trigger, and for one that nobody fills.
    """
    lines = [line.strip() for line in text.splitlines()]
    return tuple(_filled(line, trigger.strip()) for line in lines if line)


def require_fillable(text: str) -> None:
    """What can be said of prompts before the trigger is known. Raises `UserError` as `filled_prompts` does."""
    filled_prompts(text, "trigger")


def _filled(prompt: str, trigger: str) -> str:
    slots = _SLOTS.findall(prompt)
    if slots and not trigger:
        raise UserError(
            f"The preview prompt {prompt!r} has {slots[0]}, but the dataset has no trigger.",
            f"{TRIGGER_SLOT} and {STYLE_SLOT} stand for the word that calls the LoRA, for example MERMAID.",
            "Set trigger on Tandem Dataset or Tandem Caption Template, or write the word into the prompt.",
        )
    # A function, because a trigger may hold what a replacement text would take for a reference.
    filled = _SLOTS.sub(lambda _: trigger, prompt)
    if left := placeholders(filled, trigger):
        raise UserError(
            f"The preview prompt {prompt!r} has {', '.join(left)} left in it.",
            f"Only {TRIGGER_SLOT} and {STYLE_SLOT} are replaced, by the trigger.",
            "Write the word that is meant, for example: A woman turns into a {trigger}.",
        )
    return filled
