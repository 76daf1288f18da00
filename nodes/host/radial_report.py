"""What radial attention will do, and what it did, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...radial_attention.backends import choose_backend
from .radial import HOOK, TREATED, Radial, RadialHook, untreated_line
from .radial_calls import named_grid
from .radial_probe import GOOD_ENOUGH, Proposal, proposal
from .radial_record import SPARSE, RadialRecord
from .wan_models import require_wan

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

WORST = 5
"""Blocks that a probe's report names."""


def patch_report(model: ModelPatcher, radial: Radial) -> str:
    """Of a MODEL that has just been given radial attention."""
    patch, settings = radial.patch, radial.patch.settings
    network = require_wan(model, "model")
    if type(network) not in TREATED:
        return untreated_line(network)
    backend = choose_backend(
        patch.backend, model.load_device, reference=settings.reference, tile=settings.tile
    )
    lines = [
        f"Radial attention, {patch.preset}: {settings.describe()}.",
        f"{len(network.blocks)} blocks; backend {backend.name}: {backend.why}.",
    ]
    if radial.previous is not None:
        lines.append(
            f"Dense parts are computed by {hook_name(radial.previous)}, which was there before."
        )
    if patch.probe:
        lines.append(
            "Probe: every block is computed both ways, so a run takes longer than a dense one."
        )
    return "\n".join(lines)


def calls_report(model: ModelPatcher, radial: Radial) -> str:
    """Of the samplers that ran last with a MODEL."""
    return "\n".join(_lines(model, radial))


def _lines(model: ModelPatcher, radial: Radial) -> Iterator[str]:
    record, settings = radial.record, radial.patch.settings
    yield f"Radial attention, {radial.patch.preset}: {settings.describe()}."
    yield from record.lines
    if not record.model_calls and not record.lines:
        yield "Nothing has been sampled with this model yet."
        return
    total = record.calls.total()
    if total:
        yield f"{total:,} calls of self-attention: {_counted(record)}."
    if record.missed:
        yield (
            f"In {record.missed} of {record.model_calls} calls of the network no self-attention came by: "
            f"{_taken_by(model)}. Put Tandem Radial Attention behind it."
        )
    for grid, attention in record.grids.items():
        yield (
            f"{named_grid(grid)} ({grid.tokens:,} tokens): density {attention.density:.3f}, a sparse call can be "
            f"{1 / attention.density:.2f} times as fast at most; {attention.backend.name}: {attention.backend.why}."
        )
    yield from _times(record)
    if radial.patch.probe:
        found = proposal(record, settings)
        yield "The probe has measured nothing." if found is None else _proposed(found)


def _counted(record: RadialRecord) -> str:
    parts = []
    for why, count in sorted(record.calls.items(), key=lambda item: (item[0] != SPARSE, -item[1])):
        control = (
            f" ({record.control[why]:,} of them VACE's control blocks)"
            if record.control[why]
            else ""
        )
        parts.append(f"{count:,} {'sparse' if why == SPARSE else f'dense {why}'}{control}")
    return ", ".join(parts)


def _taken_by(model: ModelPatcher) -> str:
    hook = model.model_options.get("transformer_options", {}).get(HOOK)
    if hook is None or isinstance(hook, RadialHook):
        return (
            "another node has taken the attention hook over, or the network has another attention"
        )
    return f"{hook_name(hook)} has taken the attention hook over"


def hook_name(hook: object) -> str:
    """Where another node's attention comes from."""
    module = getattr(hook, "__module__", "") or type(hook).__module__
    return f"{module}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"


def _times(record: RadialRecord) -> Iterator[str]:
    network = record.seconds("network")
    by_kind = {
        kind: (record.seconds(kind), len(record.times.get(kind, ()))) for kind in (SPARSE, "dense")
    }
    if not network:
        return
    share = sum(seconds for seconds, _ in by_kind.values()) / network
    calls = [
        f"a {kind} call {1000 * seconds / count:.1f} ms"
        for kind, (seconds, count) in by_kind.items()
        if count
    ]
    yield f"Self-attention took {share:.0%} of the network's {network:.1f} s; {', '.join(calls)}."


def _proposed(found: Proposal) -> str:
    worst = sorted(found.errors.items(), key=lambda item: -item[1])[:WORST]
    named = ", ".join(f"block {block} {error:.3f}" for block, error in worst)
    return (
        f"Probe: relative error of a block's attention, sparse against dense: {named}. Advice, for {GOOD_ENOUGH:g} or "
        f"less: decay_factor {found.decay:g}, dense_layers {found.dense_layers}."
    )
