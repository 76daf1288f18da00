"""Which tokens of two frames see each other: everything nearby in time, a narrower band the further they are apart.

The rule is that of Radial Attention (Li et al. 2025, arXiv 2506.19852, section 4) as the authors' published code has
it: width by octaves of the distance, scaled by a decay, with a floor; beyond a width whole pairs of frames are left
out at regular distances. Frame 0 is seen by all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sink = Literal["first", "first and last", "none"]
SINKS: tuple[Sink, ...] = ("first", "first and last", "none")
NEAR = 1
"""Frames at this distance or nearer see each other whole."""


@dataclass(frozen=True, kw_only=True)
class RadialRule:
    """The numbers of the rule. At real sizes (1,560 or 3,600 tokens a frame) floor and decimation are 128; for fewer
    tokens a frame both shrink with them."""

    decay: float = 0.2
    """Factor on the band's width beyond neighbouring frames, above 0; 1 is the rule without a decay."""
    floor: int = 128
    """Least half width of the band, in tokens."""
    decimation: int = 128
    """Below this width, before the decay, only some pairs of frames are kept."""
    sink: Sink = "first"
    """Frames that every token sees whole."""

    def reach(self, distance: int, tokens: int) -> int | None:
        """How far a query at one place in its frame sees to either side of that place in a frame `distance` (from 0)
        away, in tokens of the flattened frame of `tokens`; `tokens` and more is the whole frame. None: nothing of it.
        """
        if distance <= NEAR:
            return tokens
        octave = distance.bit_length()
        # The next power of two strictly above the tokens of a frame, halved once an octave.
        width = 2 ** tokens.bit_length() / 2**octave
        if width < self.decimation and distance % int(self.decimation / width):
            return None
        return min(tokens, int(max(width * self.decay, self.floor)))

    def sinks(self, frames: int) -> tuple[int, ...]:
        """The frames that every token sees whole."""
        if self.sink == "none":
            return ()
        return tuple(dict.fromkeys((0, frames - 1))) if self.sink == "first and last" else (0,)
