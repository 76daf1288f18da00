"""What a person chooses of radial attention, as presets, and how it is scaled to small videos."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .errors import SettingsError
from .grid import TokenGrid
from .layout import Layout
from .plan import TILE, radial_plan
from .reference_layout import reference_layout
from .rule import SINKS, RadialRule, Sink
from .windows import parse_windows

REAL_FRAME = 1560
"""Tokens of a frame at 832 x 480: from here on floor, decimation and tile are those of the published rule."""
FLOOR = DECIMATION = 128
REFERENCE_BLOCK = 128
LEAST_TILE = 4
ROWS = 256
"""Queries of a tile at real sizes, which see keys in tiles of 64: with fewer rows PyTorch's attention wastes half of
its time on a CPU, and launches more than it computes on a GPU."""


@dataclass(frozen=True, kw_only=True)
class RadialSettings:
    """`floor`, `decimation` and `tile` at 0 are scaled to the tokens of a frame."""

    decay: float = 0.2
    dense_layers: str = "0-1"
    """Blocks that see everything: `0-1,-1` is the first two and the last one; empty is none."""
    dense_steps: int = 2
    """First steps of the whole schedule that see everything."""
    dense_share: float = 0.0
    """The same as a share of the schedule's steps; the larger of both counts."""
    last_dense_steps: int = 0
    dense_window: str = ""
    """The same by noise instead of steps, such as `0-25%` of the schedule or `sigma 1-0.9`; empty counts the steps."""
    sink: Sink = "first"
    floor: int = 0
    decimation: int = 0
    tile: int = 0
    reference: bool = False
    """The published code's layout, which loses pairs of the rule."""

    def __post_init__(self) -> None:
        for name, least in (("dense_steps", 0), ("last_dense_steps", 0), ("floor", 0)):
            _require(getattr(self, name) >= least, name, getattr(self, name), "0 or more")
        for name in ("decimation", "tile"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(0 < self.decay <= 100, "decay", self.decay, "above 0; 0.2 to 1 is usual")
        _require(self.sink in SINKS, "sink", self.sink, ", ".join(SINKS))
        _require(0 <= self.dense_share <= 1, "dense_share", self.dense_share, "0 to 1")
        parse_layers(self.dense_layers)
        parse_windows(self.dense_window)

    def dense_first(self, steps: int) -> int:
        """How many of the first `steps` steps see everything."""
        return min(steps, max(self.dense_steps, round(self.dense_share * steps)))

    def dense_text(self) -> str:
        """What sees everything, as a person reads it: `the first 2 steps and blocks 0-1 dense`."""
        parts = []
        if self.dense_window:
            parts.append(self.dense_window)
        elif self.dense_share:
            least = f" ({self.dense_steps} or more)" if self.dense_steps else ""
            parts.append(f"the first {self.dense_share:.0%} of the steps{least}")
        elif self.dense_steps:
            parts.append(
                "the first step" if self.dense_steps == 1 else f"the first {self.dense_steps} steps"
            )
        if self.last_dense_steps and not self.dense_window:
            last = self.last_dense_steps
            parts.append("the last step" if last == 1 else f"the last {last} steps")
        if self.dense_layers:
            one = self.dense_layers.strip().isdigit()
            parts.append(f"block{'' if one else 's'} {self.dense_layers}")
        return f"{' and '.join(parts) or 'nothing'} dense"

    def describe(self) -> str:
        """The settings in a line."""
        kind = "the published layout, " if self.reference else ""
        sink = "" if self.sink == "first" else f", frames seen by all: {self.sink}"
        return f"{kind}decay {self.decay:g}, {self.dense_text()}{sink}"

    def layout(self, grid: TokenGrid, tile: int = 0) -> Layout:
        """The block layout of a grid; `tile` where nothing else was chosen."""
        rule = self.rule(grid.frame)
        if self.reference:
            return reference_layout(grid, rule, self.tile or REFERENCE_BLOCK)
        if chosen := self.tile or tile:
            return radial_plan(grid, rule, chosen)
        keys = scaled_tile(grid.frame)
        return radial_plan(grid, rule, ROWS if keys == TILE else keys, keys)

    def rule(self, frame: int) -> RadialRule:
        """For frames of so many tokens."""
        share = min(1.0, frame / REAL_FRAME)
        return RadialRule(
            decay=self.decay,
            floor=self.floor or max(1, round(FLOOR * share)),
            decimation=self.decimation or max(1, round(DECIMATION * share)),
            sink=self.sink,
        )


def scaled_tile(frame: int) -> int:
    """A power of two: 64 at real sizes, and as large a part of smaller frames, but never under 4."""
    wanted = min(TILE, TILE * frame / REAL_FRAME * 2)
    return max(LEAST_TILE, 2 ** int(max(1.0, wanted)).bit_length() // 2)


_LAYERS = re.compile(r"\s*(-?\d+)\s*(?:-\s*(-?\d+)\s*)?")


def parse_layers(text: str) -> tuple[tuple[int, int], ...]:
    """First and last of each part of a list such as `0-1,5,-1`; numbers below 0 count from the end."""
    parts = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        match = _LAYERS.fullmatch(part)
        if match is None:
            raise SettingsError(f"dense_layers has {part!r}; it is a list such as 0-1,-1")
        first = int(match[1])
        parts.append((first, first if match[2] is None else int(match[2])))
    return tuple(parts)


def layer_numbers(text: str, layers: int) -> frozenset[int]:
    """The blocks of a network of `layers` that a list names; raises `SettingsError` for one that is not there."""
    chosen: set[int] = set()
    for first, last in parse_layers(text):
        begin, end = (n + layers if n < 0 else n for n in (first, last))
        if not 0 <= begin <= end < layers:
            raise SettingsError(
                f"dense_layers names {first}{'' if first == last else f'-{last}'}; the network has {layers} blocks, "
                f"0 to {layers - 1}, or -1 for the last"
            )
        chosen |= set(range(begin, end + 1))
    return frozenset(chosen)


def _require(holds: bool, name: str, value: object, can_be: str) -> None:
    if not holds:
        raise SettingsError(f"{name} is {value}; it can be {can_be}")


def any_sparse(settings: RadialSettings, layers: int, steps: Iterable[int], total: int) -> bool:
    """Whether any block of any of these steps (from 0, of `total`) is sparse under the settings, where the dense steps
    are counted and no window is set."""
    first, last = settings.dense_first(total), total - settings.last_dense_steps
    return any_sparse_layer(settings, layers) and any(first <= step < last for step in steps)


def any_sparse_layer(settings: RadialSettings, layers: int) -> bool:
    """Whether any block of a network of `layers` is sparse."""
    return len(layer_numbers(settings.dense_layers, layers)) < layers


BALANCED = "balanced"
PRESETS: dict[str, RadialSettings] = {
    BALANCED: RadialSettings(),
    "quality": RadialSettings(decay=0.8, dense_share=0.25, last_dense_steps=1),
    "fast": RadialSettings(dense_layers="0", dense_steps=1),
    "paper": RadialSettings(dense_layers="0", dense_share=0.24),
    "length extension": RadialSettings(),
    "reference parity": RadialSettings(dense_layers="0", dense_share=0.24, reference=True),
}
"""paper: 12 of 50 steps and one layer, as published for Wan 2.1 at its own length. length extension: two and two."""


def chosen_settings(
    preset: str,
    *,
    decay: float = 0.0,
    dense_layers: str = "",
    dense_steps: int = -1,
    last_dense_steps: int = -1,
    dense_window: str = "",
    tile: int = 0,
    sink: str = "",
) -> RadialSettings:
    """A preset with what a person has set: a decay other than 0, layers that are not empty, steps from 0 on, a window,
    a tile, a sink. `none` is no dense layer. Raises KeyError for another preset, `SettingsError` for impossible values.
    """
    changes: dict[str, object] = {}
    if decay:
        changes["decay"] = decay
    if layers := dense_layers.strip():
        changes["dense_layers"] = "" if layers == "none" else layers
    if dense_steps >= 0:
        changes |= {"dense_steps": dense_steps, "dense_share": 0.0}
    if last_dense_steps >= 0:
        changes["last_dense_steps"] = last_dense_steps
    for name, value in (("dense_window", dense_window.strip()), ("tile", tile), ("sink", sink)):
        if value:
            changes[name] = value
    return replace(PRESETS[preset], **changes)  # type: ignore[arg-type] - by their names
