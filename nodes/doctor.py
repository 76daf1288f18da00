"""The node that looks for faults in a dataset."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..training.data.dataset import Dataset
from ..training.doctor.contact_sheet import contact_sheet
from ..training.doctor.examination import examine
from ..training.doctor.guidance import ANY, PRESETS
from . import sockets
from .host.progress import counting, node_text


class TandemDatasetDoctor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemDatasetDoctor",
            display_name="Tandem Dataset Doctor",
            category="Tandem/dataset",
            description="Looks at every clip once and names what spoils a LoRA: unreadable, frozen or black clips, "
            "scene cuts, copies, wrong rates, bars and logos, sources that are too small, too few clips, with a fix "
            "for each, and a contact sheet on which they are marked. It needs no model and changes nothing.",
            search_aliases=[
                "check dataset",
                "find bad clips",
                "duplicate clips",
                "scene cut",
                "contact sheet",
                "dataset quality",
            ],
            inputs=[
                sockets.Dataset.Input(
                    "dataset",
                    tooltip="The clips to look at, for example from Tandem Dataset. Each file is decoded once.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default=ANY,
                    optional=True,
                    tooltip="What the LoRA is to learn, for example motion: it decides how many clips are advised, and "
                    "whether pictures alone will do. any: by what the dataset holds.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report"),
                io.Image.Output(display_name="sheet"),
                io.String.Output(
                    display_name="verdict",
                    tooltip="good, warning or bad: the worst of the findings.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, dataset: Dataset, preset: str = ANY) -> io.NodeOutput:
        node_id = cls.hidden.unique_id
        report = examine(dataset, preset=preset, on_file=counting("looks at file", node_id))
        text = report.text()
        node_text(node_id, text)
        sheet = torch.from_numpy(contact_sheet(report)).float()[None] / 255
        return io.NodeOutput(text, sheet, report.verdict, ui=ui.PreviewImage(sheet, cls=cls))
