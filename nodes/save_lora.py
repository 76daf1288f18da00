"""The node that saves a stack as one LoRA for each expert."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..wan.errors import UserError
from ..wan.lora.stack import LoraStack, Row
from . import sockets
from .host import saving
from .host.loras import for_models
from .host.places import lora_name
from .host.progress import node_text
from .host.setup import models_by_role
from .host.stack import combine_stack

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ..wan.families import Role
    from ..wan.lora.judge import Policy
    from ..wan.lora.stack import Route

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

ROUTES: dict[Role, Route] = {"single": "both", "high_noise": "high", "low_noise": "low"}


class TandemSaveLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemSaveLora",
            display_name="Tandem Save Stack As LoRA",
            category="Tandem/lora",
            description="Writes all that a stack does, blends and strengths included, into one LoRA file for each "
            "expert. Ranks are put side by side, so nothing is approximated; the file is as large as its parts.",
            search_aliases=["merge loras", "blend loras", "combine loras", "save lora"],
            is_output_node=True,
            inputs=[
                sockets.Stack.Input(
                    "stack", tooltip="The stack to save. Its rows have no schedules."
                ),
                io.String.Input(
                    "name",
                    tooltip="The files are called NAME_high_noise and NAME_low_noise, or NAME for a single model, "
                    "in the first loras folder. For example anime_fast.",
                ),
                *sockets.applied_inputs(),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="float16",
                    optional=True,
                    tooltip="float16 is usual and half as large as float32, which keeps every bit.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace files of these names (true), or stop (false) unless they hold the same. A file of "
                    "the name for the other expert that does not belong to it is put aside as .old.",
                ),
            ],
            outputs=[
                sockets.Stack.Output(display_name="stack"),
                io.String.Output(display_name="high"),
                io.String.Output(display_name="low"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        # A name that comes over a link is None here.
        return sockets.first_error(lambda: name is None or saving.file_name(name))

    @classmethod
    def fingerprint_inputs(cls, name: str | None = "", **_: object) -> list[float]:
        """Files that were deleted or changed since are saved again."""
        return saving.written_at(name or "")

    @classmethod
    def execute(
        cls,
        stack: LoraStack,
        name: str,
        model_high: ModelPatcher | None = None,
        model_low: ModelPatcher | None = None,
        family: str = "auto",
        unmatched: Policy = "error",
        dtype: str = "float16",
        overwrite: bool = False,
    ) -> io.NodeOutput:
        models = models_by_role(family, model_high, model_low)
        stack, notes = for_models(stack, models)
        target = saving.Target(saving.file_name(name), tuple(models), stack, overwrite)
        target.require_free()
        combined, report = combine_stack(stack, models, unmatched, DTYPES[dtype])
        if not combined:
            raise UserError(
                "The stack changes nothing.",
                "At least one row is on, at a strength above or below 0.",
                "Switch a row on, or set its strengths.",
            )
        lines = target.write(combined)
        text = "\n".join([*lines, report.text(), *notes])
        node_text(cls.hidden.unique_id, "\n".join(lines))
        files: dict[Role, str] = {role: lora_name(target.path(role)) for role in combined}
        high = files.get("high_noise", files.get("single", ""))
        return io.NodeOutput(
            LoraStack((_row(files),), stack.triggers), high, files.get("low_noise", ""), text
        )


def _row(files: dict[Role, str]) -> Row:
    if len(files) == 2:
        return Row(lora=files["high_noise"], lora_low=files["low_noise"])
    ((role, file),) = files.items()
    return Row(lora=file, route=ROUTES[role])
