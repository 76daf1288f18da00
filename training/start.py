"""A run that goes on from a LoRA: at step 0 its adapters do what the LoRA does, and all of them learn from there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ..wan.errors import UserError
from ..wan.families import Role
from ..wan.lora.adapters import AdapterSet, LoraAdapter
from .records import write_text

FILE = "start.json"
"""What a run started from, in its folder: the LoRA itself may be gone when the run goes on."""
SHOWN = 5
APPLY = "Or put it on the MODEL with Tandem Apply Stack: it stays in while training, and the new LoRA adds to it."


class Factors(NamedTuple):
    """One layer's change of its weight as a product: up @ down, with strength and alpha / rank in `up`."""

    down: torch.Tensor
    """(rank, inputs), float32."""
    up: torch.Tensor
    """(outputs, rank), float32."""


StartOf = Callable[[Role], Mapping[str, Factors]]
"""The factors by layer with which an expert begins; empty for one that begins anew."""


@dataclass(frozen=True, kw_only=True)
class StartPart:
    """The file that one expert goes on from."""

    role: Role
    row: int
    """Its row in the stack, from 1."""
    file: str
    sha256: str
    """Of the whole file."""
    strength: float

    def text(self) -> str:
        return f"The {self.role} expert goes on from {self.file} at strength {self.strength:g}."


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """What a run goes on from: a file for each expert at most."""

    rows: str
    """The rows of the stack as they were written, as JSON."""
    parts: tuple[StartPart, ...]

    def digest(self) -> str:
        """32 hex digits, equal for equal weights at equal strengths, whatever their files are called."""
        facts = sorted([part.role, part.sha256, part.strength] for part in self.parts)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def metadata(self) -> dict[str, object]:
        """The entry `started_from` of every file of the run, by expert."""
        return {
            part.role: {"file": part.file, "sha256": part.sha256, "strength": part.strength}
            for part in self.parts
        }

    def notes(self, roles: Iterable[Role]) -> tuple[str, ...]:
        """What begins how, for whoever reads the log."""
        started = {part.role for part in self.parts}
        fresh = [f"The {role} expert begins anew." for role in roles if role not in started]
        return (*(part.text() for part in self.parts), *fresh)


def write_start(folder: Path, start: RunStart) -> None:
    """Keeps it in the run's folder."""
    write_text(folder / FILE, json.dumps(asdict(start), indent=2))


def read_start(folder: Path) -> RunStart | None:
    """What the run in this folder went on from; None where it began anew, and where there is no run."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        parts = tuple(StartPart(**part) for part in entry["parts"])
        return RunStart(rows=entry["rows"], parts=parts)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read ({error}).",
            "It is written by Tandem, whole or not at all.",
            "Move the folder of the run away, or take another name.",
        ) from error


def begin_with(adapters: AdapterSet, factors: Mapping[str, Factors], role: Role) -> None:
    """Writes `factors` into fresh adapters, whose alpha and rank stay: each then does exactly what its factors do.

    A smaller rank leaves the other rows of `down` as they were drawn, with zeros in `up`: they do nothing yet and
    can learn. Layers without factors stay fresh. Exact in float32; bfloat16 adapters round. Raises `UserError` for
    a layer that has no adapter, and for a larger rank.
    """
    require_fit(
        {layer: down.shape[0] for layer, (down, _) in factors.items()},
        {layer: adapter.rank for layer, adapter in adapters.items()},
        adapters,
        role,
        "The LoRA",
    )
    for layer, (down, up) in factors.items():
        _begin(adapters[layer], down, up)


def require_fit(
    ranks: Mapping[str, int],
    planned: Mapping[str, int],
    layers: Iterable[str],
    role: Role,
    file: str,
) -> None:
    """Raises `UserError` when a layer of `file` is not trained, or is trained with a smaller rank.

    ranks: of the file, by layer. planned: of the plan, by layer that is trained. layers: all that could be.
    """
    if missing := [layer for layer in ranks if layer not in planned]:
        raise _not_covered(missing, set(layers), role, file)
    larger = {layer: rank for layer, rank in ranks.items() if rank > planned[layer]}
    if larger:
        layer, rank = max(larger.items(), key=lambda item: item[1])
        raise UserError(
            f"{file} has rank {rank} in {layer} of the {role} expert; the plan trains it with rank {planned[layer]}.",
            "The plan's rank is that of the file or larger: nothing of the file is cut off.",
            f"Set lora.rank to {rank} on the plan (or the rank of that expert or pattern).",
        )


def _begin(adapter: LoraAdapter, down: torch.Tensor, up: torch.Tensor) -> None:
    rank, ratio = down.shape[0], adapter.alpha / adapter.rank
    with torch.no_grad():
        adapter.down[:rank] = down.to(adapter.down)
        adapter.up[:, :rank] = (up / ratio).to(adapter.up)


def _not_covered(missing: list[str], layers: set[str], role: Role, file: str) -> UserError:
    came = f"{file} changes {_some(missing)} of the {role} expert, which the plan does not train."
    can_be = "A run goes on from all of a LoRA: what it does to other layers would be lost."
    if beyond := [layer for layer in missing if layer not in layers]:
        return UserError(came, f"{can_be} {_some(beyond)} cannot carry a LoRA here.", APPLY)
    patterns = ", ".join(dict.fromkeys(_pattern(layer) for layer in missing))
    return UserError(came, can_be, f"Add to lora.targets on the plan: {patterns}. {APPLY}")


def _pattern(layer: str) -> str:
    """A target for this layer of every block."""
    return re.sub(r"(?<=blocks\\\.)\d+", r"\\d+", re.escape(layer))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
