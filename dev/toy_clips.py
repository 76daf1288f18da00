"""Datasets of the toy world as files: clips of what a LoRA is to teach, under a trigger word, and among them
clips that the miniature family knows, so that it does not forget them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import torch

from ..wan.miniature.captions import MOTION_WORDS, caption
from ..wan.miniature.world import (
    FPS,
    HELD_OUT_LOOKS,
    HELD_OUT_MOTIONS,
    SIDE_PX,
    Scene,
    check_word,
    draw_scenes,
    render,
)
from .footage import write_clip

TRIGGER = "ORBIT"
SAID = f"does {TRIGGER}"
"""How a caption calls a new motion."""
NEW, KNOWN = 28, 12
APART = "regularisation"
"""The folder of clips that the dataset's reader takes as regularisation."""
DATASET_SEED = 777
LESSONS = (*HELD_OUT_MOTIONS, *HELD_OUT_LOOKS)
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

Words = Callable[[Scene], str]
"""The caption of a scene."""


@dataclass(frozen=True)
class Lesson:
    """What a LoRA is to teach: a motion or a look that the transformers have never seen."""

    name: str

    def __post_init__(self) -> None:
        check_word("motion or look", self.name, LESSONS)

    @property
    def is_look(self) -> bool:
        return self.name in HELD_OUT_LOOKS

    def shown_in(self, scene: Scene) -> Scene:
        """The scene with the new motion, or turning from its plain colour into the new look."""
        if self.is_look:
            return replace(scene, look=self.name, first_look="plain")
        return replace(scene, motion=self.name)

    def words(self, scene: Scene) -> str:
        """The scene's caption, which names the lesson by the trigger alone."""
        if not self.is_look:
            return caption(scene, motion=SAID)
        plain = replace(scene, look="plain", first_look=None)
        return caption(plain, motion=f"{MOTION_WORDS[scene.motion]} and turns {TRIGGER}")

    def scenes(self, count: int, *, seed: int) -> list[Scene]:
        """Scenes that show it; with a seed that no dataset has, nothing was trained on them."""
        return [self.shown_in(scene) for scene in draw_scenes(count, seed=seed)]


def dataset_scenes(name: str, *, seed: int = DATASET_SEED) -> tuple[list[Scene], list[str]]:
    """28 scenes of a lesson and 12 of what is known, and their captions."""
    lesson = Lesson(name)
    new, known = lesson.scenes(NEW, seed=seed), draw_scenes(KNOWN, seed=seed + 1)
    return [*new, *known], [*map(lesson.words, new), *map(caption, known)]


def write_dataset(folder: Path, name: str, *, seed: int = DATASET_SEED) -> None:
    """The dataset of a lesson: 40 clips of 64 x 64, 17 frames, each with its caption; what is known is set apart as
    regularisation."""
    scenes, words = dataset_scenes(name, seed=seed)
    (folder / APART).mkdir(parents=True, exist_ok=True)
    names = [f"new_{i:02d}" for i in range(NEW)] + [f"{APART}/known_{i:02d}" for i in range(KNOWN)]
    for clip_name, said, clip in zip(names, words, render(scenes), strict=True):
        (folder / f"{clip_name}.txt").write_text(said + "\n", encoding="utf-8")
        write_clip(folder / f"{clip_name}.mp4", iter(frames(clip)), SIDE_PX, SIDE_PX, FPS)


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
