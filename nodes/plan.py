"""The node that turns a dataset and a preset into a plan."""

from __future__ import annotations

from comfy_api.latest import io

from ..training.budget import make_plan, plan_summary
from ..training.dataset import Dataset
from ..training.presets import PRESET_NAMES
from ..wan.families import FAMILIES
from . import sockets
from .host.progress import node_text


class TandemAutoParameters(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemAutoParameters",
            display_name="Tandem Auto Parameters",
            category="Tandem/training",
            description="Steps, rates, rank and checkpoints for this dataset and purpose, with each expert's share of "
            "the work. Motion is led by the high-noise expert, character and style by the low-noise one; the summary "
            "says what each preset's numbers rest on.",
            search_aliases=["training plan", "lora settings", "epochs", "learning rate"],
            inputs=[
                sockets.Dataset.Input(
                    "dataset", tooltip="The clips whose number decides the budget."
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESET_NAMES),
                    default=PRESET_NAMES[0],
                    tooltip="What the LoRA is to teach. motion: a movement. character: a person or thing. video "
                    "effect: a transformation. For example video effect.",
                ),
                io.Combo.Input(
                    "family",
                    options=list(FAMILIES),
                    default="auto",
                    optional=True,
                    tooltip="auto plans for Wan 2.2 A14B and lets the trainer see what is connected. single model: "
                    "Wan 2.1 or 2.2 5B.",
                ),
            ],
            outputs=[
                sockets.Plan.Output(display_name="plan"),
                io.String.Output(display_name="summary"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, dataset: Dataset, preset: str, family: str = "auto") -> io.NodeOutput:
        plan = make_plan(dataset, preset, family)
        summary = plan_summary(plan, len(dataset.clips))
        node_text(cls.hidden.unique_id, summary)
        return io.NodeOutput(plan, summary)
