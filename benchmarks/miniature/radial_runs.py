"""The clips that show what radial attention does to the miniature, made in the real host. What is done is kept: a
benchmark that was ended goes on where it was, within the training run too."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ...dev.client import HostClient
from ...dev.follow import Follower
from ...dev.testing import Graph, number_of
from ...dev.toy_sampling import clips_graph, node, read_clips
from ...radial_attention.grid import TokenGrid
from ...radial_attention.layout import Layout, density
from ...radial_attention.settings import BALANCED, RadialSettings, chosen_settings
from ...wan.lora.files import read_metadata, tandem_metadata
from ...wan.miniature.captions import caption
from ...wan.miniature.family import LORA_FOLDER, VERSION
from ...wan.miniature.recipe.judge import new_scenes
from ...wan.miniature.world import FRAMES, SIDE_PX, Scene
from ...wan.shapes import PIXELS_PER_TOKEN
from .judging import SEED
from .loras import MOTION, ProofLora
from .teaching import keep, teaching_graph

JUDGED = 21
"""Clips a row: each known motion three times."""
LONG = 33
"""Frames; the miniature has never seen more than 17."""
DENSE, SHIPPED, SPARSE = "dense", "balanced", "all sparse"
ATTENTION: dict[str, dict[str, Any]] = {
    DENSE: {},
    SHIPPED: {"preset": BALANCED},
    SPARSE: {
        "preset": BALANCED,
        "decay_factor": 0.2,
        "dense_layers": "none",
        "dense_timesteps": 0,
        "tile": 1,
    },
}
"""What attention may be: inputs of Tandem Radial Attention. In the last no block and no step is dense, and a tile is
one token, so that of frames that are not neighbours next to nothing is seen."""
RADIAL_LORA = ProofLora(name="loop_radial", lesson=MOTION.lesson)
"""The motion's dataset and plan, trained with SPARSE on both experts."""
LORAS = {"": None, "dense": MOTION, "radial": RADIAL_LORA}
"""By what a LoRA was trained with."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table: clips of the same scenes and seeds as in the others of its table."""

    sampled: str
    """One of ATTENTION."""
    trained: str = ""
    """One of LORAS; without a LoRA the clips show known motions, with one the new motion."""
    frames: int = FRAMES
    asks_new: bool = False

    @property
    def key(self) -> str:
        """Another one for everything that makes other clips."""
        of = [asdict(self), ATTENTION[self.sampled], JUDGED, SEED, VERSION]
        if self.trained == "radial":
            of.append(ATTENTION[SPARSE])
        digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:8]
        words = f"{self.trained or 'base'}-{self.sampled}-{self.frames}".replace(" ", "-")
        return f"{words}-{digest}"

    @property
    def scenes(self) -> list[Scene]:
        if self.asks_new:
            return MOTION.lesson.scenes(JUDGED, seed=SEED)
        return new_scenes(JUDGED, SEED + 1)


KNOWN = tuple(Row(sampled=name) for name in ATTENTION)
LONGER = tuple(Row(sampled=name, frames=LONG) for name in ATTENTION)
TAUGHT = tuple(
    Row(sampled=sampled, trained=trained, asks_new=True)
    for trained, sampled in (
        ("", DENSE),
        ("", SPARSE),
        ("dense", DENSE),
        ("dense", SPARSE),
        ("radial", DENSE),
        ("radial", SPARSE),
    )
)
ROWS = (*KNOWN, *TAUGHT, *LONGER)


@dataclass(frozen=True)
class Made:
    """The clips of a row, and what Tandem Radial Calls said of them; empty for dense."""

    clips: torch.Tensor
    """(clips, frames, 64, 64, 3) in [0, 1]."""
    report: str


def settings(attention: str) -> RadialSettings | None:
    """As the node reads its inputs; None is dense."""
    inputs = dict(ATTENTION[attention])
    if not inputs:
        return None
    names = {"decay_factor": "decay", "dense_timesteps": "dense_steps"}
    return chosen_settings(inputs.pop("preset"), **{names.get(k, k): v for k, v in inputs.items()})


