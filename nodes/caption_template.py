"""The node that captions a dataset from templates."""

from __future__ import annotations

from comfy_api.latest import io

from ..training.captions.files import undo_captions, write_captions
from ..training.captions.preview import caption_preview, undone_text, written_text
from ..training.captions.table import parse_table
from ..training.captions.templates import make_captions, parse_slots, parse_templates
from ..training.captions.there import captions_there
from ..training.data.dataset import Dataset
from . import sockets
from .host.progress import node_text

DEFAULT_TEMPLATE = "A person turns into a {trigger} while the camera stands still."


class TandemCaptionTemplate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemCaptionTemplate",
            display_name="Tandem Caption Template",
            category="Tandem/dataset",
            description="Captions for every clip from templates with slots: the same words in the same order, as the "
            "runs that worked had them. preview shows each caption beside the one that is there and changes no file; "
            "write keeps the old captions in a dated folder; undo brings them back.",
            search_aliases=["caption videos", "caption template", "trigger word", "undo captions"],
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
                    options=["preview", "write", "undo"],
                    default="preview",
                    optional=True,
                    tooltip="preview: captions for this graph only. write: also into the .txt files, the old ones "
                    "are kept. undo: takes the newest write back; then set it to preview again.",
                ),
                io.String.Input(
                    "table",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Slot values for single clips, from a spreadsheet: a header, then a line for each clip. "
                    "For example: file, person, place. They go before slots.",
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
        cls,
        templates: str | None = DEFAULT_TEMPLATE,
        slots: str | None = "",
        table: str | None = "",
        write: str | None = "preview",
    ) -> bool | str:
        if write == "undo":  # which uses none of them
            return True
        return sockets.first_error(
            lambda: parse_slots(slots or ""),
            lambda: templates is None or parse_templates(templates),
            lambda: parse_table(table or ""),
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
        table: str = "",
    ) -> io.NodeOutput:
        if write == "undo":
            undone = undo_captions(dataset)
            captions, trigger = captions_there(dataset, undone.removed), dataset.trigger
            text = undone_text(undone)
        else:
            trigger, rows = trigger or dataset.trigger, parse_table(table)
            captions = make_captions(
                dataset.clips,
                parse_templates(templates),
                parse_slots(slots),
                trigger=trigger,
                seed=seed,
                table=rows,
                folder=dataset.folder,
            )
            text = caption_preview(dataset, captions, table=rows)
        if write == "write":
            text += f"\n{written_text(write_captions(dataset, captions))}"
        node_text(cls.hidden.unique_id, text)
        return io.NodeOutput(dataset.with_captions(captions, trigger), text)
