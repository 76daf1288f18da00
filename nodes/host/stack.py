"""A LoRA stack onto MODELs: read, route, match, attach, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ...wan.errors import UserError
from ...wan.families import Role
from ...wan.lora.adapters import AdapterSet
from ...wan.lora.files import read_metadata, read_tensors, tandem_metadata
from ...wan.lora.keys import match_lora
from ...wan.lora.report import FileReport, LoadReport, file_report
from ...wan.lora.stack import LoraStack, Route, Row, decide_route
from .injection import with_adapters
from .places import lora_path
from .wan_models import linear_layers, require_wan

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

logger = logging.getLogger("tandem.stack")


class Assignment(NamedTuple):
    """One file for one expert."""

    file: str
    role: Role
    strength: float
    reason: str


def apply_stack(
    stack: LoraStack, models: Mapping[Role, ModelPatcher], unmatched: str
) -> tuple[dict[Role, ModelPatcher], LoadReport]:
    """Clones of the MODELs that carry the stack, and what each file did.

    Raises `UserError` when a row matches nothing on any expert, or when `unmatched` is "error" and a key that
    matters found no place.
    """
    sets: dict[Role, list[AdapterSet]] = {role: [] for role in models}
    reports: list[FileReport] = []
    notes: list[str] = []
    for number, row in enumerate(stack.rows, 1):
        if not row.on:
            continue
        row_reports: list[FileReport] = []
        for item in assignments(row, tuple(models)):
            if item.strength == 0:
                notes.append(f"{item.file} -> {item.role}: strength 0, not applied")
                continue
            adapters, report = _read(item, models[item.role])
            sets[item.role].append(adapters)
            row_reports.append(report)
        _judge(number, row_reports, unmatched)
        reports += row_reports
    patched: dict[Role, ModelPatcher] = {
        role: with_adapters(model, sets[role]) if sets[role] else model
        for role, model in models.items()
    }
    return patched, LoadReport(tuple(reports), tuple(notes))


def assignments(row: Row, roles: tuple[Role, ...]) -> list[Assignment]:
    """Which file of a row goes to which of the given experts, and why."""
    if row.lora_low is not None:
        return _pair(row, row.lora_low, roles)
    route, reason = decide_route(row, _trained_for(row.lora))
    found = [
        Assignment(row.lora, role, row.low if role == "low_noise" else row.high, reason)
        for role in roles
        if _takes(role, route)
    ]
    if not found:
        raise UserError(
            f"{row.lora} goes to the {route}-noise expert ({reason}), which is not connected.",
            f"Connected: {', '.join(roles)}.",
            "Connect that expert, or set the row's route.",
        )
    return found


def _pair(row: Row, lora_low: str, roles: tuple[Role, ...]) -> list[Assignment]:
    if roles == ("single",):
        raise UserError(
            f"The row names a pair ({row.lora}, {lora_low}), but one model is connected.",
            "A pair belongs to the two experts of Wan 2.2 A14B.",
            "Connect both experts, set family to wan 2.2 A14B for a lone one, or leave lora_low empty.",
        )
    reason = "the row names a pair"
    halves: dict[Role, Assignment] = {
        "high_noise": Assignment(row.lora, "high_noise", row.high, reason),
        "low_noise": Assignment(lora_low, "low_noise", row.low, reason),
    }
    wanted = [
        half for role, half in halves.items() if row.route == "auto" or _takes(role, row.route)
    ]
    return [half for half in wanted if half.role in roles]


def _trained_for(file: str) -> object:
    return tandem_metadata(read_metadata(lora_path(file))).get("expert")


def _takes(role: Role, route: Route) -> bool:
    if role == "single" or route == "both":
        return True
    return role == f"{route}_noise"


def _read(item: Assignment, model: ModelPatcher) -> tuple[AdapterSet, FileReport]:
    layers = linear_layers(require_wan(model, f"model ({item.role})"))
    matched = match_lora(read_tensors(lora_path(item.file)), layers)
    for adapter in matched.adapters.values():
        adapter.strength = item.strength
        adapter.requires_grad_(False)
    trained_for = _trained_for(item.file)
    swapped = {trained_for, item.role} == {"high_noise", "low_noise"}
    report = file_report(
        matched,
        warnings=(f"it was trained for the {trained_for} expert",) if swapped else (),
        file=item.file,
        expert=item.role,
        reason=item.reason,
        strength=item.strength,
    )
    return matched.adapters, report


def _judge(number: int, reports: list[FileReport], unmatched: str) -> None:
    for file in dict.fromkeys(report.file for report in reports):
        of_file = [report for report in reports if report.file == file]
        if not any(report.matched for report in of_file):
            raise UserError(
                f"Row {number}: {file} matches nothing.\n{_texts(of_file)}\n",
                "A LoRA for this model names layers that the model has, in their shapes.",
                "Check that it was trained for this Wan model (2.1, 2.2 A14B or 5B), and which expert "
                "it is for.",
            )
    if unmatched == "ignore":
        return
    if doubtful := [report for report in reports if not report.whole or report.warnings]:
        if unmatched == "error":
            raise UserError(
                f"Row {number} does not fit as it is.\n{_texts(doubtful)}\n",
                "With unmatched = error, every key that matters finds its layer, on the expert that "
                "the file was trained for.",
                "Use the file that was made for this model, mend the row, or set unmatched to warn.",
            )
        logger.warning("Row %d does not fit as it is.\n%s", number, _texts(doubtful))


def _texts(reports: list[FileReport]) -> str:
    return "\n".join(report.text() for report in reports)
