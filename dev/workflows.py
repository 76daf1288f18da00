"""`python dev workflows`: writes the shipped workflows, in both forms, from one description each."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import stack_workflows as stacks
from .canvas import canvas_form
from .check_workflows import check_my_dataset
from .columns import READING, REPORTS_PX, Columns, Sampling
from .families import MINI, PUBLIC, TINY, Family
from .graphs import Graph
from .node_spec import NodeSpec
from .radial_workflow import long_video, toy_long_video
from .server import HostServer, prepare_base
from .workflow_notes import BACKGROUND_NOTE, TRAIN_NOTE

ROOT = Path(__file__).absolute().parents[1]
TEST_GRAPH = ROOT / "tests" / "data" / "train_and_sample.json"


def workflows() -> dict[str, Graph]:
    """The shipped workflows by name; those of the miniature run on any laptop, the others take public files or none."""
    return {
        "train_and_sample": train_and_sample(MINI),
        "train_and_sample_wan2.2_14B": train_and_sample(PUBLIC),
        "train_in_background": train_in_background(MINI),
        "train_in_background_wan2.2_14B": train_in_background(PUBLIC),
        "image_to_video": stacks.image_to_video(PUBLIC),
        "image_to_video_wan2.1": stacks.image_to_video_wan21(),
        "stack_of_loras": stacks.stack_of_loras(MINI),
        "strength_schedule": stacks.strength_schedule(MINI),
        "scenes": stacks.scenes(MINI),
        "check_my_dataset": check_my_dataset(PUBLIC),
        "long_video": long_video(PUBLIC),
        "long_video_miniature": toy_long_video(MINI),
    }


def train_and_sample(family: Family) -> Graph:
    """Dataset to LoRA pair to a clip before and a clip after, in one queued graph."""
    columns = Columns(family)
    loaded = columns.models()
    columns.graph.note(TRAIN_NOTE.format(advice=family.advice, name=family.name), 310)
    captions, plan = columns.dataset()
    trainer, applied = columns.training(loaded, captions, plan, mode="wait")
    start = columns.conditioning("4. What to make", loaded)
    before = Sampling(loaded.high, loaded.low, family.steps, family.cfg)
    columns.clip("5. Before: without LoRA", "before", before, start, loaded.vae)
    after = before._replace(high=applied["model_high"], low=applied["model_low"])
    sampler = columns.clip("6. After: same seed", "after", after, start, loaded.vae)
    columns.graph.column("7. Reports", READING, REPORTS_PX)
    columns.report("What the run says", trainer["status"], 200)
    columns.report("Load report", applied["report"], 110)
    columns.report("The switch", sampler["report"], 20)
    return columns.graph


def train_in_background(family: Family) -> Graph:
    """A run that goes on by itself, and a clip with its newest checkpoint whenever the graph is queued."""
    columns = Columns(replace(family, name=f"{family.name}_background"))
    loaded = columns.models()
    note = BACKGROUND_NOTE.format(advice=family.advice)
    columns.graph.note(note, 330)
    captions, plan = columns.dataset()
    trainer, applied = columns.training(
        loaded, captions, plan, mode="background", unfinished="latest"
    )
    start = columns.conditioning("4. What to make", loaded)
    sampling = Sampling(applied["model_high"], applied["model_low"], family.steps, family.cfg)
    columns.clip("5. With the newest checkpoint", "newest", sampling, start, loaded.vae)
    columns.graph.column("6. Reports", READING, REPORTS_PX)
    columns.report("What the run says", trainer["status"], 200)
    columns.report("Load report", applied["report"], 110)
    return columns.graph


def main(argv: Sequence[str]) -> int:
    """Asks a running host for the nodes' inputs, then writes workflows/."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        base = prepare_base(Path(folder), ROOT)
        with HostServer(base, nodes=("TandemTrainer",)) as server, server.client() as client:
            write_all(client.object_info(), ROOT / "workflows")
    return 0


def write_all(info: Mapping[str, Any], folder: Path) -> None:
    """`NAME.json` for the browser and `api/NAME.json` for the queue, for every shipped workflow."""
    specs = {name: NodeSpec(entry) for name, entry in info.items()}
    (folder / "api").mkdir(parents=True, exist_ok=True)
    for name, graph in workflows().items():
        _write(folder / f"{name}.json", canvas_form(graph, specs))
        _write(folder / "api" / f"{name}.json", graph.api(specs))
    # The tests' own: random weights, which load in no time, and captions from a template.
    _write(TEST_GRAPH, train_and_sample(TINY).api(specs))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
