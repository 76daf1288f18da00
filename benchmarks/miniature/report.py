"""The report as a page: the claims, and the tables behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .claims import claims
from .figures import Figures
from .loras import LOOK, MOTION, OVERTRAINED

NAMES = {
    "none": "none",
    MOTION.name: "motion",
    LOOK.name: "look",
    OVERTRAINED.name: "motion, overtrained",
}
"""What a LoRA is called in a table."""

HEAD = """\
# What the miniature proves

Written by `make proof`. {how}
Every clip was made in ComfyUI: its loaders, `TandemTextEncoderLoader`, `TandemApplyStack`, `TandemDualSampler`, its
VAE. Scenes, captions and seeds are none of the training's. *kind*: the asked motion is the nearest of all the world's
ten. *path*: kind, and a path error under 3 px root mean square.
"""
MOTION_PART = """
## A motion (loop)
![Frames of a clip by expert](report/motion.png)
"""
DIAL_PART = """
![Clips by strength](report/dial.png)
"""
LOOK_PART = """
## A look (striped)
Clips of known motions turn from their plain colour to stripes under the trigger. *pattern*: amplitude of the stripes
over the second half of the frames. *look*: share of those frames that are taken for striped.

![Frames of a clip by expert](report/look.png)
"""
KNOWN_PART = """
## Known motions, in their own words
"""
LONG_PART = """
## Too long
The dataset and plan of the motion, 12 times as many steps. *diversity*: difference between seeds of one scene.
*closeness*: to the nearest training clip.

![The same scenes with both](report/overtraining.png)
"""


def page(found: Figures, how: str) -> str:
    """The whole report as markdown; `how` says with what and when it was made."""
    rows = [[c.what, c.goal, c.reached, "yes" if c.met else "**no**"] for c in claims(found)]
    lengths = {MOTION.name: found.motion["both"], OVERTRAINED.name: found.overtrained}
    parts = [
        HEAD.format(how=how),
        table(["claim", "goal", "reached", "met"], rows),
        MOTION_PART,
        scores("LoRA", found.motion | _between(found.dial)),
        DIAL_PART,
        LOOK_PART,
        scores("LoRA", found.look | _between(found.look_dial)),
        KNOWN_PART,
        scores("LoRA", _named(found.known)),
        LONG_PART,
        scores("LoRA, asked by the trigger", _named(lengths)),
        "\n",
        scores("LoRA, 6 seeds a scene", _named(found.character)),
    ]
    return "\n".join(part.rstrip("\n") if part.strip() else "" for part in parts) + "\n"


def scores(title: str, rows: Mapping[str, NamedTuple]) -> str:
    """A table of measures by name."""
    fields = next(iter(rows.values()))._fields
    heads = [title, *(name.replace("_", " ") for name in fields)]
    return table(heads, [[name, *map(_figure, values)] for name, values in rows.items()])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n" + "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _figure(value: float) -> str:
    return f"{value:.1f}" if value > 2 else f"{value:.3f}"


def _between(dial: Mapping[str, NamedTuple]) -> dict[str, NamedTuple]:
    return {f"both at {at}": score for at, score in dial.items() if at not in ("0", "1")}


def _named(rows: Mapping[str, NamedTuple]) -> dict[str, NamedTuple]:
    return {NAMES[name]: row for name, row in rows.items()}
