"""The nodes that keep plans, take them up again, and compare them."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..training.data.dataset import Dataset
from ..training.plans.compare import compare_plans
from ..training.plans.files import load_plan, plan_names, plan_path, save_plan
from ..training.plans.plan import TrainingPlan
from ..training.plans.reading import plan_json, read_plan
from ..training.plans.summary import plan_alone_summary, plan_summary, settings_line
from ..wan.errors import UserError
from . import sockets
from .host.progress import node_text

NONE_SAVED = "none"


def plans_folder() -> Path:
    """`output/tandem_plans`. Not under `output/tandem`, whose folders are runs."""
    return Path(folder_paths.get_output_directory()) / "tandem_plans"


class TandemSavePlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemSavePlan",
            display_name="Tandem Save Plan",
            category="Tandem/training",
            description="Saves a plan as JSON under output/tandem_plans, for another day or another person. Nothing "
            "is overwritten: where another plan has the name, a number is put behind it.",
            search_aliases=["export plan", "training settings", "json"],
            is_output_node=True,
            inputs=[
                sockets.Plan.Input(
                    "plan", tooltip="The plan to save, for example from Tandem Auto Parameters."
                ),
                io.String.Input(
                    "name",
                    default="my_plan",
                    optional=True,
                    tooltip="1 to 80 characters, as a file can be called. For example mermaid_careful.",
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = "my_plan") -> bool | str:
        return sockets.first_error(lambda: name is None or plan_path(plans_folder(), name))

    @classmethod
    def fingerprint_inputs(cls, name: str = "my_plan", **_: object) -> str:
        """A plan whose file was deleted or changed is saved again."""
        return _state(name)

    @classmethod
    def execute(cls, plan: TrainingPlan, name: str = "my_plan") -> io.NodeOutput:
        path = save_plan(plans_folder(), name, plan)
        node_text(cls.hidden.unique_id, f"saved as {path.stem}: {settings_line(plan)}")
        return io.NodeOutput(str(path))


class TandemLoadPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = plan_names(plans_folder())
        return io.Schema(
            node_id="TandemLoadPlan",
            display_name="Tandem Load Plan",
            category="Tandem/training",
            description="A plan that was saved, or one that somebody sent as JSON. A key that no plan has is refused "
            "with what may be meant.",
            is_output_node=True,
            search_aliases=["import plan", "training settings", "json", "open plan"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=[NONE_SAVED, *(n for n in names if n != NONE_SAVED)],
                    default=NONE_SAVED,
                    optional=True,
                    tooltip="A plan of output/tandem_plans; none when it is pasted. For example mermaid_careful.",
                ),
                io.String.Input(
                    "plan",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="A plan's JSON, pasted; it goes before name. What is missing has its default. For example "
                    '{"version": 1, "preset": "video effect", "steps": 160}.',
                ),
                sockets.Dataset.Input(
                    "dataset",
                    optional=True,
                    tooltip="For the budget and the warnings in the summary: the clips that it will train on.",
                ),
            ],
            outputs=[
                sockets.Plan.Output(display_name="plan"),
                io.String.Output(display_name="summary"),
                io.String.Output(display_name="json"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = NONE_SAVED, plan: str | None = "") -> bool | str:
        if None in (name, plan):  # something comes over a link
            return True
        return sockets.first_error(lambda: _given(str(name), str(plan)))

    @classmethod
    def fingerprint_inputs(cls, name: str = NONE_SAVED, plan: str = "", **_: object) -> str:
        """A plan saved anew under its name is another."""
        return plan if plan.strip() else _state(name)

    @classmethod
    def execute(
        cls, name: str = NONE_SAVED, plan: str = "", dataset: Dataset | None = None
    ) -> io.NodeOutput:
        found = _given(name, plan)
        summary = plan_alone_summary(found) if dataset is None else plan_summary(found, dataset)
        node_text(cls.hidden.unique_id, summary)
        return io.NodeOutput(found, summary, plan_json(found))


class TandemComparePlans(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemComparePlans",
            display_name="Tandem Compare Plans",
            category="Tandem/training",
            description="Two plans value by value: what differs, why each is what it is, and what the difference does. "
            "With a dataset also both budgets and what is unwise in them.",
            search_aliases=["diff plans", "difference", "compare settings"],
            is_output_node=True,
            inputs=[
                sockets.Plan.Input("plan_a", tooltip="A plan, for example the preset's own."),
                sockets.Plan.Input("plan_b", tooltip="Another, for example the edited one."),
                sockets.Dataset.Input(
                    "dataset",
                    optional=True,
                    tooltip="For both budgets: the clips that they would train on.",
                ),
            ],
            outputs=[io.String.Output(display_name="report")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, plan_a: TrainingPlan, plan_b: TrainingPlan, dataset: Dataset | None = None
    ) -> io.NodeOutput:
        report = compare_plans(plan_a, plan_b, dataset)
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(report)


def _given(name: str, text: str) -> TrainingPlan:
    if text.strip():
        return read_plan(text)
    if name == NONE_SAVED and NONE_SAVED not in plan_names(plans_folder()):
        raise UserError(
            "No plan is given.",
            "A plan is chosen by its name, or pasted as JSON.",
            "Choose a name, or paste a plan into plan. A plan is saved by Tandem Save Plan.",
        )
    return load_plan(plans_folder(), name)


def _state(name: str) -> str:
    path = plan_path(plans_folder(), name)
    stat = path.stat() if path.exists() else None
    return f"{path} {stat.st_mtime_ns} {stat.st_size}" if stat else str(path)
