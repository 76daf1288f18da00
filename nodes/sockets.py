"""Tandem's own socket types, and how its errors reach the queue."""

from __future__ import annotations

from collections.abc import Callable

from comfy_api.latest import io

from ..wan.errors import UserError
from ..wan.families import FAMILIES

Dataset = io.Custom("TANDEM_DATASET")
Plan = io.Custom("TANDEM_PLAN")
Job = io.Custom("TANDEM_JOB")
Stack = io.Custom("TANDEM_STACK")

# People get it backwards, so every node with experts says it the same way.
HIGH_TIP = "The high-noise expert (runs first: motion, layout), or a single model."
LOW_TIP = "The low-noise expert (runs second: detail)."


FAMILY_TIP = (
    "auto: two models are Wan 2.2 A14B, one is a single model. Set wan 2.2 A14B for a lone expert."
)
UNMATCHED_TIP = (
    "If part of a file has no place in the model: stop, warn and go on without it, or say it in the report only. A "
    "file without any match always stops."
)


def applied_inputs() -> list[io.Input]:
    """What every node takes that puts a stack on models: the models, their family, and what to do with leftovers."""
    return [
        io.Model.Input("model_high", optional=True, tooltip=HIGH_TIP),
        io.Model.Input("model_low", optional=True, tooltip=LOW_TIP),
        io.Combo.Input(
            "family", options=list(FAMILIES), default="auto", optional=True, tooltip=FAMILY_TIP
        ),
        unmatched_input(),
    ]


def unmatched_input() -> io.Input:
    return io.Combo.Input(
        "unmatched",
        options=["error", "warn", "ignore"],
        default="error",
        optional=True,
        tooltip=UNMATCHED_TIP,
    )


def first_error(*checks: Callable[[], object]) -> bool | str:
    """For `validate_inputs`: True, or the text of the first check that fails, so that the queue refuses."""
    for check in checks:
        try:
            check()
        except UserError as error:
            return str(error)
    return True
