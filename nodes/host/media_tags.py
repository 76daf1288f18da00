"""The JSON entries that savers put into a video or a picture: ComfyUI's own, and Video Helper Suite's."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import av
import av.error
from PIL import Image

from ...wan.errors import UserError

PICTURES = (".png", ".webp", ".apng")
VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".m4v")
# In WebP the host writes "prompt:{...}" to EXIF tag 0x110 and other entries to 0x10f and below (comfy_api, _ui.py).
EXIF_TAGS = range(0x0100, 0x0111)

# Pillow's: ValueError for a text that is too long when it is unpacked, SyntaxError and struct.error for broken EXIF.
_FAULTS = (
    av.error.FFmpegError,
    OSError,
    ValueError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
)


def media_entries(path: Path) -> dict[str, Any]:
    """The entries by lower-case key, such as `prompt`, `workflow` and `tandem`; what is no JSON is left out.

    Raises `UserError` for a file that is not there, or is neither a video nor a picture.
    """
    if not path.is_file():
        raise _unreadable(path, "is not there")
    try:
        tags = _picture_tags(path) if path.suffix.lower() in PICTURES else _video_tags(path)
    except _FAULTS as error:
        raise _unreadable(path, f"cannot be read ({error})") from error
    entries = {key.lower(): value for key, text in tags.items() if (value := _json(text))}
    # Video Helper Suite puts all entries into one, called comment.
    comment = entries.get("comment")
    inner = comment if isinstance(comment, dict) else {}
    unpacked = {k.lower(): _json(v) if isinstance(v, str) else v for k, v in inner.items()}
    return {**{k: v for k, v in unpacked.items() if v}, **entries}


def _video_tags(path: Path) -> dict[str, str]:
    with av.open(str(path), metadata_errors="replace") as container:
        tags = dict(container.metadata)
        for stream in container.streams:
            for key, text in stream.metadata.items():
                tags.setdefault(key, text)
    return tags


def _picture_tags(path: Path) -> dict[str, str]:
    with Image.open(path) as picture:
        tags = {str(k): v for k, v in picture.info.items() if isinstance(v, str)}
        exif = picture.getexif()
    for number in EXIF_TAGS:
        key, _, text = str(exif.get(number, "")).partition(":")
        if text:
            tags.setdefault(key, text)
    return tags


def _json(text: str) -> object:
    """The value, or None for text that is no JSON: an encoder's name, a date."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(
        f"{path.name} {why}.",
        f"A stack is read from {', '.join(VIDEOS + PICTURES)} files that ComfyUI saved.",
        "Check the name; a file from the output folder is named with ' [output]' behind it.",
    )
