"""Scenes: prompts that are sampled one after the other, each with its own LoRAs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .errors import UserError
from .lora.stack import Row, parse_rows
from .shapes import FRAMES_PER_CELL

LARGEST_SEED = 2**64 - 1
EXAMPLE = '[{"prompt": "A woman walks along a beach.", "rows": [{"lora": "x.safetensors"}], "seed": 1, "frames": 81}]'


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One clip to sample. What is None follows the node."""

    prompt: str
    rows: tuple[Row, ...] = ()
    seed: int | None = None
    """0 to 2^64 - 1."""
    frames: int | None = None
    """4k+1."""


def parse_scenes(text: str) -> tuple[Scene, ...]:
    """The scenes of a JSON list; an error names the scene and the row, both counted from 1."""
    try:
        entries = json.loads(text or "[]")
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"scenes is not JSON ({error}).", "It is a list of scenes.", f"For example: {EXAMPLE}"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise UserError(
            "scenes is empty." if entries == [] else f"scenes is a {type(entries).__name__}.",
            "It is a list of one scene or more.",
            f"For example: {EXAMPLE}",
        )
    return tuple(_scene(f"Scene {number}", entry) for number, entry in enumerate(entries, 1))


def in_scene(where: str, error: UserError) -> UserError:
    """The same error with the scene it happened in."""
    return UserError(f"{where}: {error.came}", error.can_be, error.to_do)


def _scene(where: str, entry: object) -> Scene:
    if not isinstance(entry, Mapping):
        raise UserError(
            f"{where} is {entry!r}.",
            "A scene is an object with at least `prompt`.",
            f"For example: {EXAMPLE}",
        )
    known = [field.name for field in fields(Scene)]
    if unknown := sorted(set(entry) - set(known)):
        raise UserError(
            f"{where} has {', '.join(unknown)}.",
            f"A scene can have {', '.join(known)}.",
            "Check the spelling.",
        )
    prompt = entry.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(
            f"{where} has no prompt.", "`prompt` is a sentence.", "Say what the scene shows."
        )
    return Scene(
        prompt=prompt,
        rows=_rows(where, entry.get("rows")),
        seed=_number(where, entry, "seed", LARGEST_SEED),
        frames=_frames(where, entry),
    )


def _rows(where: str, entries: object) -> tuple[Row, ...]:
    try:
        return () if entries is None else parse_rows(json.dumps(entries))
    except UserError as error:
        raise in_scene(where, error) from error


def _frames(where: str, entry: Mapping[str, Any]) -> int | None:
    frames = _number(where, entry, "frames", 10_000)
    if frames is not None and frames % FRAMES_PER_CELL != 1:
        raise UserError(
            f"{where}: frames is {frames}.",
            "Wan takes 4k+1 frames (1, 5, 9, ... 49, 81).",
            "Use one of those.",
        )
    return frames


def _number(where: str, entry: Mapping[str, Any], name: str, largest: int) -> int | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise UserError(
            f"{where}: {name} is {value!r}.",
            f"It is a whole number from 0 to {largest}, or left away to follow the node.",
            "Change it in the scene.",
        )
    return value
