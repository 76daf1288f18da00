"""The nodes that make a plan from a dataset and a preset, and change it."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..training.budget import make_plan, plan_summary
from ..training.dataset import Dataset
from ..training.plan import TrainingPlan, edited_plan
from ..training.presets import PRESET_NAMES
from ..wan.errors import UserError
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


class TandemEditPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemEditPlan",
            display_name="Tandem Edit Plan",
            category="Tandem/training",
            description="Changes values of a plan by name. Everything else stays as the preset has it, and the "
            "summary says what was changed; a name that no plan has is refused.",
            search_aliases=["change plan", "learning rate", "rank", "steps"],
            inputs=[
                sockets.Plan.Input("plan", tooltip="From Tandem Auto Parameters."),
                io.String.Input(
                    "changes",
                    default="{}",
                    multiline=True,
                    optional=True,
                    tooltip='A JSON object, for example {"steps": 600, "high.rate": 0.0001, "lora.rank": 16}.',
                ),
            ],
            outputs=[
                sockets.Plan.Output(display_name="plan"),
                io.String.Output(display_name="summary"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, changes: str | None = "{}") -> bool | str:
        return sockets.first_error(lambda: changes is None or _changes(changes))

    @classmethod
    def execute(cls, plan: TrainingPlan, changes: str = "{}") -> io.NodeOutput:
        edited = edited_plan(plan, _changes(changes))
        summary = "\n".join([f"{edited.preset}: {edited.steps} steps", *edited.notes])
        node_text(cls.hidden.unique_id, summary)
        return io.NodeOutput(edited, summary)


def _changes(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        values = error
    if not isinstance(values, dict):
        raise UserError(
            f"changes is {text[:80]!r}.",
            "It is a JSON object of names and values.",
            'Write it like {"steps": 600, "high.rate": 0.0001}.',
        )
    return values