def layout(attention: str, frames: int) -> tuple[Layout, TokenGrid]:
    """Of the miniature's clips; not for dense."""
    chosen = settings(attention)
    assert chosen is not None
    side = SIDE_PX // PIXELS_PER_TOKEN
    grid = TokenGrid((frames - 1) // 4 + 1, side, side)
    return chosen.layout(grid), grid


def row_density(row: Row) -> float:
    """Share of the pairs of tokens that a sparse call computes; 1 for dense."""
    return 1.0 if row.sampled == DENSE else density(layout(row.sampled, row.frames)[0])


def folder() -> Path:
    """Where clips and the run are kept, beside the other things that the development environment makes."""
    return Path(os.environ["TANDEM_HOME"]) / "radial"


def kept(row: Row) -> Made | None:
    """The clips of a row that was made."""
    path = folder() / "clips" / f"{row.key}.safetensors"
    if not path.is_file():
        return None
    with safe_open(str(path), "pt") as file:
        clips, report = file.get_tensor("clips"), file.metadata().get("report", "")
    return Made(clips.float() / 255, report)


def make(row: Row, client: HostClient, base: Path) -> Made:
    """Samples a row and keeps it."""
    graph = _graph(row, base)
    clips = read_clips(base, client.run(graph)["outputs"], JUDGED)
    made = Made(torch.stack(clips), _report(row, client, base))
    path = folder() / "clips" / f"{row.key}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    pixels = (made.clips * 255).round().to(torch.uint8)
    save_file({"clips": pixels}, beside, metadata={"report": made.report})
    beside.replace(path)
    return made


def _graph(row: Row, base: Path, count: int = JUDGED) -> Graph:
    """Of the first `count` scenes of a row."""
    lora = LORAS[row.trained]
    graph = clips_graph(
        base,
        row.scenes[:count],
        lora=None if lora is None else lora.at(1, 1),
        words=MOTION.lesson.words if row.asks_new else caption,
        frames=row.frames,
    )
    return with_radial(graph, ATTENTION[row.sampled])


def with_radial(graph: Graph, inputs: dict[str, Any]) -> Graph:
    """A graph whose samplers get both experts through Tandem Radial Attention; as it was where `inputs` is empty."""
    if not inputs:
        return graph
    changed = dict(graph)
    for name, part in graph.items():
        if part["class_type"] != "TandemDualSampler":
            continue
        for expert in ("high", "low"):
            source = part["inputs"][f"model_{expert}"]
            changed[f"radial_{expert}"] = node("TandemRadialAttention", model=source, **inputs)
        own = {f"model_{expert}": [f"radial_{expert}", 0] for expert in ("high", "low")}
        changed[name] = {**part, "inputs": {**part["inputs"], **own}}
    return changed


def _report(row: Row, client: HostClient, base: Path) -> str:
    """What Tandem Radial Calls says of a row that was just made: the host has its first clip and the MODELs yet, so
    nothing is sampled again, and the calls are those of all clips."""
    if row.sampled == DENSE:
        return ""
    graph = _graph(row, base, 1)
    models = {"model": ["radial_high", 0], "model_low": ["radial_low", 0]}
    graph["calls"] = node("TandemRadialCalls", latent=["sample_0", 0], **models)
    graph["told"] = node("PreviewAny", source=["calls", 1])
    outputs = client.run(graph)["outputs"]
    read_clips(base, outputs, 1)
    return outputs["told"]["text"][0]


def lora_files(base: Path) -> list[Path]:
    """Where the LoRA that is trained with radial attention lies in the host."""
    place = base / "models" / "loras" / LORA_FOLDER
    return [place / RADIAL_LORA.file(role) for role in ("high_noise", "low_noise")]


def teach(client: HostClient, base: Path) -> None:
    """Trains the motion with radial attention on both experts, or goes on with it."""
    graph = teaching_graph(base, RADIAL_LORA)
    trainer = graph[number_of(graph, "Train both experts")]["inputs"]
    for expert in ("high", "low"):
        source = trainer[f"model_{expert}"]
        graph[f"radial_{expert}"] = node("TandemRadialAttention", model=source, **ATTENTION[SPARSE])
        trainer[f"model_{expert}"] = [f"radial_{expert}", 0]
    client.run(graph, Follower(graph), timeout_s=3600)
    keep(base, RADIAL_LORA, lora_files(base)[0].parent)


def trained_with(base: Path) -> dict[str, Any]:
    """What the files of that LoRA say of the attention that they were trained with, by expert."""
    found: dict[str, Any] = {}
    for path in lora_files(base):
        facts = tandem_metadata(read_metadata(path)).get("radial")
        if isinstance(facts, dict):
            found.update(facts)
    return found


def missing(rows: Sequence[Row] = ROWS) -> list[Row]:
    return [row for row in rows if kept(row) is None]
