"""Where a run's previews lie, and which there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .records import event_lines

PREVIEWS = "previews"
_NAME = re.compile(r"step_(\d{6,})_preview\d+\.(?:mp4|png)")


def preview_file(folder: Path, step: int, number: int, *, still: bool) -> Path:
    """Of the run in `folder`: a film, or a picture of one frame."""
    suffix = "png" if still else "mp4"
    return folder / PREVIEWS / f"step_{step:06d}_preview{number}.{suffix}"


def stored_previews(folder: Path) -> list[dict[str, Any]]:
    """What was sampled while a run was on and is still there, in the order of steps and numbers.

    `file` is below the run's folder; `clip` is what it begins like, `prompt` what it follows instead of that clip's
    caption.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in event_lines(folder):
        if line.get("event") != "PreviewMade":
            continue
        # The whole folder may have been moved since.
        file = f"{PREVIEWS}/{Path(line['file']).name}"
        words = {name: line.get(name, "") for name in ("clip", "prompt")}
        found[file] = {
            "step": line["step"],
            "number": line.get("number", 1),
            "file": file,
            **words,
        }
    there = [entry for file, entry in found.items() if (folder / file).is_file()]
    return sorted(there, key=lambda entry: (entry["step"], entry["number"]))


def stored_previews_line(folder: Path) -> str:
    """`previews_line` of a run that is over; empty where it has none."""
    names = [_NAME.fullmatch(path.name) for path in (folder / PREVIEWS).glob("step_*")]
    steps = [int(match[1]) for match in names if match]
    return previews_line(folder / PREVIEWS, max(steps)) if steps else ""


def previews_line(folder: Path, step: int) -> str:
    """Where a person finds what was sampled, and up to which step."""
    return f"previews up to step {step}: {folder}"
