"""The nodes that make a plan from a dataset and a preset, and change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io, ui

from ..training.data.dataset import Dataset
from ..training.plans.budget import make_plan, require_one_length
from ..training.plans.changes import check_changes, edited_plan
from ..training.plans.estimate_report import estimate_report, fit_report
from ..training.plans.json_text import json_object
from ..training.plans.plan import TrainingPlan
from ..training.plans.presets import PRESET_NAMES
from ..training.plans.summary import full_summary, plan_alone_summary
from ..wan.families import FAMILIES
from . import sockets
from .host.machine import measured_for
from .host.progress import node_text
from .plan_plot import plan_plot

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class TandemAutoParameters(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemAutoParameters",
            display_name="Tandem Auto Parameters",
            category="Tandem/training",
            description="Steps, rates, rank and checkpoints for this dataset and purpose, with each expert's share of "
            "the work. Motion is led by the high-noise expert, character and style by the low-noise one. The summary "
            "says first whether the run fits on this machine and what is refused, then the budget, what is unwise, "
            "what it takes in time, memory and disk, and why each value is what it is.",
            search_aliases=[
                "training plan",
                "lora settings",
                "epochs",
                "learning rate",
                "how many steps",
                "vram",
            ],
            is_output_node=True,
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
                *_length_inputs(),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that will be trained: its real size and precision count in the estimate. Open: "
                    "Wan 14B in bf16. For example from Load Diffusion Model.",
                ),
            ],
            outputs=[
                sockets.Plan.Output(display_name="plan"),
                io.String.Output(display_name="summary"),
                io.Image.Output(display_name="plot"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, epochs: float | None = 0.0, steps: int | None = 0) -> bool | str:
        return sockets.first_error(lambda: require_one_length(epochs or 0, steps or 0))

    @classmethod
    def execute(
        cls,
        dataset: Dataset,
        preset: str,
        family: str = "auto",
        epochs: float = 0.0,
        steps: int = 0,
        allow_long: bool = False,
        model: ModelPatcher | None = None,
    ) -> io.NodeOutput:
        plan = make_plan(dataset, preset, family, epochs=epochs, steps=steps, allow_long=allow_long)
        network, machine = measured_for(model)
        summary = full_summary(
            plan,
            dataset,
            fit=fit_report(plan, dataset, network, machine),
            estimate=estimate_report(plan, dataset, network, machine),
        )
        node_text(cls.hidden.unique_id, summary)
        plot = torch.from_numpy(plan_plot(plan, dataset)).float()[None] / 255
        return io.NodeOutput(plan, summary, plot, ui=ui.PreviewImage(plot, cls=cls))


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
        return sockets.first_error(lambda: None if changes is None else _changes(changes))

    @classmethod
    def execute(cls, plan: TrainingPlan, changes: str = "{}") -> io.NodeOutput:
        edited = edited_plan(plan, _changes(changes))
        summary = plan_alone_summary(edited)
        node_text(cls.hidden.unique_id, summary)
        return io.NodeOutput(edited, summary)


def _length_inputs() -> list[io.Input]:
    """How long the run is, if the preset is not to say it."""
    return [
        io.Float.Input(
            "epochs",
            default=0.0,
            min=0.0,
            max=10_000.0,
            step=0.5,
            optional=True,
            tooltip="Times the run goes through the dataset; 0 leaves it to the preset. For example 18.",
        ),
        io.Int.Input(
            "steps",
            default=0,
            min=0,
            max=1_000_000,
            optional=True,
            tooltip="Optimizer steps over both experts; 0 leaves it to the preset. For example 1200.",
        ),
        io.Boolean.Input(
            "allow_long",
            default=False,
            optional=True,
            tooltip="Train a video effect for more than 50 epochs all the same, which the trainer refuses "
            "otherwise. For example false.",
        ),
    ]


def _changes(text: str) -> dict[str, Any]:
    """What is to be changed, as far as it can be checked without the plan."""
    values = json_object(
        text if text.strip() else "{}",
        "changes",
        "It is a JSON object of names and values.",
        'Write it like {"steps": 600, "high.rate": 0.0001}.',
    )
    check_changes(values)
    return values
