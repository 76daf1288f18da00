"""What a stack will cost before any of it is loaded: memory from the files' headers, arithmetic, measured speed."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, NamedTuple

from ..families import Role
from .header import LoraHeader, TensorInfo
from .keys import HeaderMatch

MB = 10**6
# LoRAs an expert that a card of so many GiB carries beside a 14B expert, the largest card first. 3-4 on 16 is what
# people report, the others are our choice around it.
CARDS = ((24, 8), (16, 4), (12, 3), (0, 2))


class LoraWork(NamedTuple):
    """A low-rank update beside one linear layer."""

    layer: str
    rank: int
    inputs: int
    outputs: int


class Slowdown(NamedTuple):
    """Speed with a number of LoRAs, as a share of the speed without any, and how that is known."""

    least_loras: int
    most_loras: int
    slowest: float
    fastest: float
    provenance: str
    """Machine, model, command and date of a measurement, or who says so."""


_ONE_BLOCK = "measured on a CPU at 14B's width, rank 32, 2026-11-21"
MEASURED: tuple[Slowdown, ...] = (
    Slowdown(1, 2, 0.97, 0.98, _ONE_BLOCK),
    Slowdown(3, 4, 0.95, 0.97, _ONE_BLOCK),
    Slowdown(5, 8, 0.90, 0.95, _ONE_BLOCK),
)
"""What a benchmark found, with its provenance; it goes before what is reported."""
_PEOPLE = "as people report, not measured by us"
REPORTED: tuple[Slowdown, ...] = (
    Slowdown(1, 2, 0.95, 0.98, _PEOPLE),
    Slowdown(3, 4, 0.90, 0.95, _PEOPLE),
    Slowdown(5, sys.maxsize, 0.85, 0.90, _PEOPLE),
)


@dataclass(frozen=True, kw_only=True)
class FileCost:
    """What one file brings to one expert."""

    file: str
    expert: Role
    used_bytes: int
    """Of the tensors that this expert uses."""
    file_bytes: int
    """Of all of the file's tensors: what is read to get at them."""
    works: tuple[LoraWork, ...] = ()
    """Its low-rank updates of linear layers, for the arithmetic."""


@dataclass(frozen=True, kw_only=True)
class ExpertCost:
    """What a stack brings to one expert."""

    expert: Role
    num_loras: int
    num_bytes: int
    """Held as long as the stack is applied, in the files' own precision."""
    rank_total: int
    """Largest sum of ranks beside one layer: the width of the one product that all its LoRAs share."""
    extra_flop_share: float
    """Additional operations over those of the linear layers that carry LoRAs; attention is not counted."""


@dataclass(frozen=True, kw_only=True)
class StackCost:
    """What a stack costs, before it is loaded."""

    experts: tuple[ExpertCost, ...]
    largest_file_bytes: int

    @property
    def num_bytes(self) -> int:
        """All experts together, which is what main memory holds; a card holds one expert's share at a time."""
        return sum(expert.num_bytes for expert in self.experts)

    @property
    def loading_bytes(self) -> int:
        """Most memory while it is loaded: what stays, and the largest file while its tensors are copied out."""
        return self.num_bytes + self.largest_file_bytes

    def text(self, card_gib: float | None = None) -> str:
        """Memory, work and speed in words; `card_gib` is the memory of the card, for advice."""
        if not self.experts:
            return "Nothing to load."
        lines = [
            f"{_mb(self.num_bytes)} of updates, up to {_mb(self.loading_bytes)} while loading; the model's own "
            "weights stay as they are, no copy of them is made."
        ]
        lines += [_expert_line(expert) for expert in self.experts]
        most = max(expert.num_loras for expert in self.experts)
        if found := slowdown(most):
            lines.append(
                f"{most} on one expert: {found.slowest:.0%} to {found.fastest:.0%} of the speed without LoRAs "
                f"({found.provenance})."
            )
        if card_gib is not None:
            lines.append(card_advice(card_gib, most))
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """A plain dict: bytes, shares and the expected speed with its provenance."""
        found = slowdown(max((expert.num_loras for expert in self.experts), default=0))
        return {
            "version": 1,
            "bytes": self.num_bytes,
            "loading_bytes": self.loading_bytes,
            "experts": [asdict(expert) for expert in self.experts],
            "speed": found._asdict() if found else None,
        }


