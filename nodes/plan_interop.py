"""The nodes that write a plan for another trainer, and read one from its config."""

from __future__ import annotations

from comfy_api.latest import io

from ..training.data.dataset import Dataset, DatasetSettings
from ..training.interop.documents import TRAINERS, read_documents
from ..training.interop.plans import Export, export_plan, import_plan
from ..training.interop.report import import_report
from ..training.interop.saving import save_files
from ..training.plans.plan import TrainingPlan
from ..wan.lora.recipe_store import checked_name
from . import sockets
from .host.places import exported_plans_root
from .host.progress import node_text

USUAL_SIZE = (832, 480, 81)
"""Width, height and frames where a config names no folder."""


class TandemExportPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemExportPlan",
            display_name="Tandem Export Plan",
            category="Tandem/training",
            description="A plan as the config of diffusion-pipe, ai-toolkit or musubi-tuner. What their format has no "
            "key for stands in a comment, so that Tandem Import Plan gives the same plan back, and the report "
            "names it with the reason. Paths of models are placeholders to fill in.",
            search_aliases=["diffusion-pipe", "ai-toolkit", "musubi", "toml", "yaml", "convert"],
            is_output_node=True,
            inputs=[
                sockets.Plan.Input(
                    "plan", tooltip="From Tandem Auto Parameters, Edit Plan or Import Plan."
                ),
                io.Combo.Input(
                    "trainer",
                    options=list(TRAINERS),
                    default=TRAINERS[0],
                    optional=True,
                    tooltip="The program that is to read it. diffusion-pipe and musubi-tuner train one expert a run, "
                    "so there are two configs for both. For example ai-toolkit.",
                ),
                sockets.Dataset.Input(
                    "dataset",
                    optional=True,
                    tooltip="From Tandem Dataset, for example: its folders and sizes are written too. Without it there "
                    "is a placeholder.",
                ),
                io.String.Input(
                    "name",
                    default="",
                    optional=True,
                    tooltip="Also writes the files into output/tandem_plans/NAME_TRAINER, for example mermaid. What "
                    "was there is kept as .old.1. Empty: the text alone.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="text"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = "") -> bool | str:
        return sockets.first_error(lambda: not name or _file_name(name))

    @classmethod
    def fingerprint_inputs(cls, name: str | None = "", **_: object) -> str | float:
        """Files that were changed or deleted since are written again."""
        return float("nan") if name is None or name.strip() else ""

    @classmethod
    def execute(
        cls,
        plan: TrainingPlan,
        trainer: str = TRAINERS[0],
        dataset: Dataset | None = None,
        name: str = "",
    ) -> io.NodeOutput:
        counts = dataset.counts() if dataset else None
        export = export_plan(plan, trainer, _parts(dataset), counts)
        report = "\n".join([export.report(), *_saved(export, name)])
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(export.text(), report)


class TandemImportPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemImportPlan",
            display_name="Tandem Import Plan",
            category="Tandem/training",
            description="Reads the config of diffusion-pipe, ai-toolkit or musubi-tuner as a plan, and judges it: too "
            "many epochs, unusual rates, what is ignored and why, keys that are not known. The format is "
            "recognised. Nothing that the config names is opened.",
            search_aliases=[
                "diffusion-pipe",
                "ai-toolkit",
                "musubi",
                "toml",
                "yaml",
                "check config",
            ],
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The whole config, pasted: a TOML, a YAML or a command line, for example the file "
                    "train_lora.yaml. Several files may stand under lines like # file: config_high.toml.",
                ),
                io.String.Input(
                    "dataset_text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The dataset's TOML of diffusion-pipe or musubi-tuner, for example dataset.toml. "
                    "ai-toolkit has none.",
                ),
                io.Int.Input(
                    "clips",
                    default=0,
                    min=0,
                    max=1_000_000,
                    optional=True,
                    tooltip="Number of files in the dataset's folders, for the verdict and to turn epochs into steps. "
                    "For example 16. 0: not known.",
                ),
                sockets.Dataset.Input(
                    "dataset",
                    optional=True,
                    tooltip="The dataset itself, for example from Tandem Dataset; it is counted instead of clips.",
                ),
            ],
            outputs=[
                sockets.Plan.Output(display_name="plan"),
                io.String.Output(display_name="report"),
                io.String.Output(display_name="folder"),
                io.Int.Output(display_name="width"),
                io.Int.Output(display_name="height"),
                io.Int.Output(display_name="frames"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        text: str | None = "",
        dataset_text: str | None = "",
        clips: int | None = 0,
        dataset: object = "not connected",
    ) -> bool | str:
        # What comes over a link is None here.
        if text is None:
            return True
        texts = [text, dataset_text or ""]
        if None in (dataset_text, clips, dataset):
            return sockets.first_error(lambda: read_documents(texts))
        return sockets.first_error(lambda: import_plan(texts, clips=clips or 0))

    @classmethod
    def execute(
        cls,
        text: str = "",
        dataset_text: str = "",
        clips: int = 0,
        dataset: Dataset | None = None,
    ) -> io.NodeOutput:
        counts = dataset.counts() if dataset else None
        found = import_plan([text, dataset_text], clips=clips, counts=counts)
        report = import_report(found, counts or found.counts(clips))
        node_text(cls.hidden.unique_id, report)
        part = found.parts[0] if found.parts else None
        size = (part.width, part.height, part.frames) if part else USUAL_SIZE
        return io.NodeOutput(found.plan, report, str(part.folder) if part else "", *size)


def _parts(dataset: Dataset | None) -> tuple[DatasetSettings, ...]:
    if dataset is None:
        return ()
    if dataset.parts:
        return dataset.parts
    width, height, frames = dataset.size
    settings = DatasetSettings(
        folder=dataset.folder, trigger=dataset.trigger, fps=dataset.fps,
        width=width, height=height, frames=frames,
    )  # fmt: skip
    return (settings,)


def _file_name(name: str) -> str:
    return checked_name(name, "The name of the exported plan")


def _saved(export: Export, name: str) -> list[str]:
    if not name.strip():
        return []
    folder = exported_plans_root() / f"{_file_name(name)}_{export.trainer}"
    old = save_files(folder, export.files)
    return [f"Written to {folder}."] + ([f"What was there is now {old.name}."] if old else [])
