"""What a dataset is, in words: readable for six files, and short for a thousand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .captions import cut_short, some
from .dataset import TRIGGER_SLOT, Dataset, unfilled_captions
from .join import root_of
from .lists import printable

SHOWN_SKIPPED = 20
SHOWN_SHAPES = 12
SHOWN_NOTES = 20


def dataset_report(dataset: Dataset) -> str:
    """What will be trained on and how often, what was skipped and why, which captions are missing."""
    parts = (_counts, _shapes, _windows, _views, _shares, _short, _skipped, _captions, _notes)
    return printable("\n".join(line for part in parts for line in part(dataset)))


def _counts(dataset: Dataset) -> Iterator[str]:
    size, used = dataset.size, len({clip.path for clip in dataset.clips})
    videos = sum(clip.frames > 1 for clip in dataset.clips)
    folders = dict.fromkeys(root_of(clip, dataset).name for clip in dataset.clips)
    yield (
        f"{used} of {used + len(dataset.skipped)} files in {some(list(folders))}: "
        f"{count_of(videos, 'clip')}, {count_of(len(dataset.clips) - videos, 'picture')}, "
        f"at {size.width}x{size.height}, {size.frames} frames, {dataset.fps:g} fps"
        f" ({size.frames / dataset.fps:.2f} s)"
    )


def count_of(number: int, thing: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{number} {thing}{'s' * (number != 1)}"


def _shapes(dataset: Dataset) -> Iterator[str]:
    """Clips of a batch have one shape, so how many there are of each matters."""
    shapes = Counter(dataset.clip_size(clip) for clip in dataset.clips)
    if len({shape[:2] for shape in shapes}) == 1 and next(iter(shapes))[:2] == dataset.size[:2]:
        return
    yield f"{len(shapes)} shapes, width x height x frames: clips"
    for (width, height, frames), count in shapes.most_common(SHOWN_SHAPES):
        yield f"  {width}x{height}x{frames}: {count}"
    if rest := list(shapes.most_common())[SHOWN_SHAPES:]:
        yield f"  {len(rest)} more: {sum(count for _, count in rest)}"


def _windows(dataset: Dataset) -> Iterator[str]:
    clips = Counter(clip.path for clip in dataset.clips if clip.frames > 1)
    if clips and max(clips.values()) > 1:
        low, high = min(clips.values()), max(clips.values())
        mean = sum(clips.values()) / len(clips)
        yield f"Clips of one file: {low} to {high}, {mean:.1f} on average"


def _shares(dataset: Dataset) -> Iterator[str]:
    """What each folder has of all that is shown."""
    counts = dataset.counts()
    roots = {root_of(clip, dataset) for clip in dataset.clips}
    plain = all(clip.repeats == 1 for clip in dataset.clips) and not counts.regularisation
    if plain and len(roots) == 1:
        return
    yield f"{counts.shown:g} shown in an epoch"
    groups: dict[tuple, list[float]] = {}
    for clip in dataset.clips:
        key = (root_of(clip, dataset), clip.regularisation)
        groups.setdefault(key, []).append(clip.repeats)
    for (root, regularisation), repeats in groups.items():
        low, high = min(repeats), max(repeats)
        times = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        kind = " (regularisation)" if regularisation else ""
        share = sum(repeats) / counts.shown
        yield f"  {root.name}{kind}: {share:.0%}, {len(repeats)} clips x {times}"
    if dataset.clips and not counts.clips:
        yield "All clips are regularisation: nothing new is taught until another dataset is added"


def _views(dataset: Dataset) -> Iterator[str]:
    """Mirrorings and cuts, which nothing else in the report shows."""
    views = [len(clip.views) for clip in dataset.clips if len(clip.views) > 1]
    if views:
        most = f"{min(views)} to {max(views)}" if min(views) < max(views) else f"{views[0]}"
        yield f"{len(views)} of {len(dataset.clips)} are shown in {most} views in turn: mirrored, or cut elsewhere"


def _short(dataset: Dataset) -> Iterator[str]:
    short: dict[int, list[str]] = {}
    for clip in dataset.clips:
        asked = dataset.clip_asked(clip)
        if 1 < clip.frames < asked:
            short.setdefault(asked, []).append(f"{clip.name} ({clip.frames})")
    for frames, names in short.items():
        yield f"Shorter than {frames} frames, used at their own length: {some(names)}"


def _skipped(dataset: Dataset) -> Iterator[str]:
    for path, reason, _ in dataset.skipped[:SHOWN_SKIPPED]:
        yield f"Skipped {cut_short(path.name)}: {reason}"
    if len(dataset.skipped) > SHOWN_SKIPPED:
        yield f"Skipped {len(dataset.skipped) - SHOWN_SKIPPED} more files; the console names them all"


def _captions(dataset: Dataset) -> Iterator[str]:
    teaching = [clip for clip in dataset.clips if not clip.regularisation]
    if without := list(dict.fromkeys(c.path.name for c in dataset.clips if not c.caption)):
        yield f"No caption: {some(without)}"
    if waiting := list(dict.fromkeys(unfilled_captions(dataset))):
        yield f"{TRIGGER_SLOT} waits for a trigger in the captions of: {some(waiting)}"
    if dataset.trigger and teaching:
        named = sum(dataset.trigger in clip.caption for clip in teaching)
        yield f"Trigger {dataset.trigger} stands in {named} of {len(teaching)} captions"


def _notes(dataset: Dataset) -> Iterator[str]:
    for note in dataset.notes[:SHOWN_NOTES]:
        yield f"Note: {note}"
    if len(dataset.notes) > SHOWN_NOTES:
        yield f"{len(dataset.notes) - SHOWN_NOTES} more notes"
