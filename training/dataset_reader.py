"""A folder of clips or pictures with captions beside them becomes a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ..wan.errors import UserError
from ..wan.shapes import FRAMES_PER_CELL, checked_clip_size
from ..wan.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, probe
from .dataset import MEDIA, Clip, Dataset, DatasetSettings, Skipped, fill_trigger

SHOWN_REASONS = 5
SHORTEST_PART = 0.5
"""A shorter clip is used at its own length, down to this part of the frames that are asked for."""


def find_media(folder: Path, media: str) -> list[Path]:
    """Video and picture files below `folder`, in the order of their names.

    Raises `UserError` when the folder is not there or holds none.
    """
    if media not in MEDIA:
        raise UserError(
            f"media is {media!r}.", f"It can be {', '.join(MEDIA)}.", "Choose one of them."
        )
    if not folder.is_dir():
        raise UserError(
            f"The dataset folder {folder} is not there.",
            "It is a folder of clips or pictures, under ComfyUI's input folder or given by its full path.",
            "Check the spelling, or copy the folder there.",
        )
    suffixes = {
        "auto": VIDEO_SUFFIXES + IMAGE_SUFFIXES,
        "video": VIDEO_SUFFIXES,
        "image": IMAGE_SUFFIXES,
    }[media]
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not _hidden(path.relative_to(folder))
    )
    if not found:
        raise UserError(
            f"The dataset folder {folder} holds no {'media' if media == 'auto' else media} files.",
            f"Files that are read: {', '.join(suffixes)}.",
            "Put clips or pictures into it, or choose another folder.",
        )
    return found


def load_dataset(
    settings: DatasetSettings, *, on_file: Callable[[int, int], None] | None = None
) -> Dataset:
    """Looks into every file; what cannot be used is skipped by name, and only an empty rest is an error."""
    size = checked_clip_size(settings.width, settings.height, settings.frames)
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    paths = find_media(settings.folder, settings.media)
    for done, path in enumerate(paths, 1):
        try:
            clips.append(_clip(path, settings))
        except UserError as error:
            skipped.append(Skipped(path, str(error)))
        if on_file:
            on_file(done, len(paths))
    if not clips:
        raise UserError(
            f"None of the {len(paths)} files in {settings.folder} can be used: "
            + " ".join(reason for _, reason in skipped[:SHOWN_REASONS]),
            f"A clip needs {size.frames} frames at {settings.fps:g} fps, a picture needs to be readable.",
            "Mend the files, choose others, or lower frames.",
        )
    return Dataset(
        folder=settings.folder,
        clips=tuple(clips),
        size=size,
        fps=settings.fps,
        trigger=settings.trigger,
        skipped=tuple(skipped),
        parts=(settings,),
    )


def folder_stamp(folder: Path, media: str) -> str:
    """Changes when a file or a caption is added, removed or written: cheap enough for every prompt."""
    digest = hashlib.sha256()
    for path in find_media(folder, media):
        for part in (path, path.with_suffix(".txt")):
            if part.is_file():
                stat = part.stat()
                digest.update(f"{part.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def _clip(path: Path, settings: DatasetSettings) -> Clip:
    fps, trigger = settings.fps, settings.trigger
    frames = 1 if path.suffix.lower() in IMAGE_SUFFIXES else settings.frames
    found = probe(path, fps=fps, max_frames=frames).frames
    usable = min(frames, (found - 1) // FRAMES_PER_CELL * FRAMES_PER_CELL + 1)
    if usable < frames * SHORTEST_PART:
        raise UserError(
            f"{path.name} gives {found} frames at {fps:g} fps.",
            f"The dataset asks for {frames} ({frames / fps:.2f} s) and takes clips down to half of it.",
            "Use a longer clip, or fewer frames.",
        )
    caption = _caption(path)
    if trigger:
        caption = fill_trigger(caption, trigger, f"The caption of {path.name}")
    return Clip(path=path, caption=caption, frames=usable, digest=_sha256(path))


def _caption(path: Path) -> str:
    sidecar = path.with_suffix(".txt")
    if not sidecar.is_file():
        return ""
    try:
        return " ".join(sidecar.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise UserError(
            f"{sidecar.name} is not UTF-8 text ({error}).",
            "Captions are plain UTF-8.",
            "Save it as UTF-8.",
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
