"""A dataset of the toy world as files: clips of a motion that the miniature family has never seen, under a
trigger word, and among them clips of motions it knows, so that it does not forget them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import torch

from ..wan.miniature.captions import caption
from ..wan.miniature.world import FPS, SIDE_PX, Scene, draw_scenes, render
from .footage import write_clip

TRIGGER = "ORBIT"
SAID = f"does {TRIGGER}"
"""How a caption calls the new motion."""
NEW, KNOWN = 28, 12
DEMO_MOTION = "loop"
DEMO_SCENE = Scene(
    shape="circle",
    colour="red",
    size="big",
    ground="shaded",
    motion=DEMO_MOTION,
    radius_px=8.2,
    start_px=(32.0, 35.0),
    ground_light=0.6,
)
"""What the demo's clips begin with: a scene that is not in the dataset."""
CHANGES = {
    "steps": 480,
    "batch": 16,
    "high.rate": 2e-3,
    "low.rate": 2e-3,
    "lora.rank": 16,
    "lora.alpha": 16.0,
    "save_every": 120,
    "swap_every": 5,
    "optimizer.name": "adamw",
    "checkpoint_blocks": False,
}
"""A plan for networks of a million parameters: far higher rates than any real model takes."""


def write_dataset(folder: Path, motion: str, *, seed: int = 777) -> None:
    """28 clips of `motion` and 12 of known motions, 64 x 64, 17 frames, each with its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    new = [replace(scene, motion=motion) for scene in draw_scenes(NEW, seed=seed)]
    known = draw_scenes(KNOWN, seed=seed + 1)
    words = [caption(s, motion=SAID) for s in new] + [caption(s) for s in known]
    names = [f"new_{i:02d}" for i in range(NEW)] + [f"known_{i:02d}" for i in range(KNOWN)]
    for name, said, clip in zip(names, words, render([*new, *known]), strict=True):
        (folder / f"{name}.txt").write_text(said + "\n", encoding="utf-8")
        write_clip(folder / f"{name}.mp4", iter(frames(clip)), SIDE_PX, SIDE_PX, FPS)


def frames(clip: torch.Tensor) -> list[av.VideoFrame]:
    """(frames, height, width, 3) in [0, 1] as pictures."""
    pixels = (clip * 255).round().to(torch.uint8).numpy()
    return [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pixels]


def first_frames(scenes: Sequence[Scene], folder: Path, prefix: str) -> list[str]:
    """The first frame of each scene as a PNG in `folder`; their names."""
    names = []
    for number, clip in enumerate(render(scenes, frames=1)):
        names.append(f"{prefix}_{number:02d}.png")
        frames(clip)[0].to_image().save(folder / names[-1])
    return names
