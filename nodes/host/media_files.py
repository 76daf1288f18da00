"""Saved videos and pictures as the host's lists name them."""

from __future__ import annotations

import heapq
import os
from pathlib import Path

import folder_paths

from ...wan.errors import UserError
from .media_tags import PICTURES, VIDEOS
from .places import cache_folder, jobs_root

MOST_OUTPUTS = 200


def media_names() -> list[str]:
    """The files of the input folder, then the newest of the output folder, with ' [output]' behind them."""
    inputs = Path(folder_paths.get_input_directory())
    own = (
        [path.name for path in inputs.iterdir() if _is_media(path.name)] if inputs.is_dir() else []
    )
    outputs = heapq.nlargest(MOST_OUTPUTS, _outputs())
    return [*sorted(own), *(f"{name} [output]" for _, name in outputs)]


def media_path(name: str | None) -> Path:
    """The file of such a name; without ' [output]' it may lie in the output folder too."""
    if not name or not name.strip():
        raise UserError(
            "file is empty.",
            "It is a video or picture in ComfyUI's input or output folder.",
            "Choose one, for example video/ComfyUI_00001_.mp4 [output].",
        )
    try:
        path = Path(folder_paths.get_annotated_filepath(name))
        if path.is_file() or name.rstrip().endswith("]"):
            return path
        other = Path(folder_paths.get_annotated_filepath(f"{name} [output]"))
        return other if other.is_file() else path
    except ValueError as error:  # the host's answer to a name that leaves the folder
        raise UserError(
            f"file is {name!r:.200}, which leaves its folder.",
            "It lies in ComfyUI's input or output folder, or below.",
            "Copy the file there.",
        ) from error


def _outputs() -> list[tuple[float, str]]:
    """(time of change, name) of each file below the output folder, but for those of runs and of the cache."""
    # The host asks whenever it needs the node's schema, and an output folder may hold ten thousand files.
    found, waiting = [], [(folder_paths.get_output_directory(), "")]
    while waiting:
        folder, below = waiting.pop()
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False):
                if Path(entry.path) not in (jobs_root(), cache_folder()):
                    waiting.append((entry.path, f"{below}{entry.name}/"))
            elif _is_media(entry.name) and entry.is_file():  # false for a link to nothing
                found.append((entry.stat().st_mtime, below + entry.name))
    return found


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, PermissionError):  # what cannot be listed offers no file
        return []


def _is_media(name: str) -> bool:
    return name.lower().endswith(VIDEOS + PICTURES)
