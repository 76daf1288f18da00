"""The node that reads a dataset."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..training.data.dataset import CLIP_MODES, FITS, KEEP_ASPECT, MEDIA, Dataset, DatasetSettings
from ..training.data.file_notes import FileNotes
from ..training.data.join import joined
from ..training.data.lists import printable
from ..training.data.reader import find_media, folder_stamp, load_dataset
from ..training.data.report import dataset_report
from ..wan.shapes import checked_clip_size
from . import sockets
from .host.places import cache_folder, dataset_folder
from .host.progress import counting, node_text

logger = logging.getLogger("tandem.dataset")


class TandemDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemDataset",
            display_name="Tandem Dataset",
            category="Tandem/dataset",
            description="Reads a folder of clips or pictures with their captions: .txt files beside them, a "
            "captions.txt, JSON lines or JSON. Clips are resampled to fps without stretching time; a clip of another "
            "shape than width x height gets a size of its own shape and the same area. Files that cannot be used are "
            "named in the report and skipped. Several of these nodes in a chain are one dataset.",
            search_aliases=[
                "load training clips",
                "video dataset",
                "lora dataset",
                "captions folder",
                "buckets",
                "regularisation",
                "metadata.jsonl",
            ],
            inputs=[
                *_folder_inputs(),
                *_part_inputs(),
                *_share_inputs(),
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
        folder: str | None,
        media: str = "auto",
        width: int = 832,
        height: int = 480,
        frames: int = 81,
    ) -> bool | str:
        # What comes over a link is None here, and is checked when it arrives.
        linked = None in (width, height, frames)
        return sockets.first_error(
            lambda: linked or checked_clip_size(width, height, frames),
            lambda: folder is None or media is None or find_media(dataset_folder(folder), media),
        )

    @classmethod
    def fingerprint_inputs(
        cls, folder: str | None, media: str | None = "auto", **settings: object
    ) -> str | float:
        if folder is None or media is None:
            return float(
                "nan"
            )  # what comes over a link is not known yet: look into the folder each time
        return f"{folder_stamp(dataset_folder(folder), media)} {sorted(settings.items())}"

    @classmethod
    def execute(
        cls,
        folder: str,
        media: str = "auto",
        trigger: str = "",
        width: int = 832,
        height: int = 480,
        frames: int = 81,
        fps: int = 16,
        clip_mode: str = "head",
        clips_per_file: int = 0,
        fit: str = KEEP_ASPECT,
        flips: bool = False,
        crops: int = 1,
        repeats: float = 1.0,
        regularisation: bool = False,
        dataset: Dataset | None = None,
    ) -> io.NodeOutput:
        settings = DatasetSettings(
            folder=dataset_folder(folder),
            media=media,
            trigger=trigger,
            width=width,
            height=height,
            frames=frames,
            fps=float(fps),
            clip_mode=clip_mode,
            clips_per_file=clips_per_file,
            fit=fit,
            flips=flips,
            crops=crops,
            repeats=repeats,
            regularisation=regularisation,
        )
        read = load_dataset(
            settings,
            on_file=counting("looking at file", cls.hidden.unique_id),
            notes=FileNotes(cache_folder() / "files.jsonl"),
        )
        for path, reason, _ in read.skipped:
            logger.warning("Skipped %s: %s", printable(path.name), printable(reason))
        result = joined(dataset, read) if dataset else read
        report = dataset_report(result)
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(result, report)


def _folder_inputs() -> list[io.Input]:
    """Which files are read, and at which size and rate."""
    return [
        io.String.Input(
            "folder",
            default="",
            tooltip="Folder of clips or pictures: below ComfyUI's input folder (for example my_clips), or a "
            "full path.",
        ),
        io.Combo.Input(
            "media",
            options=list(MEDIA),
            default="auto",
            optional=True,
            tooltip="Which files to read: auto (both), video, or image. For example video.",
        ),
        io.String.Input(
            "trigger",
            default="",
            optional=True,
            tooltip="The word that calls the LoRA; it replaces {trigger} in captions. A short plain word, "
            "for example MERMAID.",
        ),
        io.Int.Input(
            "width",
            default=832,
            min=16,
            max=8192,
            step=16,
            optional=True,
            tooltip="Width in pixels, a multiple of 16. 832 for 480p.",
        ),
        io.Int.Input(
            "height",
            default=480,
            min=16,
            max=8192,
            step=16,
            optional=True,
            tooltip="Height in pixels, a multiple of 16. 480 for 480p.",
        ),
        io.Int.Input(
            "frames",
            default=81,
            min=1,
            max=1025,
            step=4,
            optional=True,
            tooltip="Frames of a clip, 4k+1. 81 is just over 5 seconds at 16 fps; 49 saves memory.",
        ),
        io.Int.Input(
            "fps",
            default=16,
            min=1,
            max=120,
            optional=True,
            tooltip="Frames per second that the model was made for: 16 for Wan 2.1 and 2.2 A14B, 24 for 5B.",
        ),
    ]


def _part_inputs() -> list[io.Input]:
    """Which part of each file is used, and how it is cut."""
    return [
        io.Combo.Input(
            "clip_mode",
            options=list(CLIP_MODES),
            default="head",
            optional=True,
            tooltip="Which part of a longer file is used: head (its beginning), middle, uniform (clips_per_file parts "
            "evenly apart, 2 if that is 0), overlapping (parts that cover the whole file), scenes (the middle of "
            "each shot, never across a cut). For example scenes for whole films.",
        ),
        io.Int.Input(
            "clips_per_file",
            default=0,
            min=0,
            max=1000,
            optional=True,
            tooltip="At most so many clips of one file with uniform, overlapping or scenes; 0 as many as clip_mode "
            "gives. For example 4.",
        ),
        io.Combo.Input(
            "fit",
            options=list(FITS),
            default=KEEP_ASPECT,
            optional=True,
            tooltip="keep aspect: a clip of another shape gets a size of its own shape and about the area of "
            "width x height, so that a standing clip stays whole. one size: all are cut to width x height. For "
            "example keep aspect.",
        ),
        io.Boolean.Input(
            "flips",
            default=False,
            optional=True,
            tooltip="Show every clip mirrored too, in turn. Leave it off where the motion or the thing has a "
            "direction: text, a walk to the left, a face that is not alike on both sides. For example off.",
        ),
        io.Int.Input(
            "crops",
            default=1,
            min=1,
            max=3,
            optional=True,
            tooltip="Cuts that are shown in turn where something is cut off: 1 the middle, 2 both ends, 3 all. Each "
            "is encoded and kept on disk. For example 1.",
        ),
    ]


def _share_inputs() -> list[io.Input]:
    """How often the clips are shown, and beside which others."""
    return [
        io.Float.Input(
            "repeats",
            default=1.0,
            min=0.01,
            max=1000.0,
            step=0.01,
            optional=True,
            tooltip="The weight of these clips beside another dataset's: 2 shows each twice as often. It is "
            "multiplied by the number of a kohya folder such as 10_mermaid. Alone it changes nothing in a run of "
            "fixed steps. For example 1.",
        ),
        io.Boolean.Input(
            "regularisation",
            default=False,
            optional=True,
            tooltip="These clips keep what the model knows already: ordinary clips of the same kind, with plain "
            "captions and without the trigger. They are not counted as clips to learn. For example off.",
        ),
        sockets.Dataset.Input(
            "dataset",
            optional=True,
            tooltip="Another dataset to which these clips are added, for example of pictures, or the clips that "
            "teach when these are regularisation. Its width, height and fps stay; each clip keeps its own.",
        ),
    ]
