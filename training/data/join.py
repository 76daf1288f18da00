"""Several folders as one dataset: each clip keeps its folder, its size and its rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...wan.errors import UserError
from .captions import some
from .dataset import TRIGGER_SLOT, Clip, Dataset, fill_trigger


def joined(first: Dataset, second: Dataset) -> Dataset:
    """The clips of both, in the first one's settings: what is different in the second's clips is written on them.

    A placeholder that waits for a trigger gets the other one's, but not in regularisation clips.
    Raises `UserError` when they have different triggers.
    """
    trigger = _one_trigger(first, second)
    frames = max(first.size.frames, second.size.frames)
    whole = replace(first, size=first.size._replace(frames=frames))
    clips = [
        _adopted(clip, dataset, whole) for dataset in (first, second) for clip in dataset.clips
    ]
    return replace(
        whole,
        clips=tuple(_filled(clip, trigger) for clip in clips),
        trigger=trigger,
        skipped=tuple(dict.fromkeys(first.skipped + second.skipped)),
        cut_off=tuple(dict.fromkeys(first.cut_off + second.cut_off)),
        notes=tuple(dict.fromkeys((*first.notes, *second.notes, *_in_both(first, second)))),
        parts=first.parts + second.parts,
    )


def root_of(clip: Clip, dataset: Dataset) -> Path:
    """The dataset folder that `clip` came from."""
    return clip.root or dataset.folder


def _one_trigger(first: Dataset, second: Dataset) -> str:
    triggers = {dataset.trigger.strip() for dataset in (first, second)} - {""}
    if len(triggers) > 1:
        raise UserError(
            f"The datasets have the triggers {' and '.join(sorted(triggers))}.",
            "A LoRA has one trigger; regularisation clips need none.",
            "Set the same trigger in both, or leave one empty and write its words plainly into the captions.",
        )
    return next(iter(triggers), "")


def _adopted(clip: Clip, dataset: Dataset, result: Dataset) -> Clip:
    size, fps, root = dataset.clip_size(clip)[:2], dataset.clip_fps(clip), root_of(clip, dataset)
    asked, frames, picture = dataset.clip_asked(clip), result.size.frames, clip.frames == 1
    return replace(
        clip,
        size=None if size == result.size[:2] else size,
        fps=None if fps == result.fps else fps,
        root=None if root == result.folder else root,
        asked=None if picture or asked == frames else asked,
    )


def _filled(clip: Clip, trigger: str) -> Clip:
    if not trigger or clip.regularisation or TRIGGER_SLOT not in clip.caption:
        return clip
    caption = fill_trigger(clip.caption, trigger, f"The caption of {clip.name}")
    return replace(clip, caption=caption)


def _in_both(first: Dataset, second: Dataset) -> list[str]:
    """A line for each kind of thing that is twice."""
    parts, paths = {first.part(clip) for clip in first.clips}, {clip.path for clip in first.clips}
    lying = {clip.digest: clip for clip in reversed(first.clips)}
    again, otherwise = [], []
    copies: dict[tuple[Path, Path], list[str]] = {}
    for clip in second.clips:
        if second.part(clip) in parts:
            again.append(clip.name)
        elif clip.path in paths:
            otherwise.append(clip.path.name)
        elif other := lying.get(clip.digest):
            roots = root_of(other, first), root_of(clip, second)
            copies.setdefault(roots, []).append(clip.path.name)
    notes = [f"The same file is in {_both(*roots)}: {_some(n)}" for roots, n in copies.items()]
    if again:
        notes.append(f"In this chain twice, which is the same as twice the repeats: {_some(again)}")
    if otherwise:
        notes.append(f"In this chain twice, read in two ways: {_some(otherwise)}")
    return notes


def _both(one: Path, other: Path) -> str:
    if one == other:
        return f"{one.name} under two names"
    return f"{one.name} and {other.name}" if one.name != other.name else f"{one} and {other}"


def _some(names: list[str]) -> str:
    return some(list(dict.fromkeys(names)))