def file_cost(header: LoraHeader, match: HeaderMatch, *, file: str, expert: Role) -> FileCost:
    """The cost of a file on one expert; of its tensors only those count that found a place there."""
    sizes = {key: _bytes(info) for key, info in header.tensors.items()}
    used = {key for change in match.changes for key in change.keys.values()}
    return FileCost(
        file=file,
        expert=expert,
        used_bytes=sum(sizes[key] for key in used),
        file_bytes=sum(sizes.values()),
        works=lora_works(match),
    )


def lora_works(match: HeaderMatch) -> tuple[LoraWork, ...]:
    """The work of a file's low-rank updates beside linear layers.

    Changes of norms, biases and modulations cost nothing worth counting, and full differences have no rank.
    """
    return tuple(
        LoraWork(change.target.removesuffix(".weight"), change.rank, *reversed(change.shape))
        for change in match.changes
        if change.rank is not None and len(change.shape) == 2
    )


def stack_cost(files: Sequence[FileCost]) -> StackCost:
    """The cost of a stack: every file on every expert that it goes to."""
    roles: dict[Role, None] = dict.fromkeys(file.expert for file in files)
    return StackCost(
        experts=tuple(
            _expert_cost(role, [file for file in files if file.expert == role]) for role in roles
        ),
        largest_file_bytes=max((file.file_bytes for file in files), default=0),
    )


def extra_flop_share(works: Iterable[LoraWork]) -> float:
    """Operations of low-rank updates over those of the layers they stand beside: 2 r (in + out) over 2 in out.

    A layer counts once, however many updates it carries. Exact for the linear layers; the share of a whole step is
    smaller, because attention itself costs nothing more.
    """
    works = tuple(works)
    own = {work.layer: 2 * work.inputs * work.outputs for work in works}
    extra = sum(2 * work.rank * (work.inputs + work.outputs) for work in works)
    return extra / sum(own.values()) if own else 0.0


def slowdown(num_loras: int) -> Slowdown | None:
    """Expected speed with `num_loras` LoRAs on one expert: measured where it is, else as reported; None for none."""
    known = (*MEASURED, *REPORTED)
    return next((row for row in known if row.least_loras <= num_loras <= row.most_loras), None)


def card_advice(card_gib: float, num_loras: int) -> str:
    """How many LoRAs are usual on a card of `card_gib` GiB beside a 14B expert, and what to do beyond that."""
    # A card of 24 GB reports a little less.
    usual = next(most for least, most in CARDS if card_gib + 1 >= least)
    card = f"On a card of {card_gib:.0f} GiB up to {usual} LoRAs an expert are usual, here are {num_loras}."
    if num_loras <= usual:
        return card
    return f"{card} If memory runs out: 2-3 LoRAs, 480p in place of 720p, 49 frames in place of 81, block swap."


def _expert_cost(role: Role, files: Sequence[FileCost]) -> ExpertCost:
    works = [work for file in files for work in file.works]
    ranks = Counter[str]()
    for work in works:
        ranks[work.layer] += work.rank
    return ExpertCost(
        expert=role,
        num_loras=len(files),
        num_bytes=sum(file.used_bytes for file in files),
        rank_total=max(ranks.values(), default=0),
        extra_flop_share=extra_flop_share(works),
    )


def _expert_line(cost: ExpertCost) -> str:
    loras = f"{cost.num_loras} LoRA{'s' if cost.num_loras != 1 else ''}"
    return (
        f"  {cost.expert}: {loras}, {_mb(cost.num_bytes)}, rank {cost.rank_total} together, "
        f"{cost.extra_flop_share:.1%} more operations in the linear layers"
    )


def _bytes(info: TensorInfo) -> int:
    # A dtype's word carries its bits: BF16, F8_E4M3, I64; only BOOL does not, and it has 8.
    bits = re.search(r"[0-9]+", info.dtype)
    return prod(info.shape) * int(bits[0] if bits else 8) // 8


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / MB:.0f} MB" if num_bytes >= 10 * MB else f"{num_bytes / MB:.1f} MB"
