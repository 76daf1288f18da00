"""The nodes between Tandem's stacks and the LORA_STACK of other packs."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io

from ..wan.errors import UserError
from ..wan.lora.stack import LoraStack, Row
from ..wan.lora.tuples import LoraTuple, rows_from_tuples, tuples_from_rows
from . import sockets
from .host import loras
from .host.progress import node_text
from .triggers import stack_triggers

LoraList = io.Custom("LORA_STACK")


class TandemFromLoraStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemFromLoraStack",
            display_name="Tandem From LORA_STACK",
            category="Tandem/lora",
            description="Makes a Tandem stack of the LORA_STACK of another pack's node, one row for each entry. With "
            "lora_stack alone each file finds its expert as in Tandem LoRA Stack. High noise runs first (motion, "
            "layout), low noise second (detail).",
            search_aliases=["lora stack converter", "LORA_STACK to tandem", "import lora stack"],
            inputs=[
                LoraList.Input(
                    "lora_stack",
                    optional=True,
                    tooltip="From a LoRA stacker of another pack. With lora_stack_low connected it is for the "
                    "high-noise expert alone (runs first: motion, layout).",
                ),
                LoraList.Input(
                    "lora_stack_low",
                    optional=True,
                    tooltip="For the low-noise expert alone (runs second: detail).",
                ),
                sockets.Stack.Input(
                    "stack", optional=True, tooltip="A Tandem stack that comes before these rows."
                ),
            ],
            outputs=[
                sockets.Stack.Output(display_name="stack"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> str:
        return str(loras.state_of_all())

    @classmethod
    def execute(
        cls,
        lora_stack: Sequence[LoraTuple] | None = None,
        lora_stack_low: Sequence[LoraTuple] | None = None,
        stack: LoraStack | None = None,
    ) -> io.NodeOutput:
        if lora_stack is None and lora_stack_low is None:
            raise UserError(
                "Neither lora_stack nor lora_stack_low is connected.",
                "They are the LORA_STACK outputs of a stacker of another pack.",
                "Connect lora_stack; lora_stack_low only where the low-noise expert has a list of its own.",
            )
        rows = rows_from_tuples(lora_stack or (), lora_stack_low)
        before = stack or LoraStack()
        merged, notes = loras.paired(before.rows + loras.listed_rows(rows))
        words, lines = stack_triggers(merged[len(before.rows) :])
        result = LoraStack(merged, tuple(dict.fromkeys(before.triggers + words)))
        head = f"{len(rows)} rows from LORA_STACK"
        report = "\n".join([head, *map(_line, rows), *notes, *lines])
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(result, report)


class TandemToLoraStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemToLoraStack",
            display_name="Tandem To LORA_STACK",
            category="Tandem/lora",
            description="Gives a Tandem stack as two LORA_STACKs for nodes of other packs, one for each expert. High "
            "noise runs first (motion, layout), low noise second (detail). Those nodes have no strength schedules and "
            "no load report.",
            search_aliases=[
                "lora stack converter",
                "tandem to LORA_STACK",
                "export lora stack",
            ],
            inputs=[sockets.Stack.Input("stack", tooltip="From Tandem LoRA Stack.")],
            outputs=[
                LoraList.Output(display_name="lora_stack_high"),
                LoraList.Output(display_name="lora_stack_low"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, stack: LoraStack) -> io.NodeOutput:
        rows, notes = loras.paired(loras.listed_rows(stack.rows))
        placed = loras.placed(rows)
        high, low = tuples_from_rows(placed, "high"), tuples_from_rows(placed, "low")
        lost = [
            f"Warning: row {row.number} has a strength schedule, which LORA_STACK cannot hold; it is constant there."
            for row in placed
            if row.row.schedule or row.row.schedule_low
        ]
        report = "\n".join(
            [f"{len(high)} entries for high noise, {len(low)} for low noise", *notes, *lost]
        )
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(high, low, report)


def _line(row: Row) -> str:
    return f"{row.lora} (route {row.route}, high {row.high:g}, low {row.low:g})"
