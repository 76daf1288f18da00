"""`python dev workflows`: writes the shipped workflows, in both forms, from one description each."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from .canvas import canvas_form
from .families import LIGHTNING, MINI, PUBLIC, TINY, Family
from .graphs import Graph, Link, Node
from .node_spec import NodeSpec
from .server import HostServer, prepare_base

ROOT = Path(__file__).absolute().parents[1]
TEST_GRAPH = ROOT / "tests" / "data" / "train_and_sample.json"
LOADING, LEARNING, MAKING, READING = "#3f789e", "#8A8", "#88A", "#8AA"
MODELS_PX, TRAINER_PX, USUAL_PX, SAMPLER_PX, REPORTS_PX = 382, 340, 300, 270, 314
WORDS_PX = 80
"""Three lines that a node says of itself; the browser puts them below its widgets when it runs."""
PICTURE_PX, TEXT_PREVIEW_PX, RUN_VIEW_PX = 224, 96, 140

TRAIN_NOTE = """### Train a LoRA pair, then sample with it

{advice}

The graph captions the clips, trains a LoRA for each expert on **the very models that are loaded here**, and
samples the same clip twice: without and with the pair.

- High noise runs first and decides motion and layout; low noise runs second and adds detail.
- *Cancel* stops the run and saves it; queue again and it goes on. A finished run is not trained twice.
- The pair lands in your loras folder as *{name}_high_noise* and *{name}_low_noise*.
"""
BACKGROUND_NOTE = """### Train in the background, and sample meanwhile

{advice}

Queue it once: the run begins, and the queue is free again. **Queue it again whenever you like**: the clip on the
right is sampled with the newest checkpoint. Training waits while a prompt runs and then goes on by itself;
neither changes what the other gives.

- *Pause*, *Resume* and *Stop* are on the trainer. A stopped run goes on when the graph is queued again.
- *Cancel* stops the clip that is being sampled, never the run.
- Until the first checkpoint there is nothing to sample with, and the result node says so.
"""
STACK_NOTE = """### Image to video with a stack of LoRAs

Each row of the stack names a LoRA, or a pair for both experts. The load report says what every file did; a LoRA
that matches nothing stops the graph instead of doing nothing.

