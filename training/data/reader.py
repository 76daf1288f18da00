"""A folder of clips or pictures becomes a dataset: which files, which parts of them, at which size, how often."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...wan.errors import UserError
from ...wan.shapes import checked_clip_size
from ...wan.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .buckets import CROPS, Size, enlargement, lost_share
from .captions import Captions, caption_lists, some
from .clips import file_clips, skipped_for
from .dataset import (
    CLIP_MODES,
    FITS,
    MEDIA,
    Clip,
    CutOff,
    Dataset,
    DatasetSettings,
    Skipped,
)
from .file_notes import FileNotes
from .repeats import folder_repeats, in_regularisation, repeat_notes
from .sidecars import Sidecars

SUFFIXES = {
    "auto": VIDEO_SUFFIXES + IMAGE_SUFFIXES,
    "video": VIDEO_SUFFIXES,
    "image": IMAGE_SUFFIXES,
}
SHOWN_REASONS = 5
MUCH_LOST = 0.25
"""A cut that takes more than this part of the picture is noted."""
SAVE_EVERY_S = 30.0
"""The notes are written so often, so that a reading that is killed need not begin again."""


def find_media(folder: Path, media: str) -> list[Path]:
    """Video and picture files below `folder`, in the order of their names.

    Raises `UserError` when the folder is not there or holds none.
    """
    return _chosen(folder, media, _files(folder, media))


def load_dataset(
    settings: DatasetSettings,
    *,
    on_file: Callable[[int, int], None] | None = None,
    notes: FileNotes | None = None,
) -> Dataset:
    """Looks into every file; what cannot be used is skipped by name, and only an empty rest is an error.

    `notes` remembers what was found in a file until the file changes.
    """
    settings = checked(settings)
    files = _files(settings.folder, settings.media)
    paths = _chosen(settings.folder, settings.media, files)
    reading = _Reading(settings, Captions(settings.folder, files, paths), notes)
    reading.skipped += _dangling(files, settings.media)
    saved = time.monotonic()
    try:
        for done, path in enumerate(paths, 1):
            reading.read(path)
            if on_file:
                on_file(done, len(paths))
            if notes and time.monotonic() - saved > SAVE_EVERY_S:
                notes.save()
                saved = time.monotonic()
    finally:
        if notes:
            notes.save()
    if not reading.clips:
        raise UserError(
            f"None of the {len(paths)} files in {settings.folder} can be used: "
            + " ".join(each.reason for each in reading.skipped[:SHOWN_REASONS]),
            f"A clip needs {settings.frames} frames at {settings.fps:g} fps, a picture needs to be readable.",
            "Mend the files, choose others, or lower frames.",
        )
    return Dataset(
        folder=settings.folder,
        clips=tuple(reading.clips),
        size=checked_clip_size(settings.width, settings.height, settings.frames),
        fps=settings.fps,
        trigger=settings.trigger,
        skipped=tuple(reading.skipped),
        notes=tuple(reading.notes()),
        parts=(settings,),
        cut_off=tuple(reading.cut_off),
    )


def checked(settings: DatasetSettings) -> DatasetSettings:
    """`settings` without blanks around the trigger. Raises `UserError` at the first value that cannot be."""
    checked_clip_size(settings.width, settings.height, settings.frames)
    for name, options in (("media", MEDIA), ("clip_mode", CLIP_MODES), ("fit", FITS)):
        _check_option(name, getattr(settings, name), options)
    _check_option("crops", settings.crops, tuple(CROPS))
    for name in ("fps", "repeats"):
        value = getattr(settings, name)
        if not (value > 0 and math.isfinite(value)):
            raise UserError(
                f"{name} is {value}.", "It is a number above 0.", "Use 16 fps, or 1 for repeats."
            )
    if settings.clips_per_file < 0:
        raise UserError(
            f"clips_per_file is {settings.clips_per_file}.",
            "It is 0 (as many as clip_mode gives) or a number of clips.",
            "Use 0.",
        )
    return replace(settings, trigger=settings.trigger.strip())


def cut_off_notes(found: Sequence[CutOff]) -> list[str]:
    """A line for the films of which the end is missing."""
    if not found:
        return []
    names = [f"{path.name} ({has:.1f} of {stated:.1f} s)" for path, has, stated in found]
    return [f"They end before their own header says, as after a broken download: {some(names)}"]


def folder_stamp(folder: Path, media: str) -> str:
    """Changes when a file or a caption is added, removed, moved or written: cheap enough for every prompt."""
    files = _files(folder, media)
    media_files = _chosen(folder, media, files)
    sidecars = Sidecars()
    captions = {found for path in media_files if (found := sidecars.of(path))}
    digest = hashlib.sha256(folder.name.encode(errors="surrogateescape"))
    for path in sorted({*media_files, *captions, *caption_lists(files)}):
        stat = path.stat()
        name = path.relative_to(folder).as_posix()
        line = f"\n{name} {stat.st_size} {stat.st_mtime_ns}"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


@dataclass
class _Reading:
    """One pass over the files of a folder."""

    settings: DatasetSettings
    captions: Captions
    file_notes: FileNotes | None
    clips: list[Clip] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    cut_off: list[CutOff] = field(default_factory=list)

    def read(self, path: Path) -> None:
        settings = self.settings
        try:
            found = file_clips(path, settings, self.captions.of, notes=self.file_notes)
        except (UserError, OSError) as error:
            self.skipped.append(skipped_for(path, error))
            return
        repeats = settings.repeats * folder_repeats(path, settings.folder)
        apart = settings.regularisation or in_regularisation(path, settings.folder)
        self.clips += [replace(c, repeats=repeats, regularisation=apart) for c in found.clips]
        self.cut_off += [found.cut_off] if found.cut_off else []
        size = found.clips[0].size or (settings.width, settings.height)
        self._look_at_size(path, found.source, size)

    def notes(self) -> list[str]:
        notes = repeat_notes(self.settings.folder, self.clips) + self.captions.notes()
        if self.small:
            notes.append(
                f"Smaller than the size they are trained at, so enlarged without new detail: {some(self.small)}"
            )
        notes += cut_off_notes(self.cut_off)
        if self.cut:
            notes.append(f"More than a quarter of the picture is cut off: {some(self.cut)}")
        return notes

    def _look_at_size(self, path: Path, source: Size, size: Size) -> None:
        if enlargement(source, size) > 1:
            self.small.append(f"{path.name} ({source[0]}x{source[1]} to {size[0]}x{size[1]})")
        if (lost := lost_share(source, size)) > MUCH_LOST:
            self.cut.append(f"{path.name} ({lost:.0%})")


def _files(folder: Path, media: str) -> list[Path]:
    """Every file below `folder` that is not hidden, in the order of names."""
    _check_option("media", media, MEDIA)
    if not folder.is_dir():
        raise UserError(
            f"The dataset folder {folder} is not there.",
            "It is a folder of clips or pictures, under ComfyUI's input folder or given by its full path.",
            "Check the spelling, or copy the folder there.",
        )
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    """Links to folders are followed, after all folders that lie here themselves, and each folder is read once."""
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        for top in waiting:
            if top.resolve() not in seen:
                yield from _walk_plain(top, links, seen)
        waiting = sorted(links)


def _walk_plain(top: Path, links: list[Path], seen: set[Path]) -> Iterator[Path]:
    for inside, folders, names in os.walk(top):
        seen.add(Path(inside).resolve())
        shown = [Path(inside, name) for name in folders if not name.startswith(".")]
        linked = [path for path in shown if path.is_symlink()]
        links += linked
        folders[:] = [p.name for p in shown if p not in linked and p.resolve() not in seen]
        yield from (Path(inside, name) for name in names if not name.startswith("."))


def _dangling(files: list[Path], media: str) -> list[Skipped]:
    return [
        Skipped(
            path, f"{path.name} is a link to a file that is not there. Copy the file.", "unreadable"
        )
        for path in files
        if path.suffix.lower() in SUFFIXES[media] and path.is_symlink() and not path.exists()
    ]


def _chosen(folder: Path, media: str, files: list[Path]) -> list[Path]:
    suffixes = SUFFIXES[media]
    found = [path for path in files if path.suffix.lower() in suffixes and path.is_file()]
    if not found:
        raise UserError(
            f"The dataset folder {folder} holds no {'media' if media == 'auto' else media} files.",
            f"Files that are read: {', '.join(suffixes)}.",
            "Put clips or pictures into it, or choose another folder.",
        )
    return found


def _check_option(name: str, value: object, options: tuple) -> None:
    if value not in options:
        raise UserError(
            f"{name} is {value!r}.",
            f"It can be {', '.join(map(str, options))}.",
            "Choose one of them.",
        )
