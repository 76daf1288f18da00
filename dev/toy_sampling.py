"""Clips of the toy world made by a running ComfyUI, as any user's script would make them, and read back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..wan.miniature.captions import caption
from ..wan.miniature.family import PREFIX
from ..wan.miniature.world import FRAMES, SIDE_PX, Scene
from .client import HostClient
from .toy_clips import Words, first_frames

STEPS, SHIFT = 16, 5.0


@dataclass(frozen=True, kw_only=True)
class Lora:
    """What is put on the pair: file names as the host lists them, and a strength for each expert."""

    high: str
    low: str
    strengths: tuple[float, float] = (1.0, 1.0)

    def row(self) -> dict[str, Any]:
        high, low = self.strengths
        return {"lora": self.high, "lora_low": self.low, "high": high, "low": low}


def sampled_clips(
    client: HostClient,
    base: Path,
    scenes: Sequence[Scene],
    *,
    lora: Lora | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    words: Words = caption,
    seed: int = 1,
) -> list[torch.Tensor]:
    """A (frames, 64, 64, 3) clip for each scene, from its first frame and what `words` says of it, with a LoRA or
    with any rows of a stack. One prompt for all; the clips have the seeds from `seed` on."""
    graph = clips_graph(base, scenes, lora=lora, rows=rows, words=words, seed=seed)
    return read_clips(base, client.run(graph)["outputs"], len(scenes))


def clips_graph(
    base: Path,
    scenes: Sequence[Scene],
    *,
    lora: Lora | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    words: Words = caption,
    seed: int = 1,
    frames: int = FRAMES,
) -> dict[str, Any]:
    """The graph of `sampled_clips`; the first frames are laid into the host's input folder."""
    stack = [lora.row()] if lora else rows
    images = first_frames(scenes, base / "input", f"scene_{seed}")
    graph = _models(stack)
    # A name of its own for every call: the host skips a save that it has made before.
    folder = f"toy/{uuid.uuid4().hex}"
    models = [["models", 0], ["models", 1]] if stack else [["high", 0], ["low", 0]]
    for number, (scene, image) in enumerate(zip(scenes, images, strict=True)):
        clip = _clip(number, words(scene), image, seed + number, models, folder)
        clip[f"start_{number}"]["inputs"]["length"] = frames
        graph |= clip
    return graph


def read_clips(base: Path, outputs: Mapping[str, Any], count: int) -> list[torch.Tensor]:
    """The clips that such a graph has made, which are taken out of the output folder."""
    return [read_clip(base, outputs[f"save_{number}"]["images"]) for number in range(count)]


def _models(rows: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    graph = {
        "high": node("UNETLoader", unet_name=model_file("i2v_high_noise"), weight_dtype="default"),
        "low": node("UNETLoader", unet_name=model_file("i2v_low_noise"), weight_dtype="default"),
        "vae": node("VAELoader", vae_name=model_file("vae")),
        "text": node("TandemTextEncoderLoader", text_encoder=model_file("umt5")),
        "unwanted": node("CLIPTextEncode", text="", clip=["text", 0]),
        "rows": node("TandemLoraStack", rows=json.dumps(rows)),
        "models": node(
            "TandemApplyStack", stack=["rows", 0], model_high=["high", 0], model_low=["low", 0]
        ),
    }
    if not rows:
        del graph["rows"], graph["models"]
    return graph


def _clip(
    number: int, words: str, image: str, seed: int, models: Sequence[list[Any]], folder: str
) -> dict[str, Any]:
    def of(name: str, output: int = 0) -> list[Any]:
        return [f"{name}_{number}", output]

    parts: Mapping[str, Any] = {
        "image": node("LoadImage", image=image),
        "words": node("CLIPTextEncode", text=words, clip=["text", 0]),
        "start": node(
            "WanImageToVideo",
            positive=of("words"),
            negative=["unwanted", 0],
            vae=["vae", 0],
            width=SIDE_PX,
            height=SIDE_PX,
            length=FRAMES,
            batch_size=1,
            start_image=of("image"),
        ),
        "sample": node(
            "TandemDualSampler",
            model_high=models[0],
            model_low=models[1],
            positive=of("start", 0),
            negative=of("start", 1),
            latent=of("start", 2),
            seed=seed,
            steps=STEPS,
            cfg=1.0,
            shift=SHIFT,
            sampler_name="euler",
            scheduler="simple",
        ),
        "decode": node("VAEDecode", samples=of("sample"), vae=["vae", 0]),
        "save": node("SaveImage", images=of("decode"), filename_prefix=f"{folder}/{number:02d}"),
    }
    return {f"{name}_{number}": node for name, node in parts.items()}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a graph for the queue."""
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def model_file(part: str) -> str:
    """A file of the miniature family, as the host lists it."""
    return f"{PREFIX}_{part}.safetensors"


def read_clip(base: Path, images: Sequence[Mapping[str, str]]) -> torch.Tensor:
    """(frames, 64, 64, 3) of the pictures that a node saved, which are taken away."""
    pictures = []
    for image in images:
        path = base / "output" / image["subfolder"] / image["filename"]
        pictures.append(np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255)
        path.unlink()
    return torch.from_numpy(np.stack(pictures))
