"""The node that captions a dataset from templates."""

from __future__ import annotations

from comfy_api.latest import io

from ..training.captions import make_captions, parse_slots, parse_templates, write_captions
from ..training.dataset import Dataset
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
