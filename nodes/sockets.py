"""Tandem's own socket types, and how its errors reach the queue."""

from __future__ import annotations

from collections.abc import Callable

from comfy_api.latest import io

from ..wan.errors import UserError

Dataset = io.Custom("TANDEM_DATASET")
Plan = io.Custom("TANDEM_PLAN")
Job = io.Custom("TANDEM_JOB")
Stack = io.Custom("TANDEM_STACK")

# People get it backwards, so every node with experts says it the same way.
HIGH_TIP = "The high-noise expert (runs first: motion, layout), or a single model."
LOW_TIP = "The low-noise expert (runs second: detail)."


def first_error(*checks: Callable[[], object]) -> bool | str:
    """For `validate_inputs`: True, or the text of the first check that fails, so that the queue refuses."""
    for check in checks:
        try:
            check()
        except UserError as error:
            return str(error)
    return True
