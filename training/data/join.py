"""Several folders as one dataset: each clip keeps its folder, its size and its rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...wan.errors import UserError
from ...wan.shapes import ClipSize
from .captions import some
from .dataset import TRIGGER_SLOT, Clip, Dataset, fill_trigger


def joined(first: Dataset, second: Dataset) -> Dataset:
    """The clips of both, in the first one's settings: what is different in the second's clips is written on them.

    A placeholder that waits for a trigger gets the other one's, but not in regularisation clips.
    Raises `UserError` when they have different triggers.
    """
    trigger = _one_trigger(first, second)
    clips = [
        _adopted(clip, dataset, first) for dataset in (first, second) for clip in dataset.clips
    ]
    width, height, _ = first.size
    return replace(
        first,
        clips=tuple(_filled(clip, trigger) for clip in clips),
        size=ClipSize(width, height, max(first.size.frames, second.size.frames)),
        trigger=trigger,
        skipped=first.skipped + second.skipped,
        notes=(*first.notes, *second.notes, *_in_both(first, second)),
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
    return replace(
        clip,
        size=None if size == result.size[:2] else size,
        fps=None if fps == result.fps else fps,
        root=None if root == result.folder else root,
    )


def _filled(clip: Clip, trigger: str) -> Clip:
    if not trigger or clip.regularisation or TRIGGER_SLOT not in clip.caption:
        return clip
    caption = fill_trigger(clip.caption, trigger, f"The caption of {clip.name}")
    return replace(clip, caption=caption)


def _in_both(first: Dataset, second: Dataset) -> list[str]:
    there = {clip.digest for clip in first.clips}
    names = list(dict.fromkeys(clip.path.name for clip in second.clips if clip.digest in there))
    if not names:
        return []
    return [f"The same file is in {first.folder.name} and {second.folder.name}: {some(names)}"]
