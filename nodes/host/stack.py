"""A LoRA stack onto MODELs: read, route, match, put on, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from ...wan.errors import UserError
from ...wan.families import Role
from ...wan.lora.bases import base_of_network
from ...wan.lora.combine import CombinedLora, Source, combine
from ...wan.lora.experts import Evidence, expert_in_keys, split_experts, split_header
from ...wan.lora.files import LoraFile, read_lora
from ...wan.lora.judge import Policy, judge
from ...wan.lora.keys import match_lora
from ...wan.lora.measure import UpdateSize, content_digest, update_size
from ...wan.lora.report import FileReport, LoadReport, Placement, file_report
from ...wan.lora.single import one_sided, single_model_warnings
from ...wan.lora.stack import LoraStack, PlacedRow, Row, place_rows
from ...wan.lora.strength import StrengthSchedule, parse_strength
from .injection import AppliedFile, with_updates
from .loras import evidence_of
from .merge import with_merged
from .parameters import base_weight, parameter_shapes, weight_norms
from .places import lora_path
from .wan_models import require_wan

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

logger = logging.getLogger("tandem.stack")

Mode = Literal["inject", "merge"]
Side = Literal["high", "low"]
MODES = {"inject": with_updates, "merge": with_merged}
SIDE_OF: dict[Role, Side] = {"high_noise": "high", "low_noise": "low", "single": "high"}
"""The strength and the schedule of a row that count on an expert."""


class Assignment(NamedTuple):
    """One file for one expert."""

    row: int
    """Counted from 1."""
    file: str
    role: Role
    strength: float
    reason: str
    schedule: str = ""
    kind: str = ""
    """What the row says it is: speed, style, ..."""


class ReadStack(NamedTuple):
    """A stack as it comes to the given experts."""

    sources: Mapping[Role, Sequence[Source]]
    report: LoadReport


def apply_stack(
    stack: LoraStack, models: Mapping[Role, ModelPatcher], unmatched: Policy, mode: Mode = "inject"
) -> tuple[dict[Role, ModelPatcher], LoadReport]:
    """Clones of the MODELs that carry the stack, and what each file did.

    mode: beside the weights (`inject`), or in them (`merge`). Raises `UserError` when a row matches nothing on any
    expert, when `unmatched` is "error" and a key that matters found no place, and for what cannot be merged.
    """
    sources, report = read_stack(stack, models, unmatched)
    patched: dict[Role, ModelPatcher] = {
        role: MODES[mode](model, [_applied(source) for source in sources[role]])
        for role, model in models.items()
    }
    return patched, report


def combine_stack(
    stack: LoraStack,
    models: Mapping[Role, ModelPatcher],
    unmatched: Policy,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[Role, CombinedLora], LoadReport]:
    """The stack as one LoRA for each expert, and what each file did. Raises `UserError` as `apply_stack` does, and
    for a row whose strength changes over the run."""
    sources, report = read_stack(stack, models, unmatched)
    triggers = ", ".join(stack.triggers)
    combined: dict[Role, CombinedLora] = {
        role: combine(
            sources[role],
            lambda name, model=model: base_weight(model, name).cpu(),
            expert=role,
            trigger=triggers,
            dtype=dtype,
        )
        for role, model in models.items()
        if sources[role]
    }
    return combined, report


def read_stack(
    stack: LoraStack, models: Mapping[Role, ModelPatcher], unmatched: Policy
) -> ReadStack:
    """Every file of the stack, matched against the experts that it goes to; what does not fit is judged."""
    roles = tuple(models)
    files = _Files()
    experts = {role: _Expert(role, model) for role, model in models.items()}
    sources: dict[Role, list[Source]] = {role: [] for role in roles}
    reports: list[FileReport] = []
    notes: list[str] = []
    if "single" in roles:
        warnings = single_model_warnings(one_sided(stack.rows, evidence_of), unmatched)
        notes += [f"Warning: {text}" for text in warnings]
        for text in warnings if unmatched != "ignore" else ():
            logger.warning(text)
    for item in assignments(stack.rows, roles, evidence_of):
        if item.strength == 0:
            notes.append(f"{item.file} -> {item.role}: strength 0, not applied")
            continue
        source, report = experts[item.role].read(item, files)
        sources[item.role].append(source)
        reports.append(report)
    for warning in judge(reports, unmatched):
        logger.warning(warning)
    return ReadStack(sources, LoadReport(tuple(reports), tuple(notes), roles))


def assignments(
    rows: tuple[Row, ...], roles: tuple[Role, ...], evidence_of: Callable[[str], Evidence]
) -> list[Assignment]:
    """Which file of each row that is on goes to which of the given experts, and why, in the order of the rows.

    evidence_of: what a file says of the expert that it is for. Strengths of 0 are listed too.
    """
    if roles == ("single",):
        rows_on = [(number, row) for number, row in enumerate(rows, 1) if row.on]
        return [item for number, row in rows_on for item in _on_single(number, row)]
    found = []
    for placed in place_rows(rows, evidence_of):
        of_row = [item for role in roles for item in _on_expert(placed, role)]
        if not of_row and placed.files:
            sides = " and ".join(f"{side}-noise expert" for side in placed.files)
            raise UserError(
                f"Row {placed.number}: {placed.row.lora} goes to the {sides} ({placed.reason}), which is not "
                "connected.",
                f"Connected: {', '.join(roles)}.",
                "Connect that expert, or set the row's route.",
            )
        found += of_row
    return found


def _on_single(number: int, row: Row) -> list[Assignment]:
    if row.lora_low is not None:
        raise UserError(
            f"Row {number} names a pair ({row.lora}, {row.lora_low}), but one model is connected.",
            "A pair belongs to the two experts of Wan 2.2 A14B.",
            "Connect both experts, set family to wan 2.2 A14B for a lone one, or leave lora_low empty.",
        )
    if row.blend is not None and row.blend.lora_low is not None:
        raise UserError(
            f"Row {number} mixes in a pair ({row.blend.lora}, {row.blend.lora_low}), but one model is connected.",
            "A pair belongs to the two experts of Wan 2.2 A14B.",
            "Connect both experts, or leave lora_low of the blend empty.",
        )
    files = (row.lora,) if row.blend is None else (row.lora, row.blend.lora)
    return _assigned(number, row, files, "single", "one model is connected")


def _on_expert(placed: PlacedRow, role: Role) -> list[Assignment]:
    side, row = SIDE_OF[role], placed.row
    files = placed.files_on(side)
    if not files and placed.strength(side) == 0 and row.route in ("auto", "both", side):
        files = (row.lora_low if side == "low" and row.lora_low is not None else row.lora,)
    return _assigned(placed.number, row, files, role, placed.reason)


def _assigned(
    number: int, row: Row, files: tuple[str, ...], role: Role, reason: str
) -> list[Assignment]:
    """The row's own file, and behind it the one that is mixed in."""
    low = role == "low_noise"
    strength, schedule = row.low if low else row.high, row.schedule
    if low and row.schedule_low is not None:
        schedule = row.schedule_low
    shares = (1.0,) if row.blend is None else (1 - row.blend.share, row.blend.share)
    return [
        Assignment(number, file, role, strength * share, reason, schedule or "", row.kind or "")
        for file, share in zip(files, shares, strict=False)
    ]


