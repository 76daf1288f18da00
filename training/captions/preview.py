"""What a template would write, against what is there; and what writing and going back did, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...wan.wording import counted
from ..data.dataset import Dataset
from .backup import EDITED, read_or_none
from .diff import caption_change
from .files import CaptionFile, Undone, Written, caption_files, root_of
from .names import named, path_names
from .table import NO_TABLE, CaptionTable

SHOWN = 5


def caption_preview(
    dataset: Dataset, captions: Sequence[str], *, table: CaptionTable = NO_TABLE
) -> str:
    """A line for every file with its caption; then which are new, the same or changed, word by word; then notes.

    What is there is the `.txt` file's text, or the dataset's own caption where there is no such file.
    Raises `UserError` for clips that share a file and have different captions.
    """
    files = caption_files(dataset, captions)
    names = _names(files)
    lines = [f"{name}: {file.text}" for name, file in zip(names, files, strict=True)]
    changes = [caption_change(_there(file), file.text) for file in files]
    count = Counter(change.kind for change in changes)
    lines.append(
        f"Against what is there: {count['new']} new, {count['same']} the same, {count['changed']} changed."
    )
    for kind in ("new", "same"):
        of_kind = [name for name, c in zip(names, changes, strict=True) if c.kind == kind]
        lines += [f"{kind}: {', '.join(of_kind)}"] if of_kind else []
    lines += [
        f"changed {name}: {change.text}"
        for name, change in zip(names, changes, strict=True)
        if change.text
    ]
    return "\n".join([*lines, *_notes(dataset, files, table)])


def written_text(written: Written) -> str:
    """What a writing did, in lines."""
    if not written.kept:
        return "Nothing to write: all captions are there already."
    parts = f"{written.created} new, {written.changed} changed, " + counted(
        written.same, "was right already", "were right already"
    )
    kept = ", ".join(f"{folder.parent.name}/{folder.name}" for folder in written.kept)
    lines = [f"Written: {parts}. What was there before is in {kept}; undo brings it back."]
    if written.finished:
        lines.append(
            "An earlier writing was cut off; this one has finished it, and undo brings back what was there before both."
        )
    return "\n".join(lines)


def undone_text(undone: Undone) -> str:
    """What going back did, in lines."""
    if not undone.folders:
        return "There is no writing to undo."
    folders = ", ".join(f"{folder.parent.name}/{folder.name}" for folder in undone.folders)
    back = counted(len(undone.restored), "caption is back", "captions are back")
    removed = counted(len(undone.removed), "file removed", "files removed")
    lines = [f"Undone, from {folders}: {back}, {removed} that the writing had made."]
    if undone.edited:
        lines.append(f"Edited since they were made, so they stay: {_shown(undone.edited, undone)}")
    if undone.replaced:
        lines.append(
            f"Edited since they were written; your texts are in {EDITED} there: {_shown(undone.replaced, undone)}"
        )
    if undone.lost:
        lines.append(
            f"Left as they are, because the kept caption is gone or changed: {_shown(undone.lost, undone)}"
        )
    lines.append(
        "Queue again with preview to see them. Each queue with undo goes back one writing."
    )
    return "\n".join(lines)


def _names(files: Sequence[CaptionFile]) -> list[str]:
    names = path_names((file.clip.path, file.root) for file in files)
    return [names[file.clip.path] for file in files]


def _there(file: CaptionFile) -> str:
    text = _text_of(file.path)
    return " ".join(file.clip.caption.split()) if text is None else text


def _text_of(path: Path) -> str | None:
    content = read_or_none(path)
    return (
        None if content is None else " ".join(content.decode("utf-8-sig", errors="replace").split())
    )


def _notes(dataset: Dataset, files: Sequence[CaptionFile], table: CaptionTable) -> list[str]:
    elsewhere = sum(bool(file.clip.caption) and not file.path.is_file() for file in files)
    kept = sum(clip.regularisation for clip in dataset.clips)
    notes = table.strangers((clip, root_of(dataset, clip)) for clip in dataset.clips)
    if elsewhere:
        notes.append(
            f"{counted(elsewhere, 'caption is', 'captions are')} in no .txt file now (a list such as captions.txt or "
            "JSONL, or another node). Writing makes .txt files; they go before the list, which stays as it is."
        )
    if kept:
        keep = counted(
            kept,
            "regularisation clip keeps its caption",
            "regularisation clips keep their captions",
        )
        notes.append(f"{keep}: no template is for them.")
    return notes


def _shown(paths: Sequence[Path], undone: Undone) -> str:
    roots = [folder.parent for folder in undone.folders]
    homes = {
        path: next((r for r in roots if path.is_relative_to(r)), path.parent) for path in paths
    }
    return named(list(path_names(homes.items()).values()), SHOWN)