The stack holds a 4-step lightning pair ([high]({high}), [low]({low}), to be put into *models/loras*). It wants 4
steps, cfg 1.0 and shift 5: the sampler takes 2 steps with each expert.
"""


def workflows() -> dict[str, Graph]:
    """The shipped workflows by name; those of the miniature run on any laptop, the others take public files."""
    return {
        "train_and_sample": train_and_sample(MINI),
        "train_and_sample_wan2.2_14B": train_and_sample(PUBLIC),
        "train_in_background": train_in_background(MINI),
        "train_in_background_wan2.2_14B": train_in_background(PUBLIC),
        "image_to_video": image_to_video(PUBLIC),
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


def image_to_video(family: Family) -> Graph:
    """A clip from an image with a stack: lightning on both experts, 2 + 2 steps."""
    prompt = "A woman turns her head and smiles, wind in her hair, the camera comes closer."
    columns = Columns(replace(family, name="image_to_video", prompt=prompt))
    loaded = columns.models()
    high, low = (model["url"] for model in family.models("loras", *LIGHTNING.values()))
    columns.graph.note(STACK_NOTE.format(high=high, low=low), 190)
    applied = columns.stack(loaded)
    start = columns.conditioning("3. What to make", loaded)
    sampling = Sampling(applied["model_high"], applied["model_low"], steps=4, cfg=1.0)
    sampler = columns.clip("4. Sample: 2 + 2 steps", "clip", sampling, start, loaded.vae)
    columns.graph.column("5. Reports", READING, REPORTS_PX)
    columns.report("Load report", applied["report"], 110)
    columns.report("The switch", sampler["report"], 20)
    return columns.graph


class Loaded(NamedTuple):
    """The models, as they come from their files."""

    high: Link
    low: Link
    vae: Link
    clip: Link


class Sampling(NamedTuple):
    high: Link
    low: Link
    steps: int
    cfg: float


class Columns:
    """A graph on one family; the methods add its columns and give what later ones take."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.graph = Graph()

    def models(self) -> Loaded:
        self.graph.column("1. Models", LOADING, MODELS_PX)
        high = self._expert("High-noise expert: runs first", self.family.high)
        low = self._expert("Low-noise expert: runs second", self.family.low)
        file = self.family.vae
        vae = self.graph.add(
            "VAELoader", "VAE", models=self.family.models("vae", file), vae_name=file
        )
        file = self.family.text_encoder
        text = self.graph.add(
            "TandemTextEncoderLoader",
            "Text encoder",
            models=self.family.models("text_encoders", file),
            text_encoder=file,
        )
        return Loaded(high["MODEL"], low["MODEL"], vae["VAE"], text["clip"])

    def dataset(self) -> tuple[Node, Node]:
        """The dataset with its captions, and the plan of the run."""
        family = self.family
        self.graph.column("2. Dataset and plan", LEARNING, USUAL_PX)
        clips = self.graph.add(
            "TandemDataset",
            "Clips to learn from",
            room_px=WORDS_PX,
            folder=family.folder,
            media="video",
            trigger=family.trigger,
            frames=family.frames,
            **family.size,
        )
        captions = clips
        if family.templates:
            captions = self.graph.add(
                "TandemCaptionTemplate",
                "Captions, all alike",
                room_px=WORDS_PX + 60,
                dataset=clips["dataset"],
                templates=family.templates,
                slots=family.slots,
            )
        plan = self.graph.add(
            "TandemAutoParameters",
            "Plan of the run",
            room_px=WORDS_PX + 40,
            dataset=captions["dataset"],
            preset=family.preset,
        )
        if family.changes:
            plan = self.graph.add(
                "TandemEditPlan",
                "The same for tiny networks",
                room_px=WORDS_PX + 120,
                plan=plan["plan"],
                changes=family.changes,
            )
        return captions, plan

    def training(
        self, loaded: Loaded, captions: Node, plan: Node, *, mode: str, unfinished: str = "wait"
    ) -> tuple[Node, Node]:
        """The trainer, and the node that puts what it trained on the models."""
        self.graph.column("3. Train, then use the pair", LEARNING, TRAINER_PX)
        trainer = self.graph.add(
            "TandemTrainer",
            "Train both experts",
            room_px=RUN_VIEW_PX + PICTURE_PX,
            plan=plan["plan"],
            dataset=captions["dataset"],
            clip=loaded.clip,
            vae=loaded.vae,
            name=self.family.name,
            mode=mode,
            model_high=loaded.high,
            model_low=loaded.low,
        )
        result = self.graph.add(
            "TandemJobResult",
            "The trained pair",
            room_px=WORDS_PX,
            job=trainer["job"],
            unfinished=unfinished,
        )
        return trainer, self._apply("Put the pair on the models", result["stack"], loaded)

    def stack(self, loaded: Loaded) -> Node:
        """A row with the lightning pair, put on the models."""
        self.graph.column("2. LoRAs", LOADING, USUAL_PX)
        row = {**LIGHTNING, "high": 1.0, "low": 1.0, "kind": "speed"}
        stack = self.graph.add(
            "TandemLoraStack",
            "The stack",
            room_px=WORDS_PX + 90,
            models=self.family.models("loras", *LIGHTNING.values()),
            rows=json.dumps([row], indent=1),
        )
        return self._apply("Put the stack on the models", stack["stack"], loaded, unmatched="warn")

    def conditioning(self, title: str, loaded: Loaded) -> Node:
        self.graph.column(title, MAKING, USUAL_PX)
        image = self.graph.add(
            "LoadImage", "First frame", room_px=PICTURE_PX, image=self.family.image
        )
        positive = self._text("What it shows", self.family.prompt, loaded.clip)
        negative = self._text("What it does not show", "blurry, still, low quality", loaded.clip)
        return self.graph.add(
            "WanImageToVideo",
            "Image to video",
            positive=positive,
            negative=negative,
            vae=loaded.vae,
            length=self.family.frames,
            start_image=image["IMAGE"],
            **self.family.size,
        )

    def clip(self, title: str, name: str, sampling: Sampling, start: Node, vae: Link) -> Node:
        """Sample, decode and save a clip; the sampler."""
        self.graph.column(title, MAKING, SAMPLER_PX)
        sampler = self.graph.add(
            "TandemDualSampler",
            f"Sample {name}",
            room_px=WORDS_PX,
            model_high=sampling.high,
            model_low=sampling.low,
            steps=sampling.steps,
            cfg=sampling.cfg,
            seed=7,
            shift=5.0,
            **{socket: start[socket] for socket in ("positive", "negative", "latent")},
        )
        decode = self.graph.add("VAEDecode", f"Decode {name}", samples=sampler["latent"], vae=vae)
        self._save(name, decode["IMAGE"])
        return sampler

    def report(self, title: str, text: Link, room_px: int) -> None:
        self.graph.add("PreviewAny", title, room_px=TEXT_PREVIEW_PX + room_px, source=text)

    def _expert(self, title: str, file: str) -> Node:
        return self.graph.add(
            "UNETLoader",
            title,
            models=self.family.models("diffusion_models", file),
            unet_name=file,
            weight_dtype="default",
        )

    def _apply(self, title: str, stack: Link, loaded: Loaded, **inputs: str) -> Node:
        return self.graph.add(
            "TandemApplyStack",
            title,
            room_px=WORDS_PX,
            stack=stack,
            model_high=loaded.high,
            model_low=loaded.low,
            **inputs,
        )

    def _text(self, title: str, text: str, clip: Link) -> Link:
        node = self.graph.add("CLIPTextEncode", title, room_px=30, text=text, clip=clip)
        return node["CONDITIONING"]

    def _save(self, name: str, images: Link) -> None:
        title = f"Frames to video, {name}"
        video = self.graph.add("CreateVideo", title, images=images, fps=16.0)
        self.graph.add(
            "SaveVideo",
            f"Save {name}",
            room_px=SAMPLER_PX * self.family.height // self.family.width,
            video=video["VIDEO"],
            filename_prefix=f"tandem/{self.family.name}_{name}",
            format="auto",
            codec="auto",
        )


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