def _applied(source: Source) -> AppliedFile:
    for update in source.updates.values():
        update.strength = source.strength
    return AppliedFile(source.updates, source.schedule)


class _Files:
    """The files of a stack; each is read once for both experts, and let go when the next rows come."""

    def __init__(self) -> None:
        self._read = lru_cache(maxsize=2)(lambda name: read_lora(lora_path(name)))
        self._contents: dict[str, str] = {}

    def __getitem__(self, name: str) -> LoraFile:
        return self._read(name)

    def content(self, name: str) -> str:
        """The digest of a file, computed once for all of its rows."""
        if name not in self._contents:
            self._contents[name] = content_digest(self[name].tensors)
        return self._contents[name]


class _Expert:
    """One of the MODELs, and what is known of it."""

    def __init__(self, role: Role, model: ModelPatcher) -> None:
        self._role: Role = role
        self._shapes = parameter_shapes(require_wan(model, f"model ({role})"))
        self._base = base_of_network(self._shapes, role)
        self._norms = weight_norms(model)
        self._sizes: dict[str, UpdateSize] = {}

    def read(self, item: Assignment, files: _Files) -> tuple[Source, FileReport]:
        """What a file does to this expert."""
        file = files[item.file]
        part = self._own_part(file, item)
        matched = match_lora(part.tensors, self._shapes, part.header.settings)
        if item.file not in self._sizes:
            self._sizes[item.file] = update_size(matched.updates, self._norms)
        schedule = parse_strength(item.schedule) if item.schedule else None
        report = file_report(
            matched,
            Placement(
                file=item.file,
                expert=item.role,
                reason=item.reason,
                strength=item.strength,
                row=item.row,
                schedule=item.schedule,
                peak=_peak(schedule),
                kind=item.kind,
            ),
            header=part.header,
            keys_for=expert_in_keys(file.header.tensors),
            network=self._base,
            size=self._sizes[item.file],
            content=files.content(item.file),
        )
        return Source(item.file, matched.updates, item.strength, schedule), report

    def _own_part(self, file: LoraFile, item: Assignment) -> LoraFile:
        """The file without the other expert's keys."""
        side = part_side(file.tensors, self._role, item.row, item.file)
        if side is None:
            return file
        empty = replace(file.header, tensors={})
        own = split_experts(file.tensors).get(side, {})
        return LoraFile(split_header(file.header).get(side, empty), own)


def part_side(named: Mapping[str, object], role: Role, row: int, file: str) -> Side | None:
    """The expert whose keys an expert takes out of those of a file; None when all of them are for it."""
    parts = split_experts(named)
    if None in parts:
        return None
    if role != "single":
        return SIDE_OF[role]
    if len(parts) == 2:
        raise UserError(
            f"Row {row}: {file} holds the LoRAs of both experts, but one model is connected.",
            "Such a file belongs to the two experts of Wan 2.2 A14B.",
            "Connect both experts, or set family to wan 2.2 A14B for a lone one.",
        )
    return next(iter(parts))


def _peak(schedule: StrengthSchedule | None) -> float:
    if schedule is None:
        return 1.0
    return max(abs(keyframe.value) for keyframe in schedule.keyframes)
