"""The nodes between Tandem's datasets and the host's own lists of videos, pictures and texts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TypeVar, cast

import torch
from comfy_api.latest import Input, io
from comfy_execution.graph_utils import ExecutionBlocker

from ..training.data.dataset import KEEP_ASPECT, Clip, Dataset, DatasetSettings
from ..training.data.file_notes import FileNotes
from ..training.data.join import joined
from ..training.data.lists import printable
from ..training.data.media import Medium, media_dataset
from ..training.data.report import dataset_report
from ..wan.errors import UserError
from ..wan.shapes import checked_clip_size
from . import sockets
from .dataset import TandemDataset
from .host.dataset_files import clip_video, images_medium, video_medium
from .host.places import cache_folder
from .host.progress import counting, node_text

logger = logging.getLogger("tandem.dataset")
Value = TypeVar("Value")
Listed = Value | list[Value]
"""A node that takes lists gets a list for each setting too; without one its default is none."""
READING = (
    *("trigger", "width", "height", "frames", "fps", "clip_mode", "clips_per_file", "fit"),
    *("flips", "crops", "repeats", "regularisation", "dataset"),
)
"""Inputs of Tandem Dataset that mean the same here."""


class TandemDatasetFromHost(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        read = {each.id: each for each in TandemDataset.define_schema().inputs}
        return io.Schema(
            node_id="TandemDatasetFromHost",
            display_name="Tandem Dataset from ComfyUI",
            category="Tandem/dataset",
            description="Makes a Tandem dataset from ComfyUI's own lists: videos and pictures with their texts, for "
            "example from Load Video-Text (from Folder). Video files are used where they lie; what exists only in "
            "the graph is written once, without loss, into output/tandem_cache/clips.",
            search_aliases=[
                "dataset from videos",
                "dataset from images",
                "convert dataset",
                "host dataset",
            ],
            is_input_list=True,
            inputs=[
                io.Video.Input(
                    "videos",
                    optional=True,
                    tooltip="A list of videos, for example from Load Video-Text (from Folder), or a single one. A "
                    "video that was trimmed is used in that part.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="A list of pictures, for example from Load Image-Text (from Folder). An entry of several "
                    "frames is a clip at fps; Rebatch Images with 1 makes them single pictures.",
                ),
                io.String.Input(
                    "texts",
                    force_input=True,
                    optional=True,
                    tooltip="One caption for each video, then one for each image. Not connected: the .txt files "
                    "beside video files. For example the texts of Load Video-Text (from Folder).",
                ),
                *(read[name] for name in READING),
            ],
            outputs=[
                sockets.Dataset.Output(display_name="dataset"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        videos: Sequence[object] | None = None,
        images: Sequence[object] | None = None,
        width: Listed[int | None] = 832,
        height: Listed[int | None] = 480,
        frames: Listed[int | None] = 81,
    ) -> bool | str:
        # Lists, and what comes over a link is None in them.
        size = [value for value in map(_one, (width, height, frames)) if value is not None]
        return sockets.first_error(
            lambda: videos or images or _no_media(),
            lambda: len(size) < 3 or checked_clip_size(*size),
        )

    @classmethod
    def execute(
        cls,
        videos: Sequence[Input.Video] | None = None,
        images: Sequence[torch.Tensor] | None = None,
        texts: Sequence[str] | None = None,
        trigger: Listed[str] = "",
        width: Listed[int] = 832,
        height: Listed[int] = 480,
        frames: Listed[int] = 81,
        fps: Listed[int] = 16,
        clip_mode: Listed[str] = "head",
        clips_per_file: Listed[int] = 0,
        fit: Listed[str] = KEEP_ASPECT,
        flips: Listed[bool] = False,
        crops: Listed[int] = 1,
        repeats: Listed[float] = 1.0,
        regularisation: Listed[bool] = False,
        dataset: Listed[Dataset | None] = None,
    ) -> io.NodeOutput:
        settings = DatasetSettings(
            folder=cache_folder() / "clips",
            trigger=_one(trigger),
            width=_one(width),
            height=_one(height),
            frames=_one(frames),
            fps=float(_one(fps)),
            clip_mode=_one(clip_mode),
            clips_per_file=_one(clips_per_file),
            fit=_one(fit),
            flips=_one(flips),
            crops=_one(crops),
            repeats=float(_one(repeats)),
            regularisation=_one(regularisation),
        )
        node_id = cls.hidden.unique_id
        media = list(_media(videos or (), images or (), texts, settings, node_id))
        read = media_dataset(
            media,
            settings,
            on_file=counting("looking at file", node_id),
            notes=FileNotes(cache_folder() / "files.jsonl"),
        )
        for path, reason, _ in read.skipped:
            logger.warning("Skipped %s: %s", printable(path.name), printable(reason))
        before = _one(dataset)
        result = joined(before, read) if before else read
        report = dataset_report(result)
        node_text(node_id, report)
        return io.NodeOutput(result, report)


class TandemDatasetToHost(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemDatasetToHost",
            display_name="Tandem Dataset to ComfyUI",
            category="Tandem/dataset",
            description="Gives a dataset to ComfyUI's own dataset nodes: clips as a list of videos, pictures as a list "
            "of images, each with its texts. They are as training sees them: resampled, scaled and cut. A video is "
            "decoded when a node asks for its frames; pictures are all in memory at once.",
            search_aliases=[
                "dataset to videos",
                "dataset to images",
                "export dataset",
                "host dataset",
            ],
            inputs=[
                sockets.Dataset.Input("dataset", tooltip="The clips and pictures to hand out.")
            ],
            outputs=[
                io.Video.Output(display_name="videos", is_output_list=True),
                io.String.Output(display_name="video_texts", is_output_list=True),
                io.Image.Output(display_name="images", is_output_list=True),
                io.String.Output(display_name="image_texts", is_output_list=True),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, dataset: Dataset) -> io.NodeOutput:
        films = [clip for clip in dataset.clips if clip.frames > 1]
        pictures = [clip for clip in dataset.clips if clip.frames == 1]
        report = _handed_out(dataset, films, pictures)
        node_text(cls.hidden.unique_id, report)
        videos = _repeated([clip_video(dataset, clip) for clip in films], films)
        images = [clip_video(dataset, clip).get_components().images for clip in pictures]
        return io.NodeOutput(
            videos or _nothing("videos"),
            _repeated([c.caption for c in films], films) or _nothing("video_texts"),
            _repeated(images, pictures) or _nothing("images"),
            _repeated([c.caption for c in pictures], pictures) or _nothing("image_texts"),
            report,
        )


def _media(
    videos: Sequence[Input.Video],
    images: Sequence[torch.Tensor],
    texts: Sequence[str] | None,
    settings: DatasetSettings,
    node_id: str | None,
) -> Iterator[Medium]:
    count = len(videos) + len(images)
    if not count:
        _no_media()
    captions = [None] * count if not texts else list(texts)
    if len(captions) != count:
        raise UserError(
            f"There are {len(captions)} texts for {len(videos)} videos and {len(images)} images.",
            "texts has one caption for each video, then one for each image, or is not connected.",
            "Connect the texts that come with them; pictures of one batch are one entry (Rebatch Images splits it).",
        )
    on_entry = counting("taking over", node_id)
    for done, (entry, caption) in enumerate(zip([*videos, *images], captions, strict=True), 1):
        if isinstance(entry, torch.Tensor):
            yield images_medium(entry, caption, settings.fps, settings.folder)
        else:
            yield video_medium(entry, caption, settings.folder)
        on_entry(done, count)


def _no_media() -> None:
    raise UserError(
        "Neither videos nor images has an entry.",
        "videos is a list of VIDEO, images a list of IMAGE.",
        "Connect the output of Load Video-Text (from Folder) or Load Image-Text (from Folder).",
    )


def _one(value: Listed[Value]) -> Value:
    return cast("Value", value[0] if isinstance(value, list | tuple) else value)


def _times(clip: Clip) -> int:
    return max(1, round(clip.repeats))


def _repeated(values: Sequence[Value], clips: Sequence[Clip]) -> list[Value]:
    """As the host's own folders give it: what is shown n times is n times in the list."""
    pairs = zip(values, clips, strict=True)
    return [value for value, clip in pairs for _ in range(_times(clip))]


def _nothing(output: str) -> ExecutionBlocker:
    kind, other = ("clips", "images") if output.startswith("video") else ("pictures", "videos")
    return ExecutionBlocker(
        f"Tandem Dataset to ComfyUI: the dataset has no {kind}, so {output} is empty. Use {other} instead."
    )


def _handed_out(dataset: Dataset, films: Sequence[Clip], pictures: Sequence[Clip]) -> str:
    """How many there are, and what the host's lists cannot carry."""
    lines = [f"{len(films)} clips as videos, {len(pictures)} pictures as images"]
    if any(clip.repeats != 1 for clip in dataset.clips):
        lines.append("Repeats: an entry stands in the lists as often as it is shown")
    if uneven := [clip.name for clip in dataset.clips if clip.repeats != _times(clip)]:
        lines.append(f"Not whole, rounded: the repeats of {len(uneven)} clips")
    if more := sum(len(clip.views) > 1 for clip in dataset.clips):
        lines.append(f"Left out: flips and further crops of {more} clips; the first view is given")
    if kept := sum(clip.regularisation for clip in dataset.clips):
        lines.append(f"Left out: that {kept} clips are regularisation")
    return "\n".join(lines)
