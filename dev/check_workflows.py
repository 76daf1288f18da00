"""The shipped workflow that checks a dataset: clips, captions and plan, without any model."""

from __future__ import annotations

from .columns import (
    LEARNING,
    LONG_WORDS_PX,
    PICTURE_PX,
    READING,
    REPORTS_PX,
    TRAINER_PX,
    WORDS_PX,
)
from .families import Family
from .graphs import Graph, Link
from .workflow_notes import CHECK_NOTE

CONFIG = """\
# An example of what not to do, for diffusion-pipe. Paste your own config here.
output_dir = "/data/loras/mermaid"
dataset = "dataset.toml"
epochs = 250
micro_batch_size_per_gpu = 1
gradient_accumulation_steps = 1
save_every_n_epochs = 10

[model]
type = "wan"
ckpt_path = "/data/models/Wan2.2-I2V-A14B"
transformer_path = "/data/models/wan2.2_i2v_high_noise_14B_fp16.safetensors"

[adapter]
type = "lora"
rank = 32

[optimizer]
type = "adamw_optimi"
lr = 2e-4
"""


def check_my_dataset(family: Family) -> Graph:
    """What the doctor, the caption report and the plan say of a folder, each beside what it speaks of."""
    graph = Graph()
    graph.column("1. Your clips", LEARNING, REPORTS_PX)
    clips = graph.add(
        "TandemDataset",
        "Clips to learn from",
        room_px=LONG_WORDS_PX,
        folder=family.folder,
        trigger=family.trigger,
        frames=family.frames,
        **family.size,
    )
    graph.note(CHECK_NOTE, 520)
    graph.column("2. The clips, looked at", LEARNING, TRAINER_PX)
    doctor = graph.add(
        "TandemDatasetDoctor",
        "What spoils a LoRA",
        room_px=2 * PICTURE_PX + LONG_WORDS_PX,
        dataset=clips["dataset"],
        preset=family.preset,
    )
    graph.column("3. The captions", LEARNING, TRAINER_PX)
    there = _captions(graph, "The captions that are there", clips["dataset"])
    template = graph.add(
        "TandemCaptionTemplate",
        "Captions from a template",
        room_px=LONG_WORDS_PX,
        dataset=clips["dataset"],
        templates=family.templates,
        slots=family.slots,
        write="preview",
    )
    made = _captions(graph, "The captions from the template", template["dataset"])
    graph.column("4. The plan", LEARNING, REPORTS_PX)
    plan = graph.add(
        "TandemAutoParameters",
        "The plan of a run",
        room_px=LONG_WORDS_PX + PICTURE_PX,
        dataset=template["dataset"],
        preset=family.preset,
    )
    config = graph.add(
        "TandemImportPlan",
        "A config of another trainer",
        room_px=LONG_WORDS_PX + 80,
        text=CONFIG,
        dataset=clips["dataset"],
    )
    graph.column("5. What was found", READING, TRAINER_PX)
    _text(graph, "The files", clips["report"], 40)
    _text(graph, "The clips", doctor["report"], 160)
    _text(graph, "The captions that are there", there, 160)
    graph.column("6. What would be", READING, TRAINER_PX)
    _text(graph, "Each caption, old and new", template["captions"], 120)
    _text(graph, "The captions from the template", made, 120)
    _text(graph, "The plan", plan["summary"], 160)
    _text(graph, "The config", config["report"], 120)
    return graph


def _captions(graph: Graph, title: str, dataset: Link) -> Link:
    """A judgement of captions, with its plot on the node."""
    report = graph.add(
        "TandemCaptionReport", title, room_px=PICTURE_PX + LONG_WORDS_PX, dataset=dataset
    )
    return report["report"]


def _text(graph: Graph, title: str, text: Link, room_px: int) -> None:
    graph.add("PreviewAny", f"{title}, in words", room_px=WORDS_PX + room_px, source=text)
