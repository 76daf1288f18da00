"""The pictures of the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ...dev.proof_sheet import side_by_side, trails
from ...dev.toy_clips import DEMO_SCENE, Lesson
from ...dev.toy_sampling import Lora
from ...wan.miniature.measures import obedience
from ...wan.miniature.world import Scene, render
from .figures import EXPERTS
from .judging import PATTERNS, SEED, Judge, pattern
from .loras import LOOK, MOTION, OVERTRAINED, ProofLora

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def draw(judge: Judge, folder: Path) -> None:
    """`motion.png`, `look.png`, `dial.png` and `overtraining.png` in `folder`."""
    folder.mkdir(exist_ok=True)
    for lora, name in ((MOTION, "motion"), (LOOK, "look")):
        scene = lora.lesson.shown_in(replace(DEMO_SCENE, motion="right", look="plain"))
        side_by_side(_by_expert(judge, lora, scene), folder / f"{name}.png")
    trails(
        {
            (f"scene {number}", f"{at:g}"): _cell(judge, scene, MOTION.lesson, MOTION.at(at, at))
            for number, scene in enumerate(MOTION.lesson.scenes(3, seed=SEED), 1)
            for at in STRENGTHS
        },
        folder / "dial.png",
        title="the motion LoRA by strength, all frames of a clip in one picture",
    )
    trails(
        {
            (f"scene {number}", lora.name): _cell(judge, scene, MOTION.lesson, lora.at(1, 1))
            for number, scene in enumerate(MOTION.lesson.scenes(5, seed=SEED), 1)
            for lora in (MOTION, OVERTRAINED)
        },
        folder / "overtraining.png",
        title="the same run, and one 12 times as long",
    )


def _by_expert(judge: Judge, lora: ProofLora, scene: Scene) -> list[tuple[str, torch.Tensor, str]]:
    true = render([scene])[0]
    rows = [("what the training clips do", true, _said(true, lora.lesson))]
    tried: dict[str, Lora | None] = {
        "without the LoRA": None,
        **{name: lora.at(*at) for name, at in reversed(EXPERTS.items())},
    }
    for name, applied in tried.items():
        clip = judge.one(scene, lora.lesson, applied)
        rows.append((name, clip, _said(clip, lora.lesson)))
    return rows


def _said(clip: torch.Tensor, lesson: Lesson) -> str:
    if lesson.is_look:
        return (
            f"measured: {PATTERNS[lesson.name]} {pattern(clip, lesson.name):.2f} in the second half"
        )
    found = obedience(clip, lesson.name)
    return f"measured: {found.nearest}; {found.path_error_px:.1f} px from a {lesson.name}"


def _cell(judge: Judge, scene: Scene, lesson: Lesson, lora: Lora) -> tuple[torch.Tensor, str]:
    clip = judge.one(scene, lesson, lora)
    found = obedience(clip, lesson.name)
    return clip, f"{found.nearest}, {found.path_error_px:.1f} px"
