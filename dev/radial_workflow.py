"""The shipped workflows of long clips: a stack on two experts, and radial attention on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .columns import (
    LOADING,
    MODELS_PX,
    PICTURE_PX,
    READING,
    REPORTS_PX,
    WORDS_PX,
    Columns,
    Sampling,
)
from .families import LIGHTNING, Family
from .graphs import Graph, Node
from .stack_workflows import LOOP, PEOPLE
from .workflow_notes import LONG_NOTE, TOY_LONG_NOTE

FRAMES = 161
PRESET = "balanced"


def long_video(family: Family) -> Graph:
    """Ten seconds from an image: a speed pair on both experts, 4 + 4 steps, and radial attention."""
    family = replace(family, name="long_video", prompt=PEOPLE, steps=8, cfg=1.0, frames=FRAMES)
    files = family.models("loras", *LIGHTNING.values())
    note = LONG_NOTE.format(high=files[0]["url"], low=files[1]["url"])
    return _long(family, note, [{**LIGHTNING, "high": 1.0, "low": 1.0, "kind": "speed"}], files)


def toy_long_video(family: Family) -> Graph:
    """The same graph with the miniature and its motion LoRA."""
    family = replace(family, name="long_video_miniature")
    return _long(family, TOY_LONG_NOTE, [{**LOOP, "kind": "motion"}])


def _long(
    family: Family,
    note: str,
    rows: Sequence[Mapping[str, Any]],
    files: Sequence[dict[str, str]] = (),
) -> Graph:
    columns = Columns(family)
    loaded = columns.models()
    columns.graph.note(note, 330)
    applied = columns.stack(loaded, rows, files, unmatched="warn" if family.public else "error")
    high, low = _radial(columns, applied)
    start = columns.conditioning("4. What to make", loaded)
    sampling = Sampling(high["model"], low["model"], family.steps, family.cfg)
    sampler = columns.clip("5. Sample", "clip", sampling, start, loaded.vae)
    _reports(columns, applied, sampler, high, low)
    return columns.graph


def _radial(columns: Columns, applied: Node) -> tuple[Node, Node]:
    """Both experts with radial attention, and what it can gain at this size."""
    family, graph = columns.family, columns.graph
    graph.column("3. Radial attention", LOADING, MODELS_PX)
    high, low = (
        graph.add(
            "TandemRadialAttention",
            f"{name}-noise expert",
            room_px=WORDS_PX,
            model=applied[f"model_{name.lower()}"],
            preset=PRESET,
        )
        for name in ("High", "Low")
    )
    graph.add(
        "TandemRadialPlan",
        "What it can gain",
        room_px=WORDS_PX + PICTURE_PX,
        frames=family.frames,
        preset=PRESET,
        steps=family.steps,
        **family.size,
    )
    return high, low


def _reports(columns: Columns, applied: Node, sampler: Node, high: Node, low: Node) -> None:
    columns.graph.column("6. Reports", READING, REPORTS_PX)
    calls = columns.graph.add(
        "TandemRadialCalls",
        "What radial attention did",
        room_px=WORDS_PX,
        latent=sampler["latent"],
        model=high["model"],
        model_low=low["model"],
    )
    columns.report("Calls of attention", calls["report"], 200)
    columns.report("Load report", applied["report"], 110)
    columns.report("The switch", sampler["report"], 20)
