"""A list of media with captions becomes a dataset, as a folder does: from wherever the files lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...wan.errors import UserError
from ...wan.shapes import checked_clip_size
from .captions import some
from .clips import FileClips, file_clips, skipped_for
from .dataset import Clip, CutOff, Dataset, DatasetSettings, Skipped
from .file_notes import FileNotes
from .lists import one_line
from .reader import SHOWN_REASONS, checked, cut_off_notes
from .sidecars import Sidecars, sidecar_text


class Medium(NamedTuple):
    """A film or picture, or a part of a film."""

    path: Path
    caption: str | None = None
    """None takes the `.txt` beside it, if there is one."""
    start_s: float = 0.0
    """Where the part begins, in seconds after the first frame."""
    seconds: float = 0.0
    """How long the part is; 0 to the end."""


def media_dataset(
    media: Sequence[Medium],
    settings: DatasetSettings,
    *,
    on_file: Callable[[int, int], None] | None = None,
    notes: FileNotes | None = None,
) -> Dataset:
    """Clips of `media`, read as `settings` say; their `folder` and `media` do not count.

    A medium that is listed several times is one clip with as many repeats. What cannot be used is skipped by name,
    and only an empty rest is an error.
    """
    settings = checked(settings)
    counts = Counter(media)
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    cut_off: list[CutOff] = []
    sidecars = Sidecars()
    try:
        for done, (medium, times) in enumerate(counts.items(), 1):
            weighted = replace(settings, repeats=settings.repeats * times)
            try:
                found = _clips(medium, weighted, sidecars, notes)
                clips += found.clips
                cut_off += [found.cut_off] if found.cut_off else []
            except (UserError, OSError) as error:
                skipped.append(skipped_for(medium.path, error))
            if on_file:
                on_file(done, len(counts))
    finally:
        if notes:
            notes.save()
    if not clips:
        raise _nothing_left(len(counts), skipped, settings)
    folder = clips[0].path.parent
    return Dataset(
        folder=folder,
        clips=tuple(replace(c, root=_root(c.path, folder)) for c in clips),
        size=checked_clip_size(settings.width, settings.height, settings.frames),
        fps=settings.fps,
        trigger=settings.trigger,
        skipped=tuple(skipped),
        notes=(*_repeated(counts), *cut_off_notes(cut_off)),
        cut_off=tuple(dict.fromkeys(cut_off)),
    )


def _clips(
    medium: Medium, settings: DatasetSettings, sidecars: Sidecars, notes: FileNotes | None
) -> FileClips:
    path, caption = medium.path, lambda _: _caption(medium, sidecars)
    part = {"start_s": medium.start_s, "seconds": medium.seconds}
    return file_clips(path, settings, caption, **part, notes=notes)


def _caption(medium: Medium, sidecars: Sidecars) -> str:
    if medium.caption is not None:
        return one_line(medium.caption)
    sidecar = sidecars.of(medium.path)
    return sidecar_text(sidecar) if sidecar else ""


def _root(path: Path, folder: Path) -> Path | None:
    return None if path.parent == folder else path.parent


def _repeated(counts: Counter[Medium]) -> list[str]:
    names = [f"{medium.path.name} ({times})" for medium, times in counts.items() if times > 1]
    return [f"Listed several times, so shown as often in an epoch: {some(names)}"] if names else []


def _nothing_left(count: int, skipped: Sequence[Skipped], settings: DatasetSettings) -> UserError:
    return UserError(
        f"None of the {count} videos and pictures can be used: "
        + " ".join(each.reason for each in skipped[:SHOWN_REASONS]),
        f"A clip needs {settings.frames} frames at {settings.fps:g} fps, a picture needs to be readable.",
        "Mend the files, choose others, or lower frames.",
    )
