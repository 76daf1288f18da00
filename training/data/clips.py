"""One file becomes clips: which parts of it, at which size, in which views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

from ...wan.errors import UserError
from ...wan.film import UndecodableError
from ...wan.video import IMAGE_SUFFIXES
from .buckets import Size, bucket_for, views_for
from .clip_modes import clip_windows, cut_frames, shortest_use
from .dataset import KEEP_ASPECT, Clip, CutOff, DatasetSettings, Skipped, fill_trigger
from .facts import WHOLE_FILE, Facts, cuts_of, digest_of, facts_of
from .file_notes import FileNotes

NARROWEST = 20
"""A file whose longer side is more than this many times the shorter is no picture that can be taught."""
LACKS_S, LACKS_SHARE = 0.5, 0.05
"""Headers round, and sound may be longer: a film is cut off if more than this is missing, in seconds and of all."""


class TooShortError(UserError):
    """A film that gives too few frames."""


class FileClips(NamedTuple):
    """At least one clip, and what the file is."""

    clips: list[Clip]
    source: Size
    """As a player shows it."""
    cut_off: CutOff | None = None
    """If its end is missing."""


def file_clips(
    path: Path,
    settings: DatasetSettings,
    caption: Callable[[Path], str],
    *,
    start_s: float = 0.0,
    seconds: float = 0.0,
    notes: FileNotes | None = None,
) -> FileClips:
    """The clips of a film or picture, or of the part of a film that begins at `start_s` and lasts `seconds` (0: to
    its end). `caption` is asked when all else is good.

    Raises `UserError` when the file cannot be decoded, is too short or too narrow, or when its caption cannot be read.
    """
    fps = settings.fps
    is_picture = path.suffix.lower() in IMAGE_SUFFIXES
    wanted, mode = (1, "head") if is_picture else (settings.frames, settings.clip_mode)
    begin = round(start_s * fps)
    most = begin + wanted if mode == "head" else WHOLE_FILE
    facts = facts_of(path, fps=fps, max_frames=most, notes=notes)
    _check_shape(path, facts)
    frames = max(0, facts.frames - begin)
    if seconds:
        # As many as a film of that length has: they stand at k / fps seconds, before its end.
        frames = min(frames, ceil((seconds - 1e-6) * fps))
    cuts = _cuts(path, facts, fps, notes) if mode == "scenes" else []
    cuts = [cut - begin for cut in cuts]
    windows = clip_windows(mode, frames, wanted, cuts=cuts, limit=settings.clips_per_file)
    if not windows:
        raise _too_short(path, frames, settings, sum(0 < cut < frames for cut in cuts))
    whole = _whole(path, facts, settings, caption, notes)
    clips = [replace(whole, start=begin + w.start, frames=w.frames) for w in windows]
    return FileClips(clips, (facts.width, facts.height), _cut_off(path, facts))


def skipped_for(path: Path, error: UserError | OSError) -> Skipped:
    """`path` is not used because of `error`."""
    if isinstance(error, (UndecodableError, OSError)):
        return Skipped(path, str(error), "unreadable")
    return Skipped(path, str(error), "too short" if isinstance(error, TooShortError) else "other")


def _check_shape(path: Path, facts: Facts) -> None:
    width, height = facts.width, facts.height
    # A file without frames has no size: it is too short, which is said later.
    if facts.frames and max(width, height) > NARROWEST * min(width, height):
        raise UserError(
            f"{path.name} is {width}x{height}.",
            f"One side can be up to {NARROWEST} times the other: little would be left of it after cutting.",
            "Cut the part out that matters, or take the file out of the folder.",
        )


def _cut_off(path: Path, facts: Facts) -> CutOff | None:
    if facts.lacks_s <= max(LACKS_S, LACKS_SHARE * facts.stated_s):
        return None
    return CutOff(path, facts.stated_s - facts.lacks_s, facts.stated_s)


def _cuts(path: Path, facts: Facts, fps: float, notes: FileNotes | None) -> list[int]:
    times = cuts_of(path, notes)
    return cut_frames(times, fps=fps, source_fps=facts.fps, variable=facts.variable)


def _whole(
    path: Path,
    facts: Facts,
    settings: DatasetSettings,
    caption: Callable[[Path], str],
    notes: FileNotes | None,
) -> Clip:
    """What all clips of a file have in common."""
    own, source = (settings.width, settings.height), (facts.width, facts.height)
    size = bucket_for(source, own) if settings.fit == KEEP_ASPECT else own
    text = caption(path)
    if settings.trigger:
        text = fill_trigger(text, settings.trigger, f"The caption of {path.name}")
    return Clip(
        path=path,
        caption=text,
        frames=1,
        digest=digest_of(path, notes),
        size=None if size == own else size,
        views=views_for(source, size, flips=settings.flips, crops=settings.crops),
        repeats=settings.repeats,
        regularisation=settings.regularisation,
    )


def _too_short(path: Path, found: int, settings: DatasetSettings, cuts: int) -> TooShortError:
    frames, fps = settings.frames, settings.fps
    shots = ", in shots that are all too short" if cuts else ""
    return TooShortError(
        f"{path.name} gives {found} frames at {fps:g} fps{shots}.",
        f"The dataset asks for {frames} ({frames / fps:.2f} s) and takes clips down to {shortest_use(frames)}.",
        "Use a longer clip, or fewer frames.",
    )
