"""The nodes that hold and apply LoRA stacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..wan.families import FAMILIES
from ..wan.lora.files import read_metadata, tandem_metadata
from ..wan.lora.stack import LoraStack, Row, parse_rows
from . import sockets
from .host.places import lora_path
from .host.progress import node_text
from .host.setup import models_by_role
from .host.stack import apply_stack

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class TandemLoraStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemLoraStack",
            display_name="Tandem LoRA Stack",
            category="Tandem/lora",
            description="LoRAs as rows: which file, how strong, for which expert. A misspelt key or a file that is not "
            "there is refused when the prompt is queued.",
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
                    "0.7-1.0 is usual; route is auto, both, high or low.",
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
        )

    @classmethod
    def validate_inputs(cls, rows: str | None = "[]") -> bool | str:
        return sockets.first_error(lambda: _checked_rows(rows or "[]"))

    @classmethod
    def fingerprint_inputs(cls, rows: str = "[]", **others: object) -> str:
        # A LoRA overwritten under its name is another LoRA.
        del others
        stats = [
            lora_path(file).stat() for row in parse_rows(rows) if row.on for file in _files(row)
        ]
        return f"{rows} {[(s.st_mtime_ns, s.st_size) for s in stats]}"

    @classmethod
    def execute(cls, rows: str = "[]", stack: LoraStack | None = None) -> io.NodeOutput:
        parsed = _checked_rows(rows)
        merged = (stack or LoraStack()).then(LoraStack(parsed, _triggers(parsed)))
        lines = [f"{'on ' if row.on else 'off'} {_line(row)}" for row in merged.rows]
        report = "\n".join([f"{len(merged.active())} of {len(merged.rows)} rows on", *lines])
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(merged, ", ".join(merged.triggers), report)


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
                io.Model.Input(
                    "model_high",
                    optional=True,
                    tooltip=sockets.HIGH_TIP,
                ),
                io.Model.Input("model_low", optional=True, tooltip=sockets.LOW_TIP),
                io.Combo.Input(
                    "family",
                    options=list(FAMILIES),
                    default="auto",
                    optional=True,
                    tooltip="auto: two models are Wan 2.2 A14B, one is a single model. Set wan 2.2 A14B for a lone "
                    "expert.",
                ),
                io.Combo.Input(
                    "unmatched",
                    options=["error", "warn", "ignore"],
                    default="error",
                    optional=True,
                    tooltip="If part of a file has no place in the model: stop, warn and go on, or say it in the "
                    "report only. A file without any match always stops.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model_high"),
                io.Model.Output(display_name="model_low"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        stack: LoraStack,
        model_high: ModelPatcher | None = None,
        model_low: ModelPatcher | None = None,
        family: str = "auto",
        unmatched: str = "error",
    ) -> io.NodeOutput:
        models = models_by_role(family, model_high, model_low)
        patched, report = apply_stack(stack, models, unmatched)
        text = report.text()
        node_text(cls.hidden.unique_id, text)
        high = patched.get("high_noise") or (
            patched.get("single") if model_high is not None else None
        )
        low = patched.get("low_noise") or (patched.get("single") if model_low is not None else None)
        return io.NodeOutput(
            high or _not_connected("model_high"), low or _not_connected("model_low"), text
        )


def _not_connected(socket: str) -> ExecutionBlocker:
    return ExecutionBlocker(f"Tandem Apply Stack: {socket} is not connected, so it gives nothing.")


def _checked_rows(text: str) -> tuple[Row, ...]:
    rows = parse_rows(text)
    for row in rows:
        if row.on:
            for file in _files(row):
                read_metadata(lora_path(file))
    return rows


def _files(row: Row) -> list[str]:
    return [file for file in (row.lora, row.lora_low) if file is not None]


def _triggers(rows: tuple[Row, ...]) -> tuple[str, ...]:
    found = [
        tandem_metadata(read_metadata(lora_path(row.lora))).get("trigger") for row in rows if row.on
    ]
    return tuple(dict.fromkeys(str(word) for word in found if word))


def _line(row: Row) -> str:
    if row.lora_low:
        return f"{row.lora} (high {row.high:g}) + {row.lora_low} (low {row.low:g})"
    return f"{row.lora} (route {row.route}, high {row.high:g}, low {row.low:g})"
