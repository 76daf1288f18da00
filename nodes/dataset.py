"""The node that reads a dataset."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..training.dataset import MEDIA, DatasetSettings
from ..training.dataset_reader import find_media, folder_stamp, load_dataset
from ..training.dataset_report import dataset_report
from ..wan.shapes import checked_clip_size
from . import sockets
from .host.places import dataset_folder
from .host.progress import counting, node_text

logger = logging.getLogger("tandem.dataset")


class TandemDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemDataset",
            display_name="Tandem Dataset",
            category="Tandem/dataset",
            description="Reads a folder of clips or pictures with .txt captions beside them. Clips are resampled to "
            "fps without stretching time, scaled to cover width x height and cut in the middle. Files that cannot "
            "be used are named in the report and skipped.",
            search_aliases=[
                "load training clips",
                "video dataset",
                "lora dataset",
                "captions folder",
            ],
            inputs=[
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
    ) -> io.NodeOutput:
        settings = DatasetSettings(
            folder=dataset_folder(folder),
            media=media,
            trigger=trigger,
            width=width,
            height=height,
            frames=frames,
            fps=float(fps),
        )
        dataset = load_dataset(settings, on_file=counting("looking at file", cls.hidden.unique_id))
        report = dataset_report(dataset)
        for path, reason in dataset.skipped:
            logger.warning("Skipped %s: %s", path.name, reason)
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(dataset, report)
