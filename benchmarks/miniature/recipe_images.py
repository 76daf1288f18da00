"""Image style on the miniature: pictures of a look that the text-to-video network has never drawn, and what it draws
with the LoRA, through the real host."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from ...dev.client import HostClient
from ...dev.testing import Graph, ancestors, number_of
from ...dev.toy_clips import HELD_OUT_LOOKS, TRIGGER, first_frames
from ...dev.toy_sampling import SHIFT, STEPS, model_file, node, read_clip
from ...wan.miniature.captions import caption, still_caption
from ...wan.miniature.measures import colour_of, look_of, texture
from ...wan.miniature.world import SIDE_PX, Scene, draw_scenes
from .judging import PATTERNS

SEED, DATASET_SEED = 60_000, 888
"""Of the scenes that are drawn, and of those that are trained on."""
STYLE = HELD_OUT_LOOKS[0]
JUDGED_PICTURES = 24


def styled(count: int, *, seed: int) -> list[Scene]:
    """Scenes in the new look."""
    return [replace(scene, look=STYLE) for scene in draw_scenes(count, seed=seed)]


def styled_words(scene: Scene) -> str:
    """The caption of a picture, with the trigger where the look's name would stand."""
    return caption(replace(scene, look="plain"), motion="").replace(
        scene.colour, f"{scene.colour} {TRIGGER}"
    )


def write_pictures(folder: Path, count: int) -> None:
    """The dataset: pictures with their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = styled(count, seed=DATASET_SEED)
    for scene, name in zip(scenes, first_frames(scenes, folder, "style"), strict=True):
        (folder / name).with_suffix(".txt").write_text(styled_words(scene) + "\n", encoding="utf-8")


def for_pictures(graph: Graph, folder: str) -> Graph:
    """A training graph on pictures, with the text-to-video network alone."""
    trainer = number_of(graph, "Train both experts")
    graph[number_of(graph, "Clips to learn from")]["inputs"] |= {
        "folder": folder,
        "media": "image",
        "frames": 1,
    }
    graph[number_of(graph, "High-noise expert: runs first")]["inputs"]["unet_name"] = model_file(
        "t2v"
    )
    graph[number_of(graph, "Plan of the run")]["inputs"]["family"] = "single model"
    del graph[trainer]["inputs"]["model_low"]
    return ancestors(graph, trainer)


def judged_pictures(client: HostClient, base: Path, lora: str | None) -> dict[str, float]:
    """Of new scenes, asked for the style by its trigger: the pattern's mean strength, and the shares of pictures that
    have the look and the colour; and of scenes that the network knows: the share that has the asked look."""
    new = styled(JUDGED_PICTURES, seed=SEED)
    pictures = _drawn(client, base, [styled_words(scene) for scene in new], lora)
    known = draw_scenes(JUDGED_PICTURES, seed=SEED + 1)
    plain = _drawn(client, base, [still_caption(scene) for scene in known], lora)
    return {
        "pattern": fmean(getattr(texture(picture), PATTERNS[STYLE]) for picture in pictures),
        "look": fmean(look_of(picture) == STYLE for picture in pictures),
        "colour": fmean(
            colour_of(picture[None]) == scene.colour
            for picture, scene in zip(pictures, new, strict=True)
        ),
        "known": fmean(
            look_of(picture) == scene.look for picture, scene in zip(plain, known, strict=True)
        ),
    }


def _drawn(
    client: HostClient, base: Path, words: Sequence[str], lora: str | None
) -> list[torch.Tensor]:
    """(64, 64, 3) a prompt, by the text-to-video network with a LoRA."""
    graph = {
        "t2v": node("UNETLoader", unet_name=model_file("t2v"), weight_dtype="default"),
        "vae": node("VAELoader", vae_name=model_file("vae")),
        "text": node("TandemTextEncoderLoader", text_encoder=model_file("umt5")),
        "unwanted": node("CLIPTextEncode", text="", clip=["text", 0]),
        "shifted": node("ModelSamplingSD3", model=["t2v", 0], shift=SHIFT),
        "empty": node(
            "EmptyHunyuanLatentVideo", width=SIDE_PX, height=SIDE_PX, length=1, batch_size=1
        ),
    }
    if lora:
        graph["with"] = node(
            "LoraLoaderModelOnly", model=["t2v", 0], lora_name=lora, strength_model=1.0
        )
        graph["shifted"]["inputs"]["model"] = ["with", 0]
    folder = f"toy/{uuid.uuid4().hex}"
    for number, text in enumerate(words):
        graph |= {
            f"words_{number}": node("CLIPTextEncode", text=text, clip=["text", 0]),
            f"sample_{number}": node(
                "KSampler",
                model=["shifted", 0],
                positive=[f"words_{number}", 0],
                negative=["unwanted", 0],
                latent_image=["empty", 0],
                seed=1 + number,
                steps=STEPS,
                cfg=1.0,
                sampler_name="euler",
                scheduler="simple",
                denoise=1.0,
            ),
            f"decode_{number}": node("VAEDecode", samples=[f"sample_{number}", 0], vae=["vae", 0]),
            f"save_{number}": node(
                "SaveImage",
                images=[f"decode_{number}", 0],
                filename_prefix=f"{folder}/{number:02d}",
            ),
        }
    outputs = client.run(graph)["outputs"]
    return [read_clip(base, outputs[f"save_{number}"]["images"])[0] for number in range(len(words))]
