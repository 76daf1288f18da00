"""What the demo's LoRA did, measured: new scenes with and without it, and checkpoints by strengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..wan.miniature.measures import obedience
from ..wan.miniature.recipe.judge import score
from ..wan.miniature.world import Scene, render
from .client import HostClient
from .proof_sheet import side_by_side, trails
from .toy_clips import CHANGES, DEMO_MOTION, DEMO_SCENE, Lesson
from .toy_sampling import Lora, sampled_clips

SCENES, STRENGTHS = 12, (0.5, 0.8, 1.0)
LESSON = Lesson(DEMO_MOTION)
SEED = 50_000
"""Of the scenes: none of the dataset."""


def prove(client: HostClient, base: Path, folder: Path) -> str:
    """Writes `comparison.png` and `strengths.png`; what was measured, in words."""
    lora = Lora(high="demo_high_noise.safetensors", low="demo_low_noise.safetensors")
    scenes = LESSON.scenes(SCENES, seed=SEED)
    without = sampled_clips(client, base, scenes, words=LESSON.words)
    taught = sampled_clips(client, base, scenes, words=LESSON.words, lora=lora)
    (first,) = sampled_clips(client, base, [DEMO_SCENE], words=LESSON.words)
    (then,) = sampled_clips(client, base, [DEMO_SCENE], words=LESSON.words, lora=lora)
    true = render([DEMO_SCENE])[0]
    rows = [
        ("what the training clips do", true, said(true)),
        ("without the LoRA", first, said(first)),
        ("with the LoRA, same first frame, words and seed", then, said(then)),
    ]
    side_by_side(rows, folder / "comparison.png")
    trails(
        _grid(client, base),
        folder / "strengths.png",
        title="all frames in one; checkpoint by strength",
    )
    return "\n".join(
        [
            f"The word for the motion was new to the models. {SCENES} new scenes, asked to {DEMO_MOTION}:",
            f"  without the LoRA: {summary(without, scenes)}",
            f"  with the LoRA:    {summary(taught, scenes)}",
        ]
    )  # fmt: skip


def said(clip: torch.Tensor) -> str:
    """The motion that a clip shows, and how far it is from the asked one."""
    found = obedience(clip, DEMO_MOTION)
    return f"measured: {found.nearest}; {found.path_error_px:.1f} px from a {DEMO_MOTION}"


def summary(clips: Sequence[torch.Tensor], scenes: Sequence[Scene]) -> str:
    scores, _ = score(torch.stack(list(clips)), scenes)
    return f"{scores.kind:.0%} do, path error {scores.path_error_px:.1f} px"


def _grid(client: HostClient, base: Path) -> dict[tuple[str, str], tuple[torch.Tensor, str]]:
    cells = {}
    every = int(CHANGES["save_every"])
    for step in range(every, int(CHANGES["steps"]) + 1, every):
        path = f"demo/step_{step:06d}/demo_{step:06d}"
        for strength in STRENGTHS:
            lora = Lora(
                high=f"{path}_high_noise.safetensors",
                low=f"{path}_low_noise.safetensors",
                strengths=(strength, strength),
            )
            (clip,) = sampled_clips(client, base, [DEMO_SCENE], words=LESSON.words, lora=lora)
            found = obedience(clip, DEMO_MOTION)
            cells[f"step {step}", f"{strength:g}"] = (
                clip,
                f"{found.nearest}, {found.path_error_px:.1f} px",
            )
    return cells
