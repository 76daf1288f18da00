"""Tandem's own socket types, and how its errors reach the queue."""

from __future__ import annotations

from collections.abc import Callable

from comfy_api.latest import io

from ..wan.errors import UserError

Dataset = io.Custom("TANDEM_DATASET")
Plan = io.Custom("TANDEM_PLAN")
Job = io.Custom("TANDEM_JOB")
Stack = io.Custom("TANDEM_STACK")


def first_error(*checks: Callable[[], object]) -> bool | str:
    """For `validate_inputs`: True, or the text of the first check that fails, so that the queue refuses."""
    for check in checks:
        try:
            check()
        except UserError as error:
            return str(error)
    return True
