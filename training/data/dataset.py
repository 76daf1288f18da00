"""A dataset as a value: clips with captions, what was skipped, and a digest of what training sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from ...wan.errors import UserError
from ...wan.shapes import ClipSize
from ...wan.video import CENTRED, View

MEDIA = ("auto", "video", "image")
CLIP_MODES = ("head", "middle", "uniform", "overlapping", "scenes")
KEEP_ASPECT, ONE_SIZE = "keep aspect", "one size"
FITS = (KEEP_ASPECT, ONE_SIZE)
TRIGGER_SLOT = "{trigger}"


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """How a folder is read. `width` x `height` is the size, or with `keep aspect` the area that a clip's own
    shape gets; `frames` is 4k+1."""

    folder: Path
    media: str = "auto"
    trigger: str = ""
    width: int = 832
    height: int = 480
    frames: int = 81
    fps: float = 16.0
    clip_mode: str = "head"
    """Which part of a longer file is used: see `CLIP_MODES`."""
    clips_per_file: int = 0
    """At most so many clips of a file; 0 as the mode says (one of head and middle, two of uniform, else all)."""
    fit: str = KEEP_ASPECT
    flips: bool = False
    """Every other time a clip is shown mirrored."""
    crops: int = 1
    """Positions that the cut of a clip wider or higher than its size takes in turn: 1 middle, 2 both ends, 3 all."""
    repeats: float = 1.0
    """How often a clip is shown in an epoch, times what the folder's own name says."""
    regularisation: bool = False
    """These clips keep what the model knows already: they need no trigger, and do not count for the budget."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A part of a file that will be trained on. `caption` has its trigger filled in."""

    path: Path
    caption: str
    frames: int
    """Frames that training uses: the dataset's, fewer if the clip is shorter, 1 for a picture. 4k+1."""
    digest: str
    """SHA-256 of the file's content."""
    size: tuple[int, int] | None = None
    """(width, height) at which it is read; None is the dataset's."""
    start: int = 0
    """Its first frame, counted at the dataset's fps from the file's first."""
    fps: float | None = None
    """Frames per second at which it is read; None is the dataset's."""
    views: tuple[View, ...] = (CENTRED,)
    """Cuts and mirrorings, shown in turn: one each epoch."""
    repeats: float = 1.0
    """How often it is shown in an epoch."""
    regularisation: bool = False
    root: Path | None = None
    """The dataset folder it came from; None is the dataset's own."""
    asked: int | None = None
    """Frames that its own dataset asked for; None is the dataset's."""

    @property
    def name(self) -> str:
        """The file's name, and where the clip begins if that is not the file's beginning."""
        return f"{self.path.name}@{self.start}" if self.start else self.path.name


class Skipped(NamedTuple):
    """A file that is not used, and why."""

    path: Path
    reason: str
    kind: Literal["unreadable", "too short", "other"] = "other"
    """Unreadable: it cannot be opened or decoded. Other: its caption, its shape, its name."""


class CutOff(NamedTuple):
    """A film of which the end is missing, as after a broken download."""

    path: Path
    seconds: float
    """What there is of it."""
    stated_s: float
    """What its header says."""


class Counts(NamedTuple):
    """How much there is to show."""

    clips: int
    """Clips that teach: regularisation left out, and the same part of a file at the same rate counted once."""
    shown: float
    """Samples of one epoch: each clip times its repeats, regularisation included."""
    regularisation: float
    """The part of `shown` that is regularisation."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Clips to train on; `skipped` names what the folder also holds."""

    folder: Path
    clips: tuple[Clip, ...]
    size: ClipSize
    fps: float
    trigger: str = ""
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know of how the folders were read: repeats, captions from two places."""
    parts: tuple[DatasetSettings, ...] = ()
    """How each of its folders was read; empty for a dataset that was made otherwise."""
    cut_off: tuple[CutOff, ...] = ()
    """Files that end before their own header says; what there is of them is used."""

    def clip_size(self, clip: Clip) -> ClipSize:
        """The size at which `clip` is read: pictures are one frame."""
        width, height = clip.size or self.size[:2]
        return ClipSize(width, height, clip.frames)

    def clip_fps(self, clip: Clip) -> float:
        """Frames per second at which `clip` is read."""
        return self.fps if clip.fps is None else clip.fps

    def clip_asked(self, clip: Clip) -> int:
        """The frames that were asked for of `clip`, which has fewer if its file is shorter."""
        return self.size.frames if clip.asked is None else clip.asked

    def counts(self) -> Counts:
        """How much there is to show in an epoch."""
        return Counts(
            clips=len({self.part(clip) for clip in self.clips if not clip.regularisation}),
            shown=sum(clip.repeats for clip in self.clips),
            regularisation=sum(clip.repeats for clip in self.clips if clip.regularisation),
        )

    def part(self, clip: Clip) -> tuple[Path, int, int, float]:
        """What of which file `clip` is: path, first frame, frames, frames per second."""
        return clip.path, clip.start, clip.frames, self.clip_fps(clip)

    def digest(self) -> str:
        """The same for the same content, captions and settings, wherever the folder lies."""
        parts = [str(self.size), str(self.fps), self.trigger]
        for clip in self.clips:
            parts += _digest_lines(clip)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def with_captions(self, captions: Iterable[str], trigger: str) -> Dataset:
        """The same clips under other captions."""
        clips = tuple(
            replace(c, caption=text) for c, text in zip(self.clips, captions, strict=True)
        )
        return replace(self, clips=clips, trigger=trigger)


def fill_trigger(text: str, trigger: str, where: str) -> str:
    """`{trigger}` replaced by the trigger word; a placeholder without a word is an error."""
    if TRIGGER_SLOT in text and not trigger.strip():
        raise UserError(
            f"{where} contains {TRIGGER_SLOT}, but no trigger is set.",
            "A trigger is a short plain word, for example MERMAID.",
            "Set trigger, or take the placeholder out.",
        )
    return text.replace(TRIGGER_SLOT, trigger.strip())


def unfilled_captions(dataset: Dataset) -> list[str]:
    """Clips whose caption still holds `{trigger}`, because no trigger is set yet."""
    return [clip.path.name for clip in dataset.clips if TRIGGER_SLOT in clip.caption]


def _digest_lines(clip: Clip) -> list[str]:
    """A plain clip's line does not depend on what else there can be: that stands on a line of its own, which no
    caption can forge, for one of several lines stands there too."""
    usual = Clip(path=clip.path, caption=clip.caption, frames=clip.frames, digest=clip.digest)
    names = ("size", "start", "fps", "views", "repeats", "regularisation")
    extras = {n: getattr(clip, n) for n in names if getattr(clip, n) != getattr(usual, n)}
    caption = clip.caption
    if "\n" in caption:
        extras["caption"], caption = caption, ""
    line = f"{clip.digest} {clip.frames} {caption}"
    return [line, f"+ {json.dumps(extras)}"] if extras else [line]
