"""The node that changes a plan by widgets."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..training.data.dataset import Counts, Dataset
from ..training.optimizers.names import AVAILABLE
from ..training.plans.budget import require_one_length
from ..training.plans.changes import Values, edited_plan, length_changes, rank_changes, rate_changes
from ..training.plans.checks import ORDERS
from ..training.plans.plan import TrainingPlan
from ..training.plans.settings import EXPERTS
from ..training.plans.summary import plan_alone_summary, plan_summary
from ..training.plans.trained import trained_counts
from . import sockets
from .host.progress import node_text

KEEP = "keep"
ON_OFF = {"on": True, "off": False}
MANY = 1_000_000


class TandemPlanForm(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemPlanForm",
            display_name="Tandem Plan Form",
            category="Tandem/training",
            description="Changes of a plan what people change, by widgets. A widget that is left on 0, on -1 or on "
            "keep changes nothing; with a dataset the summary tells the new budget and what is unwise in it.",
            search_aliases=["edit plan", "change plan", "learning rate", "rank", "epochs", "steps"],
            is_output_node=True,
            inputs=[
                sockets.Plan.Input("plan", tooltip="From Tandem Auto Parameters."),
                *_length_inputs(),
                *_lora_inputs(),
                *_training_inputs(),
                sockets.Dataset.Input(
                    "dataset",
                    optional=True,
                    tooltip="For epochs, and for the budget in the summary: the same as at Tandem Auto Parameters.",
                ),
                *_later_inputs(),
            ],
            outputs=[
                sockets.Plan.Output(display_name="plan"),
                io.String.Output(display_name="summary"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, steps: int | None = 0, epochs: float | None = 0.0) -> bool | str:
        return sockets.first_error(lambda: require_one_length(epochs or 0, steps or 0))

    @classmethod
    def execute(
        cls,
        plan: TrainingPlan,
        steps: int = 0,
        epochs: float = 0.0,
        batch: int = 0,
        accumulate: int = 0,
        rank: int = 0,
        alpha: float = 0.0,
        dropout: float = -1.0,
        rate_high: float = 0.0,
        rate_low: float = 0.0,
        optimizer: str = KEEP,
        shift: float = 0.0,
        caption_dropout: float = -1.0,
        save_every: int = 0,
        train: str = KEEP,
        allow_long: str = KEEP,
        checkpoint_blocks: str = KEEP,
        dataset: Dataset | None = None,
        order: str = KEEP,
        held_out: int = -1,
        keep_checkpoints: int = -1,
        swap_blocks: int = -1,
        offload_activations: str = KEEP,
    ) -> io.NodeOutput:
        held = plan.held_out if held_out < 0 else held_out
        counts = dataset and trained_counts(replace(plan, held_out=held), dataset)
        changes = {
            **_length(plan, counts, steps, epochs, batch, accumulate),
            **_chosen(KEEP, {"optimizer.name": optimizer, "train": train, "order": order}),
            **rank_changes(plan, rank, alpha),
            **_rates(plan, optimizer, rate_high, rate_low),
            **_chosen(0, {"shift": shift, "save_every": save_every}),
            **_chosen(0, {"batch": batch, "accumulate": accumulate}),
            **_chosen(-1.0, {"lora.dropout": dropout, "caption_dropout": caption_dropout}),
            **_chosen(-1, {"held_out": held_out, "prune.last": keep_checkpoints}),
            **_chosen(-1, {"swap_blocks": swap_blocks}),
            **_switched({"allow_long": allow_long, "checkpoint_blocks": checkpoint_blocks}),
            **_switched({"offload_activations": offload_activations}),
        }
        edited = edited_plan(plan, changes)
        summary = plan_alone_summary(edited) if dataset is None else plan_summary(edited, dataset)
        node_text(cls.hidden.unique_id, summary)
        return io.NodeOutput(edited, summary)


def _length_inputs() -> list[io.Input]:
    """How long the run is, in the order of the sockets."""
    return [
        _count(
            "steps",
            "Optimizer steps over both experts; 0 keeps the plan's. For example 1200.",
        ),
        io.Float.Input(
            "epochs",
            default=0.0,
            min=0.0,
            max=10_000.0,
            step=0.5,
            optional=True,
            tooltip="Length in epochs instead of steps; needs the dataset. 0 keeps the plan's. For example 18.",
        ),
        _count("batch", "Clips in a micro-batch; 0 keeps the plan's. For example 2.", 1024),
        _count(
            "accumulate",
            "Micro-batches in a step; 0 keeps the plan's. For example 4.",
            1024,
        ),
    ]


def _lora_inputs() -> list[io.Input]:
    """The LoRA and its rates."""
    return [
        _count(
            "rank",
            "Width of the LoRA; alpha follows in the same relation unless it is set too. 0 keeps the plan's. "
            "For example 32.",
            1024,
        ),
        _number(
            "alpha",
            "The update is scaled by alpha / rank; 0 keeps the plan's. For example 16.",
            1024,
        ),
        _share(
            "dropout",
            "Share of an adapter's inputs that is zeroed; -1 keeps the plan's. For example 0.1.",
        ),
        _rate("rate_high", "the high-noise expert"),
        _rate("rate_low", "the low-noise expert"),
    ]


def _training_inputs() -> list[io.Input]:
    """How it is trained."""
    return [
        io.Combo.Input(
            "optimizer",
            options=[KEEP, *AVAILABLE],
            default=KEEP,
            optional=True,
            tooltip="The rule for the steps; 8-bit and Kahan take less memory, prodigy finds its rate itself. "
            "For example automagic.",
        ),
        _number(
            "shift",
            "Where noise levels are drawn; 0 keeps the plan's. For example 5, as Wan 2.2 I2V has it.",
            100,
        ),
        _share(
            "caption_dropout",
            "Share of samples trained without their caption; -1 keeps the plan's. For example 0.05.",
        ),
        _count("save_every", "Steps between checkpoints; 0 keeps the plan's. For example 100."),
        io.Combo.Input(
            "train",
            options=[KEEP, *EXPERTS],
            default=KEEP,
            optional=True,
            tooltip="Which of A14B's experts are trained. For example both.",
        ),
        _switch(
            "allow_long",
            "on: a video effect may train for more than 50 epochs, which is refused otherwise. For example "
            "keep.",
        ),
        _switch(
            "checkpoint_blocks",
            "on: less memory, about a third more time. For example keep.",
        ),
    ]


def _later_inputs() -> list[io.Input]:
    """In the order in which they came: sockets are never moved."""
    return [
        io.Combo.Input(
            "order",
            options=[KEEP, *ORDERS],
            default=KEEP,
            optional=True,
            tooltip="How two experts take turns. interleaved: some steps each. joint: single steps, in the share of "
            "the high-noise expert. sequential: one after the other. For example interleaved.",
        ),
        _kept_count(
            "held_out",
            "Clips that are not trained on, whose loss tells which checkpoint is best; -1 keeps the plan's. For "
            "example 2.",
        ),
        _kept_count(
            "keep_checkpoints",
            "The newest so many stay, and the best; 0 keeps all, -1 what the plan has. For example 5.",
        ),
        _kept_count(
            "swap_blocks",
            "Blocks whose weights stay in RAM, for cards that hold the model only just; -1 keeps the plan's. For "
            "example 20.",
        ),
        _switch(
            "offload_activations",
            "on: what the backward pass needs is kept in RAM. For example keep.",
        ),
    ]


def _kept_count(name: str, tooltip: str) -> io.Input:
    return io.Int.Input(name, default=-1, min=-1, max=MANY, optional=True, tooltip=tooltip)


def _length(
    plan: TrainingPlan,
    counts: Counts | None,
    steps: int,
    epochs: float,
    batch: int,
    accumulate: int,
) -> Values:
    samples = (batch or plan.batch) * (accumulate or plan.accumulate)
    return length_changes(samples, counts, steps=steps, epochs=epochs)


def _rates(plan: TrainingPlan, optimizer: str, high: float, low: float) -> Values:
    chosen = edited_plan(plan, _chosen(KEEP, {"optimizer.name": optimizer}))
    changes: Values = {}
    for expert, rate in (("high", high), ("low", low)):
        changes |= rate_changes(chosen, expert, rate) if rate else {}
    return changes


def _chosen(kept: object, values: Values) -> Values:
    """Without the widgets that were left on `kept`."""
    return {name: value for name, value in values.items() if value != kept}


def _switched(values: dict[str, str]) -> Values:
    return {name: ON_OFF[choice] for name, choice in _chosen(KEEP, values).items()}


def _count(name: str, tooltip: str, most: int = MANY) -> io.Input:
    return io.Int.Input(name, default=0, min=0, max=most, optional=True, tooltip=tooltip)


def _number(name: str, tooltip: str, most: float) -> io.Input:
    return io.Float.Input(
        name, default=0.0, min=0.0, max=float(most), step=0.5, optional=True, tooltip=tooltip
    )


def _share(name: str, tooltip: str) -> io.Input:
    return io.Float.Input(
        name, default=-1.0, min=-1.0, max=0.95, step=0.05, optional=True, tooltip=tooltip
    )


def _rate(name: str, expert: str) -> io.Input:
    return io.Float.Input(
        name,
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.000001,
        round=False,
        optional=True,
        tooltip=f"Learning rate of {expert}; with automagic its bump and least rate too, where they were equal to it. "
        "0 keeps the plan's. For example 0.0001.",
    )


def _switch(name: str, tooltip: str) -> io.Input:
    return io.Combo.Input(
        name, options=[KEEP, *ON_OFF], default=KEEP, optional=True, tooltip=tooltip
    )
