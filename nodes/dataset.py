"""Nodes that read and caption a dataset."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..training.captions import make_captions, parse_slots, parse_templates, write_captions
from ..training.dataset import (
    MEDIA,
    Dataset,
    dataset_report,
    find_media,
    folder_stamp,
    load_dataset,
)
from ..wan.shapes import checked_clip_size
from . import sockets
from .host.places import dataset_folder
from .host.progress import counting, node_text

logger = logging.getLogger("tandem.dataset")
DEFAULT_TEMPLATE = "A person turns into a {trigger} while the camera stands still."


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
        size = checked_clip_size(width, height, frames)
        dataset = load_dataset(
            dataset_folder(folder),
            media,
            trigger=trigger,
            size=size,
            fps=float(fps),
            on_file=counting("looking at file", cls.hidden.unique_id),
        )
        report = dataset_report(dataset)
        for path, reason in dataset.skipped:
            logger.warning("Skipped %s: %s", path.name, reason)
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(dataset, report)


class TandemCaptionTemplate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemCaptionTemplate",
            display_name="Tandem Caption Template",
            category="Tandem/dataset",
            description="Captions for every clip from templates with slots: the same words in the same order, as the "
            "runs that worked had them. preview changes no file; write keeps the old captions in a dated folder.",
            search_aliases=["caption videos", "caption template", "trigger word"],
            is_output_node=True,
            inputs=[
                sockets.Dataset.Input("dataset", tooltip="The clips to caption."),
                io.String.Input(
                    "templates",
                    default=DEFAULT_TEMPLATE,
                    multiline=True,
                    optional=True,
                    tooltip="One template a line, with a weight in percent if there are several: 60% | A {person} "
                    "transforms into a {trigger}. About 12 words; name the motion.",
                ),
                io.String.Input(
                    "slots",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="One slot a line with its choices, for example: person = woman | man. {filename} is "
                    "always there.",
                ),
                io.String.Input(
                    "trigger",
                    default="",
                    optional=True,
                    tooltip="The word for {trigger}; empty takes the dataset's. For example MERMAID.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    optional=True,
                    tooltip="Which choices are drawn; the same number draws the same. For example 0.",
                ),
                io.Combo.Input(
                    "write",
                    options=["preview", "write"],
                    default="preview",
                    optional=True,
                    tooltip="preview: captions for this graph only. write: also into the .txt files, the old ones "
                    "are kept.",
                ),
            ],
            outputs=[
                sockets.Dataset.Output(display_name="dataset"),
                io.String.Output(display_name="captions"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, templates: str | None = DEFAULT_TEMPLATE, slots: str | None = ""
    ) -> bool | str:
        return sockets.first_error(
            lambda: parse_slots(slots or ""),
            lambda: templates is None or parse_templates(templates),
        )

    @classmethod
    def execute(
        cls,
        dataset: Dataset,
        templates: str = DEFAULT_TEMPLATE,
        slots: str = "",
        trigger: str = "",
        seed: int = 0,
        write: str = "preview",
    ) -> io.NodeOutput:
        trigger = trigger or dataset.trigger
        captions = make_captions(
            dataset.clips,
            parse_templates(templates),
            parse_slots(slots),
            trigger=trigger,
            seed=seed,
        )
        text = "\n".join(
            f"{c.path.name}: {line}" for c, line in zip(dataset.clips, captions, strict=True)
        )
        if write == "write":
            kept = write_captions(dataset.folder, dataset.clips, captions)
            text += f"\nWritten; the old captions are in {kept.name}." if kept else "\nWritten."
        node_text(cls.hidden.unique_id, text)
        return io.NodeOutput(dataset.with_captions(captions, trigger), text)
