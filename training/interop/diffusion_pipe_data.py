"""diffusion-pipe's dataset TOML. Keys as utils/dataset.py reads them at 8f83dbf."""

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

CLIP_MODES = {"head": "single_beginning", "middle": "single_middle"}

IGNORED: Reasons = (
    (r"min_ar|max_ar|num_ar_buckets|ar_buckets", "a clip's own shape is kept, without a list"),
    (r"cache_shuffle_.*|shuffle_.*", "captions are not shuffled"),
    (r"mask_path|default_mask_file", "there is no masked training"),
    (r"control_path", "there is no control video"),
    (r"caption_prefix|online_captions", "captions stand in .txt files beside the clips"),
    (r"skip_empty_caption", "clips without a caption are reported"),
    (r"subsample_ratio", "all clips are used"),
)


def write_data(parts: Sequence[DatasetSettings]) -> str:
    """The folders; with a placeholder where none is known."""
    tables: dict[str, list[Row]] = {"": []}
    if not parts:
        tables[""] = [
            ("resolutions", [[832, 480]], ""),
            *_buckets(),
            ("frame_buckets", [1, 81], ""),
        ]
        tables["directory[]"] = [("path", PLACEHOLDER, "set this"), ("num_repeats", 1, "")]
    for number, part in enumerate(parts):
        rows: list[Row] = [("path", str(part.folder), ""), ("num_repeats", _repeats(part), "")]
        if part.fit == ONE_SIZE:
            rows.append(("size_buckets", [[part.width, part.height, part.frames]], ""))
        else:
            rows += [("resolutions", [[part.width, part.height]], ""), *_buckets()]
            rows.append(("frame_buckets", [part.frames], ""))
        tables[f"directory[]{number}"] = rows
    return toml_text("Tandem's dataset for diffusion-pipe.", tables)


def _buckets() -> list[Row]:
    return [
        ("enable_ar_bucket", True, ""),
        ("min_ar", 0.5, ""),
        ("max_ar", 2.0, ""),
        ("num_ar_buckets", 7, ""),
    ]


def _repeats(part: DatasetSettings) -> float:
    whole = int(part.repeats)
    return whole if whole == part.repeats else float(part.repeats)


def read_data(document: Document, draft: Draft) -> None:
    """Each folder at each of its sizes, added to the draft."""
    top = {key: value for key, value in document.values.items() if key != "directory"}
    for number, entry in enumerate(document.values["directory"]):
        if not isinstance(entry, dict):
            raise UserError(
                f"directory {number + 1} in {document.name} is {entry!r:.60}.",
                "It is a table [[directory]].",
                "Write it with two brackets, and path below it.",
            )
        # A folder's own values go before those at the top.
        keys = Keys({**top, **entry}, document.name)
        draft.parts += _parts(keys, draft)
        draft.leave(*sort_left(keys, IGNORED))


def _parts(keys: Keys, draft: Draft) -> list[Values]:
    folder = keys.text("path")
    if folder == PLACEHOLDER:
        for key in (
            "resolutions",
            "size_buckets",
            "frame_buckets",
            "num_repeats",
            "enable_ar_bucket",
        ):
            keys.raw(key)
        return []
    common: Values = {"folder": folder, "repeats": keys.positive("num_repeats", 1.0, MOST_REPEATS)}
    sizes = keys.raw("size_buckets")
    frames = keys.raw("frame_buckets", [1])
    shapes = keys.flag("enable_ar_bucket")
    resolutions = keys.raw("resolutions", [])
    if isinstance(sizes, list) and sizes:
        return [common | _size(keys, size, None) | {"fit": ONE_SIZE} for size in sizes]
    longest = max(
        [f for f in _list(keys, "frame_buckets", frames) if isinstance(f, int)], default=1
    )
    if longest != four_k_plus_1(longest):
        draft.note(f"frame_buckets has {longest}; Wan takes 4k+1: {four_k_plus_1(longest)}.")
    fit = KEEP_ASPECT if shapes else ONE_SIZE
    found = _list(keys, "resolutions", resolutions) or [512]
    if not shapes:
        draft.note("Without enable_ar_bucket every clip is cut to a square.")
        found = [_square(size) for size in found]
    if len(found) > 1:
        draft.note(
            f"{folder} is shown once at each of {len(found)} sizes: a dataset node for each."
        )
    return [common | _size(keys, size, longest) | {"fit": fit} for size in found]


def _square(size: Any) -> Any:  # noqa: ANN401 - a number or a list
    numbers = size if isinstance(size, list) else []
    if len(numbers) == 2 and all(isinstance(n, (int, float)) and 0 < n < 1e5 for n in numbers):
        return round((numbers[0] * numbers[1]) ** 0.5)
    return size


def _size(keys: Keys, size: Any, frames: int | None) -> Values:  # noqa: ANN401 - a number or a list
    numbers = size if isinstance(size, list) else [size, size]
    if frames is None and len(numbers) == 3:
        numbers, frames = numbers[:2], side(keys, "size_buckets", numbers[2])
    if len(numbers) != 2:
        raise UserError(
            f"{keys.where} has the size {size!r:.60}.",
            "It is one number, or width and height (and frames in size_buckets).",
            "Write it like [832, 480].",
        )
    width, height = (multiple_of_16(side(keys, "resolutions", n)) for n in numbers)
    return {"width": width, "height": height, "frames": four_k_plus_1(frames or 1)}


def _list(keys: Keys, key: str, value: Any) -> list[Any]:  # noqa: ANN401 - whatever the text holds
    if not isinstance(value, list):
        raise UserError(
            f"{key} in {keys.where} is {value!r:.60}.", "It is a list.", f"Write {key} in brackets."
        )
    return value
