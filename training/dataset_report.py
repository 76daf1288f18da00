"""What a dataset is, in words."""

from __future__ import annotations

from .dataset import TRIGGER_SLOT, Dataset, unfilled_captions

SHOWN_REASONS = 5


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
