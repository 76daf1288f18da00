"""musubi-tuner's dataset TOML. Keys as dataset/config_utils.py reads them at 30c658c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...wan.errors import UserError
from ..data.dataset import KEEP_ASPECT, ONE_SIZE, DatasetSettings
from .documents import Document
from .draft import Draft, Values
from .keys import MOST_REPEATS, Keys, Reasons, sort_left
from .sizes import PLACEHOLDER, four_k_plus_1, multiple_of_16, side
from .toml_text import Row, toml_text

EXTRACTIONS = {"head": "head", "uniform": "uniform", "overlapping": "slide"}
_OURS = {"head": "head", "uniform": "uniform", "slide": "overlapping", "chunk": "overlapping"}

IGNORED: Reasons = (
    (r"caption_extension", "captions stand in .txt files beside the clips"),
    (r"cache_directory", "the cache is the trainer's own"),
    (r"bucket_no_upscale", "small clips are scaled up, and reported"),
    (r"control_.*|no_resize_control|multiple_target", "there is no second picture beside a clip"),
    (r"fp_.*", "only FramePack has it"),
    (r"frame_stride|max_frames", "clips begin where clip_mode says"),
)


def write_data(parts: Sequence[DatasetSettings], batch: int) -> str:
    """The folders; with a placeholder where none is known."""
    tables: dict[str, list[Row]] = {
        "general": [
            ("caption_extension", ".txt", ""),
            ("batch_size", batch, ""),
            ("bucket_no_upscale", False, ""),
        ]
    }
    if not parts:
        tables["datasets[]"] = [
            ("video_directory", PLACEHOLDER, "set this"),
            ("resolution", [832, 480], ""),
            ("target_frames", [81], ""),
            ("frame_extraction", "head", ""),
        ]
    for number, part in enumerate(parts):
        tables[f"datasets[]{number}"] = _entry(part)
    return toml_text("Tandem's dataset for musubi-tuner.", tables)


def _entry(part: DatasetSettings) -> list[Row]:
    rows: list[Row] = [
        ("resolution", [part.width, part.height], ""),
        ("enable_bucket", part.fit == KEEP_ASPECT, ""),
        ("num_repeats", max(1, round(part.repeats)), ""),
    ]
    if part.media == "image" or part.frames == 1:
        return [("image_directory", str(part.folder), ""), *rows]
    mode = EXTRACTIONS.get(part.clip_mode, "head")
    rows += [("target_frames", [part.frames], ""), ("frame_extraction", mode, "")]
    if mode == "uniform":
        rows.append(("frame_sample", part.clips_per_file or 2, ""))
    if mode == "slide":
        rows.append(("frame_stride", max(1, part.frames // 2), ""))
    return [("video_directory", str(part.folder), "clips at the model's own frame rate"), *rows]


def read_data(document: Document, draft: Draft) -> None:
    """Each folder, and the batch size, added to the draft."""
    general = document.values.get("general")
    general = general if isinstance(general, dict) else {}
    batches = []
    for number, entry in enumerate(document.values["datasets"]):
        if not isinstance(entry, dict):
            raise UserError(
                f"datasets {number + 1} in {document.name} is {entry!r:.60}.",
                "It is a table [[datasets]].",
                "Write it with two brackets, and the folder below it.",
            )
        keys = Keys({**general, **entry}, document.name)
        batches.append(keys.whole("batch_size", 1, 1) or 1)
        draft.parts += _parts(keys, draft)
        draft.leave(*sort_left(keys, IGNORED))
    others = {
        key: value for key, value in document.values.items() if key not in ("general", "datasets")
    }
    draft.leave(*sort_left(Keys(others, document.name), ()))
    draft.values["batch"] = batches[0] if batches else 1
    if len(set(batches)) > 1:
        draft.note(f"batch_size differs between datasets ({batches}); the first is taken.")


def _parts(keys: Keys, draft: Draft) -> list[Values]:
    images = keys.text("image_directory") or keys.text("image_jsonl_file")
    folder = images or keys.text("video_directory") or keys.text("video_jsonl_file")
    width, height = _size(keys)
    part: Values = {
        "folder": folder,
        "width": width,
        "height": height,
        "fit": KEEP_ASPECT if keys.flag("enable_bucket") else ONE_SIZE,
        "repeats": keys.positive("num_repeats", 1.0, MOST_REPEATS),
    }
    videos = [{"media": "image", "frames": 1}] if images else _videos(keys, draft)
    if folder.endswith(".jsonl"):
        draft.note(
            f"{folder} lists files and captions; captions stand in .txt files beside the clips here."
        )
    return [] if folder == PLACEHOLDER else [part | video for video in videos]


def _size(keys: Keys) -> tuple[int, int]:
    size: Any = keys.raw("resolution", [960, 544])
    numbers = size if isinstance(size, list) else [size, size]
    if len(numbers) != 2:
        raise UserError(
            f"resolution in {keys.where} is {size!r:.60}.",
            "It is width and height.",
            "Write it like [832, 480].",
        )
    width, height = (multiple_of_16(side(keys, "resolution", number)) for number in numbers)
    return width, height


def _videos(keys: Keys, draft: Draft) -> list[Values]:
    """How files are cut, for each of the lengths."""
    theirs = keys.text("frame_extraction", "head")
    targets = keys.raw("target_frames", [1])
    targets = targets if isinstance(targets, list) else [targets]
    lengths = [four_k_plus_1(side(keys, "target_frames", number)) for number in targets] or [1]
    if theirs == "full":
        lengths = [four_k_plus_1(side(keys, "max_frames", keys.raw("max_frames", 129)))]
    if theirs not in EXTRACTIONS.values():
        draft.note(
            f"frame_extraction {theirs} is not here: {_OURS.get(theirs, 'head')} takes its place."
        )
    if len(lengths) > 1:
        draft.note(
            f"Files are shown once at each of {len(lengths)} lengths: a dataset node for each."
        )
    if keys.raw("source_fps") is None:
        draft.note(
            "Without source_fps every frame counts as 16 fps there; here files are read at fps."
        )
    part: Values = {"media": "video", "clip_mode": _OURS.get(theirs, "head")}
    samples = keys.whole("frame_sample", None, 1)
    if theirs == "uniform" and samples:
        part["clips_per_file"] = samples
        draft.note(f"{samples} clips are cut from each file; count them all in clips.")
    return [part | {"frames": frames} for frames in lengths]
