"""The nodes that hold and apply LoRA stacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..wan.lora.flat_rows import flat_rows
from ..wan.lora.kinds import stack_size, stack_warnings
from ..wan.lora.stack import LoraStack, Row, parse_rows
from . import sockets
from .host import loras
from .host.progress import node_text
from .host.recipe_record import record_stack
from .host.setup import lone_low_notes, models_by_role
from .host.stack import apply_stack
from .triggers import stack_triggers

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ..wan.lora.judge import Policy
    from .host.stack import Mode


class TandemLoraStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemLoraStack",
            display_name="Tandem LoRA Stack",
            category="Tandem/lora",
            description="LoRAs as rows: which file, how strong, for which expert. High noise runs first (motion, "
            "layout), low noise second (detail). A row that names one half of a pair takes the other when it is "
            "certain, and says so. A misspelt key or a file that is not there is refused when the prompt is queued.",
            search_aliases=[
                "lora loader",
                "lora stack",
                "high noise low noise lora",
                "multiple loras",
            ],
            inputs=[
                io.String.Input(
                    "rows",
                    default="[]",
                    multiline=True,
                    optional=True,
                    tooltip='A JSON list: [{"lora": "x_high_noise.safetensors", "lora_low": '
                    '"x_low_noise.safetensors", "high": 1.0, "low": 1.0, "route": "auto"}]. Strengths are factors, '
                    "0.7-1.0 is usual; route is auto, both, high or low. With route auto and no lora_low, a certain "
                    "other half is taken too. A graph can give rows as inputs loras.0.lora, loras.0.strength too.",
                ),
                sockets.Stack.Input(
                    "stack",
                    optional=True,
                    tooltip="A stack that comes before these rows, for example a run's result.",
                ),
            ],
            outputs=[
                sockets.Stack.Output(display_name="stack"),
                io.String.Output(display_name="triggers"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
            # For loras.N.FIELD, whose names no schema can list; what is none of them is refused by `validate_inputs`.
            accept_all_inputs=True,
        )

    @classmethod
    def validate_inputs(
        cls, rows: str | None = "[]", stack: object = None, **fields: object
    ) -> bool | str:
        del stack
        return sockets.first_error(lambda: loras.listed_rows(_rows(rows, fields, links_open=True)))

    @classmethod
    def fingerprint_inputs(
        cls, rows: str | None = "[]", stack: object = None, **fields: object
    ) -> str:
        """A LoRA overwritten under its name is another LoRA, and a file that comes may be a row's other half."""
        del stack
        if rows is None or None in fields.values():
            return f"{rows} {sorted(fields.items(), key=str)} {loras.state_of_all()}"
        return f"{rows} {sorted(fields.items(), key=str)} {loras.state_of(_rows(rows, fields))}"

    @classmethod
    def execute(
        cls, rows: str = "[]", stack: LoraStack | None = None, **fields: object
    ) -> io.NodeOutput:
        before = stack or LoraStack()
        own = loras.listed_rows(_rows(rows, fields))
        merged, notes = loras.paired(before.rows + own)
        words, lines = stack_triggers(merged[len(before.rows) :])
        result = LoraStack(merged, tuple(dict.fromkeys(before.triggers + words)))
        report = "\n".join([_table(merged), *notes, *_advice(merged), *lines])
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(result, ", ".join(result.triggers), report)


class TandemApplyStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemApplyStack",
            display_name="Tandem Apply Stack",
            category="Tandem/lora",
            description="Puts a stack on one or two models and reports every file: modules matched of total, which "
            "expert and why, rank, alpha, leftovers. A LoRA that matches nothing is an error, never silence. High "
            "noise runs first (motion, layout), low noise second (detail).",
            search_aliases=["apply lora", "load lora", "wan 2.2 lora", "lora report"],
            inputs=[
                sockets.Stack.Input(
                    "stack", tooltip="From Tandem LoRA Stack or Tandem Job Result."
                ),
                *sockets.applied_inputs(),
                io.Combo.Input(
                    "mode",
                    options=["inject", "merge"],
                    default="inject",
                    optional=True,
                    tooltip="inject: beside the weights, which stay as they are; for every model, and for schedules. "
                    "merge: into the weights, which costs no speed while sampling.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model_high"),
                io.Model.Output(display_name="model_low"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(
        cls,
        stack: LoraStack,
        model_high: ModelPatcher | None = None,
        model_low: ModelPatcher | None = None,
        family: str = "auto",
        unmatched: Policy = "error",
        mode: Mode = "inject",
    ) -> io.NodeOutput:
        models = models_by_role(family, model_high, model_low)
        stack, notes = loras.for_models(stack, models)
        patched, report = apply_stack(stack, models, unmatched, mode)
        text = "\n".join([report.text(), *notes, *lone_low_notes(family, model_high)])
        node_text(cls.hidden.unique_id, text)
        record_stack(cls.hidden, stack)
        high = patched.get("high_noise") or (
            patched.get("single") if model_high is not None else None
        )
        low = patched.get("low_noise") or (patched.get("single") if model_low is not None else None)
        return io.NodeOutput(
            high or _not_connected("model_high"),
            low or _not_connected("model_low"),
            text,
            ui={"tandem_report": [report.as_json()]},
        )


def _not_connected(socket: str) -> ExecutionBlocker:
    return ExecutionBlocker(f"Tandem Apply Stack: {socket} is not connected, so it gives nothing.")


def _rows(
    rows: str | None, fields: dict[str, object], *, links_open: bool = False
) -> tuple[Row, ...]:
    """The rows of the text, then those of the inputs."""
    return parse_rows(rows or "[]") + flat_rows(fields, links_open=links_open)


def _table(rows: tuple[Row, ...]) -> str:
    lines = [
        f"{number} {'on ' if row.on else 'off'} {_line(row)}" for number, row in enumerate(rows, 1)
    ]
    return "\n".join([f"{sum(row.on for row in rows)} of {len(rows)} rows on", *lines])


def _line(row: Row) -> str:
    kind = f"{row.kind}: " if row.kind else ""
    mixed = f", {row.blend.share:g} of {row.blend.lora} mixed in" if row.blend else ""
    schedule = f", schedule {row.schedule}" if row.schedule else ""
    schedule += f", schedule_low {row.schedule_low}" if row.schedule_low else ""
    if row.lora_low:
        files = f"{row.lora} (high {row.high:g}) + {row.lora_low} (low {row.low:g})"
    else:
        files = f"{row.lora} (route {row.route}, high {row.high:g}, low {row.low:g})"
    return f"{kind}{files}{schedule}{mixed}"


def _advice(rows: tuple[Row, ...]) -> list[str]:
    placed = loras.placed(rows)
    warnings = [f"Warning: {text}" for text in stack_warnings(placed)]
    return warnings + list(stack_size(placed, loras.sizes_of(rows), loras.card_gib()))
