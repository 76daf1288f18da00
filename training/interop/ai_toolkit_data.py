"""ai-toolkit's list of datasets. Keys as toolkit/config_modules.py (DatasetConfig) reads them at 27a03a9."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...wan.errors import UserError
from ..data.dataset import KEEP_ASPECT, ONE_SIZE, DatasetSettings
from .draft import Draft, Values
from .keys import MOST_REPEATS, Keys, Reasons, sort_left
from .sizes import PLACEHOLDER, four_k_plus_1, multiple_of_16, side

IGNORED: Reasons = (
    (
        r"caption_ext|default_caption|use_short_captions|caption_type",
        "captions stand in .txt files beside the clips",
    ),
    (
        r"shuffle_tokens|token_dropout_rate|keep_tokens|replacements|random_triggers.*",
        "captions are not changed",
    ),
    (r"cache_.*|num_workers|prefetch_factor|fast_image_size", "the cache is the trainer's own"),
    (
        r"bucket_tolerance|scale|random_scale|random_crop|square_crop|augment.*|flip_y",
        "clips are only cut and mirrored",
    ),
    (
        r".*control.*|.*mask.*|clip_image.*|unconditional_path|inpaint_path",
        "there is no second picture beside a clip",
    ),
    (r"do_i2v|do_audio|audio_.*", "the model and its first frame decide"),
    (r"network_weight|loss_multiplier|prior_reg|batch_size", "every sample weighs the same"),
    (
        r"auto_frame_count|trim_auto_frame_count_tail",
        "every clip has as many frames as the dataset says",
    ),
)


def write_data(parts: Sequence[DatasetSettings], caption_dropout: float) -> list[dict[str, Any]]:
    """An entry for each folder; a placeholder where none is known."""
    if not parts:
        return [
            {"folder_path": PLACEHOLDER, "caption_ext": "txt", "caption_dropout_rate": float(caption_dropout),
             "num_frames": 81, "shrink_video_to_frames": False, "fps": 16, "resolution": [640]}
        ]  # fmt: skip
    return [_entry(part, caption_dropout) for part in parts]


def _entry(part: DatasetSettings, caption_dropout: float) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "folder_path": str(part.folder),
        "caption_ext": "txt",
        "caption_dropout_rate": float(caption_dropout),
        "num_frames": part.frames,
        "resolution": [round((part.width * part.height) ** 0.5)],
        "num_repeats": max(1, round(part.repeats)),
        "flip_x": part.flips,
        "is_reg": part.regularisation,
        "buckets": part.fit == KEEP_ASPECT,
    }
    if part.frames > 1:
        # Their default squeezes a whole file into so many frames, at whatever speed that gives.
        entry |= {"shrink_video_to_frames": False, "fps": max(1, round(part.fps))}
    if part.trigger:
        entry["trigger_word"] = part.trigger
    return entry


def read_data(keys: Keys, draft: Draft) -> None:
    """Each folder at each of its sizes, and the caption dropout, added to the draft."""
    entries = keys.raw("datasets", [])
    if not isinstance(entries, list):
        entries = [entries]
    dropout = keys.number("caption_dropout_rate")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(
                f"Dataset {number + 1} in {keys.where} is {entry!r:.60}.",
                "It is a set of values with folder_path.",
                "Correct the indentation.",
            )
        own = Keys(entry, f"{keys.where}, dataset {number + 1}")
        rate = own.number("caption_dropout_rate", 0.0)
        if dropout is not None and rate != dropout:
            draft.note(
                f"caption_dropout_rate differs between datasets; {dropout:g} is taken for all."
            )
        dropout = rate if dropout is None else dropout
        draft.parts += _parts(own, draft)
        draft.leave(*sort_left(own, IGNORED))
    draft.values["caption_dropout"] = dropout or 0.0


def _parts(keys: Keys, draft: Draft) -> list[Values]:
    folder = keys.text("folder_path") or keys.text("dataset_path")
    frames = keys.whole("num_frames", 1, 1) or 1
    squeezed = keys.flag("shrink_video_to_frames", True)
    fps = keys.number("fps", 24.0)
    common: Values = {
        "folder": folder,
        "frames": four_k_plus_1(side(keys, "num_frames", frames)),
        "repeats": keys.positive("num_repeats", 1.0, MOST_REPEATS),
        "flips": keys.flag("flip_x"),
        "regularisation": keys.flag("is_reg"),
        "fit": KEEP_ASPECT if keys.flag("buckets", True) else ONE_SIZE,
        "trigger": keys.text("trigger_word"),
    }
    sizes = keys.raw("resolution", 512)
    if folder == PLACEHOLDER:
        return []
    if frames != common["frames"]:
        draft.note(f"num_frames is {frames}; Wan takes 4k+1: {common['frames']}.")
    if frames > 1 and squeezed:
        draft.note(
            f"ai-toolkit squeezes each file into {frames} frames, so time runs at another speed in each; "
            "here files are read at fps without stretching."
        )
    elif frames > 1:
        common["fps"] = fps
    sizes = sizes if isinstance(sizes, list) else [sizes]
    if len(sizes) > 1:
        draft.note(
            f"{folder} is shown once at each of {len(sizes)} sizes: a dataset node for each."
        )
    sides = [multiple_of_16(side(keys, "resolution", size)) for size in sizes]
    return [common | {"width": length, "height": length} for length in sides]
