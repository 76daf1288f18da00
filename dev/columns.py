"""The columns of the shipped workflows: models, dataset, training, LoRAs, what to make, reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .families import Family
from .graphs import Graph, Link, Node

LOADING, LEARNING, MAKING, READING = "#3f789e", "#8A8", "#88A", "#8AA"
MODELS_PX, TRAINER_PX, USUAL_PX, SAMPLER_PX, REPORTS_PX = 382, 340, 300, 270, 314
WORDS_PX, LONG_WORDS_PX = 80, 170
"""Three lines, or all that is shown of a long text, that a node says of itself below its widgets when it runs."""
PICTURE_PX, TEXT_PREVIEW_PX, RUN_VIEW_PX = 224, 96, 140


class Loaded(NamedTuple):
    """The models, as they come from their files."""

    high: Link
    low: Link | None
    """None: one model does all."""
    vae: Link
    clip: Link


class Sampling(NamedTuple):
    high: Link
    low: Link | None
    steps: int
    cfg: float


class Columns:
    """A graph on one family; the methods add its columns and give what later ones take."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.graph = Graph()

    def models(self) -> Loaded:
        self.graph.column("1. Models", LOADING, MODELS_PX)
        title = "High-noise expert: runs first" if self.family.low else "The model"
        high = self._expert(title, self.family.high)
        low = None
        if self.family.low:
            low = self._expert("Low-noise expert: runs second", self.family.low)["MODEL"]
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
        return Loaded(high["MODEL"], low, vae["VAE"], text["clip"])

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
                room_px=LONG_WORDS_PX,
                dataset=clips["dataset"],
                templates=family.templates,
                slots=family.slots,
            )
        plan = self.graph.add(
            "TandemAutoParameters",
            "Plan of the run",
            room_px=LONG_WORDS_PX + PICTURE_PX,
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
            **low_input(loaded.low),
        )
        result = self.graph.add(
            "TandemJobResult",
            "The trained pair",
            room_px=WORDS_PX,
            job=trainer["job"],
            unfinished=unfinished,
        )
        return trainer, self._apply("Put the pair on the models", result["stack"], loaded)

    def stack(
        self,
        loaded: Loaded,
        rows: Sequence[Mapping[str, Any]],
        files: Sequence[dict[str, str]] = (),
        *,
        unmatched: str = "error",
        room_px: int = 0,
    ) -> Node:
        """Rows of LoRAs, put on the models; `files` says where they can be had."""
        self.graph.column("2. LoRAs", LOADING, USUAL_PX)
        stack = self.graph.add(
            "TandemLoraStack",
            "The stack",
            room_px=WORDS_PX + 90 + room_px,
            models=list(files),
            rows=json.dumps(rows, indent=1),
        )
        return self._apply(
            "Put the stack on the models", stack["stack"], loaded, unmatched=unmatched
        )

    def conditioning(self, title: str, loaded: Loaded, *, clip_vision: str = "") -> Node:
        """What to make, from a first frame; Wan 2.1 sees it through CLIP vision as well."""
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
            **(self._seen(image, clip_vision) if clip_vision else {}),
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
            **low_input(sampling.low),
            steps=sampling.steps,
            cfg=sampling.cfg,
            seed=7,
            shift=5.0,
            **{socket: start[socket] for socket in ("positive", "negative", "latent")},
        )
        decode = self.graph.add("VAEDecode", f"Decode {name}", samples=sampler["latent"], vae=vae)
        self.save(name, decode["IMAGE"])
        return sampler

    def _seen(self, image: Node, file: str) -> dict[str, Link]:
        model = self.graph.add(
            "CLIPVisionLoader",
            "CLIP vision",
            models=self.family.models("clip_vision", file),
            clip_name=file,
        )
        seen = self.graph.add(
            "CLIPVisionEncode",
            "The first frame, seen",
            clip_vision=model["CLIP_VISION"],
            image=image["IMAGE"],
            crop="none",
        )
        return {"clip_vision_output": seen["CLIP_VISION_OUTPUT"]}

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
            **low_input(loaded.low),
            **inputs,
        )

    def _text(self, title: str, text: str, clip: Link) -> Link:
        node = self.graph.add("CLIPTextEncode", title, room_px=30, text=text, clip=clip)
        return node["CONDITIONING"]

    def save(self, name: str, images: Link) -> None:
        """Frames as a video in the output folder."""
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


def low_input(model: Link | None) -> dict[str, Link]:
    """The input of a node for the second expert, if there is one."""
    return {} if model is None else {"model_low": model}
