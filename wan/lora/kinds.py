"""Kinds of LoRAs, as data, and what follows for a stack: strengths, order, number and size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .estimate import card_advice, slowdown
from .pair_names import SIDES

if TYPE_CHECKING:
    from .pair_names import Side
    from .stack import PlacedRow

Place = Literal["base", "middle", "top"]
PLACES: tuple[Place, ...] = ("base", "middle", "top")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What people who use LoRAs of Wan found to work; habits, not measurements of ours."""

    route: Literal["auto", "both", "low"]
    """Where a file goes that says nothing of itself; auto: each file to its own expert."""
    usual: tuple[float, float]
    """Strengths that are usual."""
    possible: tuple[float, float]
    """Strengths that still make sense; beyond them there is a warning."""
    strength: float
    """Strength of a row that gives none. Where no one value is typical, it is our choice within the usual range."""
    place: Place
    """Where in the stack: the base comes first."""
    words: str


KINDS: dict[str, Kind] = {
    "speed": Kind(
        route="auto", usual=(1.0, 1.0), possible=(0.8, 1.2), strength=1.0, place="base",
        words="distilled for 4-6 steps, a file for each expert",
    ),
    "style": Kind(
        route="both", usual=(0.7, 1.0), possible=(0.5, 1.2), strength=0.85, place="middle",
        words="anime, cinematic, retro, photorealistic",
    ),
    "character": Kind(
        route="both", usual=(0.9, 1.2), possible=(0.9, 1.2), strength=1.0, place="middle",
        words="a person or a figure",
    ),
    "motion": Kind(
        route="both", usual=(0.7, 1.0), possible=(0.7, 1.0), strength=0.85, place="middle",
        words="camera, action; high noise matters most",
    ),
    "quality": Kind(
        route="low", usual=(0.3, 0.6), possible=(0.3, 0.6), strength=0.5, place="top",
        words="reward LoRAs such as HPSv2.1 and MPS",
    ),
    "domain": Kind(
        route="both", usual=(0.7, 1.0), possible=(0.7, 1.0), strength=0.85, place="middle",
        words="medical, sports, architecture, product, nature",
    ),
}  # fmt: skip

MOST_STRENGTH = 3.0
"""Sum of the strengths on one expert, speed left out, above which there is a warning. Our choice: the strongest of the
stacks that are known to work, a character at 1.1, a style at 0.8 and quality at 0.4, has 2.3."""
MB = 10**6


def stack_warnings(placed: Sequence[PlacedRow]) -> tuple[str, ...]:
    """What is unusual about the rows of a stack that are on: order, strengths, a file that comes twice."""
    used = [row for row in placed if row.files]
    return (*_order(used), *_strengths(used), *_twice(used), *_totals(used))


def stack_size(
    placed: Sequence[PlacedRow], sizes: Mapping[str, int], card_gib: float | None = None
) -> tuple[str, ...]:
    """What a stack weighs, from the sizes of its files in bytes, and whether a card of `card_gib` GiB is up to it.

    Each expert keeps its updates, about as large as their files, in memory while it runs.
    """
    files = {side: [f for row in placed for f in row.files_on(side)] for side in SIDES}
    most = max(map(len, files.values()))
    speed = slowdown(most)
    if speed is None:
        return ()
    parts = [
        f"{len(found)} on {side} noise, about {memory_mb(found, sizes):.0f} MB"
        for side, found in files.items()
    ]
    lines = [
        f"LoRAs: {'; '.join(parts)}. {most} on one expert: {speed.slowest:.0%} to {speed.fastest:.0%} of the speed "
        f"without ({speed.provenance})."
    ]
    return (*lines, card_advice(card_gib, most)) if card_gib is not None else tuple(lines)


def memory_mb(files: Iterable[str], sizes: Mapping[str, int]) -> float:
    """Size of the files together in MB of 10^6 bytes; a file that comes twice is held twice."""
    return sum(sizes[file] for file in files) / MB


def _order(placed: Sequence[PlacedRow]) -> list[str]:
    """A row of the base that comes late, or one of the top that comes early."""
    known = [row for row in placed if row.row.kind]
    warnings = []
    for at, row in enumerate(known):
        kind = KINDS[str(row.row.kind)]
        before = [PLACES.index(KINDS[str(r.row.kind)].place) for r in known[:at]]
        after = [PLACES.index(KINDS[str(r.row.kind)].place) for r in known[at + 1 :]]
        if kind.place == "base" and any(before):
            warnings.append(
                f"Row {row.number} is speed, the base of a stack: it usually comes first."
            )
        if kind.place == "top" and any(place < PLACES.index("top") for place in after):
            warnings.append(
                f"Row {row.number} is quality, the top of a stack: it usually comes last."
            )
    return warnings


def _strengths(placed: Sequence[PlacedRow]) -> list[str]:
    warnings = []
    for row in placed:
        kind = KINDS.get(row.row.kind or "")
        strengths = [row.strength(side) for side in row.files]
        odd = [s for s in strengths if kind and not kind.possible[0] <= s <= kind.possible[1]]
        if kind and odd:
            low, high = kind.usual
            usual = f"{low:g}" if low == high else f"{low:g}-{high:g}"
            warnings.append(
                f"Row {row.number}: strength {max(odd, key=abs):g} is unusual for {row.row.kind}; "
                f"{usual} is usual."
            )
    return warnings


def _twice(placed: Sequence[PlacedRow]) -> list[str]:
    seen: dict[tuple[str, Side], list[PlacedRow]] = defaultdict(list)
    for row in placed:
        for side, file in row.files.items():
            seen[file, side].append(row)
    warnings: dict[str, str] = {}
    for (file, side), rows in seen.items():
        if len(rows) > 1:
            numbers = " and ".join(str(row.number) for row in rows)
            total = sum(row.strength(side) for row in rows)
            warnings.setdefault(
                file,
                f"{file} is in rows {numbers}: their strengths add up, to {total:g} on {side} noise.",
            )
    return list(warnings.values())


def _totals(placed: Sequence[PlacedRow]) -> list[str]:
    warnings = []
    for side in SIDES:
        rows = [row for row in placed if side in row.files and row.row.kind != "speed"]
        total = sum(abs(row.strength(side)) for row in rows)
        if total > MOST_STRENGTH:
            warnings.append(
                f"The strengths on {side} noise add up to {total:g}, speed left out. Above "
                f"{MOST_STRENGTH:g} artefacts are likely: 0.5-0.8 each, or fewer LoRAs."
            )
    return warnings
