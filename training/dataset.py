"""A folder of clips or pictures with captions beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..wan.errors import UserError
from ..wan.shapes import FRAMES_PER_CELL, ClipSize
from ..wan.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, probe

MEDIA = ("auto", "video", "image")
SHOWN_REASONS = 5
TRIGGER_SLOT = "{trigger}"
SHORTEST_PART = 0.5
"""A shorter clip is used at its own length, down to this part of the frames that are asked for."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One file that will be trained on. `caption` has its trigger filled in."""

    path: Path
    caption: str
    frames: int
    """Frames that training uses: the dataset's, fewer if the clip is shorter, 1 for a picture. 4k+1."""
    digest: str
    """SHA-256 of the file's content."""


class Skipped(NamedTuple):
    """A file that is not used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Clips of one size; `skipped` names what the folder also holds."""

    folder: Path
    clips: tuple[Clip, ...]
    size: ClipSize
    fps: float
    trigger: str = ""
    skipped: tuple[Skipped, ...] = ()

    def clip_size(self, clip: Clip) -> ClipSize:
        """The size at which `clip` is read: pictures are one frame."""
        return self.size._replace(frames=clip.frames)

    def digest(self) -> str:
        """The same for the same content, captions and settings, wherever the folder lies."""
        parts = [str(self.size), str(self.fps), self.trigger]
        parts += [f"{clip.digest} {clip.frames} {clip.caption}" for clip in self.clips]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def with_captions(self, captions: Iterable[str], trigger: str) -> Dataset:
        """The same clips under other captions."""
        clips = tuple(
            replace(c, caption=text) for c, text in zip(self.clips, captions, strict=True)
        )
        return replace(self, clips=clips, trigger=trigger)


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
    folder: Path,
    media: str,
    *,
    trigger: str,
    size: ClipSize,
    fps: float,
    on_file: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Looks into every file; what cannot be used is skipped by name, and only an empty rest is an error."""
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    paths = find_media(folder, media)
    for done, path in enumerate(paths, 1):
        try:
            clips.append(_clip(path, size=size, fps=fps, trigger=trigger))
        except UserError as error:
            skipped.append(Skipped(path, str(error)))
        if on_file:
            on_file(done, len(paths))
    if not clips:
        raise UserError(
            f"None of the {len(paths)} files in {folder} can be used: "
            + " ".join(reason for _, reason in skipped[:SHOWN_REASONS]),
            f"A clip needs {size.frames} frames at {fps:g} fps, a picture needs to be readable.",
            "Mend the files, choose others, or lower frames.",
        )
    return Dataset(
        folder=folder,
        clips=tuple(clips),
        size=size,
        fps=fps,
        trigger=trigger,
        skipped=tuple(skipped),
    )


def fill_trigger(text: str, trigger: str, where: str) -> str:
    """`{trigger}` replaced by the trigger word; a placeholder without a word is an error."""
    if TRIGGER_SLOT in text and not trigger.strip():
        raise UserError(
            f"{where} contains {TRIGGER_SLOT}, but no trigger is set.",
            "A trigger is a short plain word, for example MERMAID.",
            "Set trigger, or take the placeholder out.",
        )
    return text.replace(TRIGGER_SLOT, trigger.strip())


def dataset_report(dataset: Dataset) -> str:
    """What will be trained on, what was skipped and why, which captions are missing."""
    size = dataset.size
    videos = sum(clip.frames > 1 for clip in dataset.clips)
    lines = [
        f"{len(dataset.clips)} of {len(dataset.clips) + len(dataset.skipped)} files in {dataset.folder.name}: "
        f"{videos} clips, {len(dataset.clips) - videos} pictures, "
        f"at {size.width}x{size.height}, {size.frames} frames, {dataset.fps:g} fps"
        f" ({size.frames / dataset.fps:.2f} s)"
    ]
    if short := [clip for clip in dataset.clips if 1 < clip.frames < size.frames]:
        named = ", ".join(f"{clip.path.name} ({clip.frames})" for clip in short[:SHOWN_REASONS])
        lines.append(f"Shorter than {size.frames} frames, used at their own length: {named}")
    lines += [f"Skipped {path.name}: {reason}" for path, reason in dataset.skipped]
    if without := [clip.path.name for clip in dataset.clips if not clip.caption]:
        lines.append(f"No caption: {', '.join(without[:5])}{' ...' if len(without) > 5 else ''}")
    if waiting := unfilled_captions(dataset):
        lines.append(
            f"{TRIGGER_SLOT} waits for a trigger in the captions of: {', '.join(waiting[:SHOWN_REASONS])}"
        )
    if dataset.trigger:
        named = sum(dataset.trigger in clip.caption for clip in dataset.clips)
        lines.append(
            f"Trigger {dataset.trigger} stands in {named} of {len(dataset.clips)} captions"
        )
    return "\n".join(lines)


def unfilled_captions(dataset: Dataset) -> list[str]:
    """Clips whose caption still holds `{trigger}`, because no trigger is set yet."""
    return [clip.path.name for clip in dataset.clips if TRIGGER_SLOT in clip.caption]


def folder_stamp(folder: Path, media: str) -> str:
    """Changes when a file or a caption is added, removed or written: cheap enough for every prompt."""
    digest = hashlib.sha256()
    for path in find_media(folder, media):
        for part in (path, path.with_suffix(".txt")):
            if part.is_file():
                stat = part.stat()
                digest.update(f"{part.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def _clip(path: Path, *, size: ClipSize, fps: float, trigger: str) -> Clip:
    frames = 1 if path.suffix.lower() in IMAGE_SUFFIXES else size.frames
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
