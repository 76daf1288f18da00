"""The LoRAs that a run goes on from: chosen by a stack, checked before anything is trained, read when it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...training.checkpoints import CheckpointStore
from ...training.job import checked_name
from ...training.layer_settings import layer_settings
from ...training.plans.plan import TrainingPlan
from ...training.start import APPLY, Factors, RunStart, StartPart, read_start, require_fit
from ...wan.errors import UserError
from ...wan.families import A14B, Role
from ...wan.lora.combine import low_rank_factors
from ...wan.lora.experts import split_experts, split_header
from ...wan.lora.files import lora_header, read_lora
from ...wan.lora.keys import HeaderMatch, match_header, match_lora
from ...wan.lora.stack import LoraStack, Row, alone, decide_route, rows_json
from ...wan.lora.strength import parse_strength
from .loras import evidence_of, for_models
from .parameters import parameter_shapes
from .places import jobs_root, lora_path
from .recipes import digests, path_here
from .stack import SIDE_OF, Assignment, assignments, part_side
from .wan_models import linear_layers, require_wan

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from .setup import Setup

SAVE = "Tandem Save Stack As LoRA"
SHOWN = 5


def with_start(setup: Setup, stack: LoraStack | None, name: str) -> Setup:
    """The setup of a run that goes on from what the stack gives each expert; without a stack, as it is.

    name: of the run. One that has a checkpoint goes on without the files, should they be gone. Raises `UserError`
    for a file of another expert or kind, a larger rank, and layers that the plan does not train: all of it told by
    names, shapes and metadata, before a weight is read.
    """
    if stack is None:
        return setup
    written = rows_json(tuple(map(alone, stack.active())))
    roles = setup.plan.roles()
    if (known := _known(jobs_root() / checked_name(name), written)) is not None:
        return replace(setup, start=known, notes=(*setup.notes, *known.notes(roles)))
    stack, notes = for_models(stack, setup.models)
    items = assignments(stack.rows, tuple(setup.models), evidence_of)
    items = [item for item in items if item.strength and item.role in roles]
    _require_one_each(items)
    checked = [_checked(item, setup.plan, setup.models[item.role]) for item in items]
    parts = tuple(part for part in checked if part.strength)
    if not parts:
        raise UserError(
            "The stack at start_from changes nothing.",
            "At least one row is on, at a strength above or below 0.",
            "Switch a row on, or leave start_from empty to train a new LoRA.",
        )
    start = RunStart(rows=written, parts=parts)
    told = (*setup.notes, *notes, *_single_notes(parts), *start.notes(roles))
    return replace(setup, start=start, notes=told)


def start_factors(start: RunStart, role: Role, model: ModelPatcher) -> Mapping[str, Factors]:
    """The weights by layer with which an expert begins; empty where it begins anew. Raises `UserError` when a file
    has changed since the run was queued."""
    part = next((part for part in start.parts if part.role == role), None)
    if part is None:
        return {}
    path = lora_path(part.file)
    if digests()(path) != part.sha256:
        raise UserError(
            f"{part.file} has changed since the run was queued.",
            "A run goes on from the weights that it was queued with.",
            "Bring the file back; or queue the graph under a new name, and the run goes on from what is there now.",
        )
    file = read_lora(path)
    side = part_side(file.tensors, role, part.row, part.file)
    tensors = file.tensors if side is None else split_experts(file.tensors).get(side, {})
    matched = match_lora(tensors, _shapes(model), file.header.settings)
    _require_whole(matched, part.file)
    factors = {}
    for target, update in matched.updates.items():
        found = low_rank_factors(update)
        assert found is not None, "other kinds were refused"
        factors[target.removesuffix(".weight")] = Factors(found[0], found[1] * part.strength)
    return factors


def _known(folder: Path, written: str) -> RunStart | None:
    """What a run that can go on has started from, where a file of it is gone."""
    known = read_start(folder)
    if known is None or known.rows != written:
        return None
    if not CheckpointStore(folder, folder.name).resumable_step():
        return None
    gone = any(path_here(part.file) is None for part in known.parts)
    return known if gone else None


def _require_one_each(items: Sequence[Assignment]) -> None:
    for role in dict.fromkeys(item.role for item in items):
        of_role = [item for item in items if item.role == role]
        if len(of_role) > 1:
            files = ", ".join(item.file for item in of_role)
            raise UserError(
                f"start_from gives the {role} expert {len(of_role)} LoRAs: {files}.",
                "A run goes on from one LoRA for each expert: a file, a pair, or a row for each expert.",
                f"Merge them into one first with {SAVE}, and take its stack.",
            )


def _checked(item: Assignment, plan: TrainingPlan, model: ModelPatcher) -> StartPart:
    """One file on one expert, by its header alone."""
    _require_own_expert(item)
    header = lora_header(lora_path(item.file))
    side = part_side(header.tensors, item.role, item.row, item.file)
    if side is not None:
        header = split_header(header).get(side, replace(header, tensors={}))
    matched = match_header(header, _shapes(model))
    _require_whole(matched, item.file)
    _require_kind(matched, item.file)
    layers = linear_layers(require_wan(model, f"model ({item.role})"))
    planned = {n: own.rank for n, own in layer_settings(plan, item.role, layers).items()}
    ranks = {c.target.removesuffix(".weight"): c.rank or 0 for c in matched.changes}
    require_fit(ranks, planned, layers, item.role, item.file)
    return StartPart(
        role=item.role,
        row=item.row,
        file=item.file,
        sha256=digests()(lora_path(item.file)),
        strength=item.strength * _factor(item),
    )


def _require_own_expert(item: Assignment) -> None:
    """A file that says itself that it is for the other expert is refused; what the row says is no evidence."""
    if item.role == "single":
        return
    route, why = decide_route(Row(lora=item.file), evidence_of(item.file))
    if route in ("high", "low") and route != SIDE_OF[item.role]:
        raise UserError(
            f"Row {item.row} gives {item.file} to the {item.role} expert, but it is for {route} noise: {why}.",
            "An expert goes on from a LoRA that was trained for it: the two learn different things.",
            "Name the other half of the pair, or set the row's route to auto.",
        )


def _require_whole(matched: HeaderMatch, file: str) -> None:
    """Every key that matters has a place: what has none would be lost without a word."""
    lost = [leftover for leftover in matched.leftovers if not leftover.expected]
    if lost or not matched.changes:
        shown = "; ".join(
            f"{each.key}: {each.cause}{f' ({each.detail})' if each.detail else ''}"
            for each in lost[:SHOWN]
        )
        raise UserError(
            f"{file} does not fit this model: {len(lost)} of its keys have no place in it, and "
            f"{len(matched.changes)} of its {matched.num_modules} changes have one. {shown}".rstrip(),
            "A run goes on from a LoRA all of which fits the model.",
            "Choose a LoRA that was made for this model; Tandem Apply Stack reports what fits.",
        )


def _require_kind(matched: HeaderMatch, file: str) -> None:
    others = [change for change in matched.changes if change.kind != "LoRA"]
    if not others:
        return
    kinds = ", ".join(dict.fromkeys(change.kind for change in others))
    layers = ", ".join(change.target for change in others[:SHOWN])
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    factored = all(change.kind in ("LoHa", "LoKr") for change in others)
    raise UserError(
        f"{file} changes {layers}{more} in another way than a LoRA: {kinds}.",
        "A run trains plain LoRAs, and goes on from them.",
        f"{SAVE} makes a plain LoRA of it, of a larger rank: go on from that. {APPLY}"
        if factored
        else f"{SAVE} makes plain LoRAs of LoHa and LoKr; DoRA and whole differences have no such form. {APPLY}",
    )


def _factor(item: Assignment) -> float:
    if not item.schedule:
        return 1.0
    constant = parse_strength(item.schedule).constant
    if constant is None:
        raise UserError(
            f"Row {item.row}: {item.file} has the strength schedule {item.schedule}.",
            "A LoRA that is trained has one strength at every step.",
            "Take the schedule out of the row.",
        )
    return constant


def _single_notes(parts: Sequence[StartPart]) -> list[str]:
    """A half of a pair on a single model may be meant so; or the model is a lone expert, and nobody has said it."""
    notes = []
    for part in parts:
        route, why = decide_route(Row(lora=part.file), evidence_of(part.file))
        if part.role == "single" and route in ("high", "low"):
            notes.append(
                f"{part.file} is for the {route}-noise expert ({why}), and a single model goes on from it. For a "
                f"lone expert of Wan 2.2 set family to {A14B} on the plan."
            )
    return notes


def _shapes(model: ModelPatcher) -> dict[str, tuple[int, ...]]:
    return parameter_shapes(require_wan(model, "model"))
