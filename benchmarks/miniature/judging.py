"""What the shipped LoRAs do to clips that the running host makes, measured from the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

from ...dev.client import HostClient
from ...dev.toy_clips import NEW, Lesson, dataset_scenes
from ...dev.toy_sampling import Lora, sampled_clips
from ...wan.miniature.captions import caption
from ...wan.miniature.measures import (
    closeness,
    diversity,
    look_of,
    motion_magnitude,
    temporal_consistency,
    texture,
)
from ...wan.miniature.recipe.judge import Scores, new_scenes, score
from ...wan.miniature.world import HELD_OUT_MOTIONS, Scene, render

CLIPS = 21
SEED = 50_000
"""Of the scenes: none of the datasets."""
SEEDS_EACH = 6
PATTERNS = {"striped": "stripes", "outlined": "rim"}
"""What of a texture shows a look."""


class LookScore(NamedTuple):
    """Means over clips, of the second half of their frames: the first frame is given, and a look takes a while."""

    pattern: float
    """Strength of the asked pattern."""
    look: float
    """Share of frames that are taken for the asked look."""
    kind: float
    """Share whose motion is still the asked one, which a look should leave alone."""


class Character(NamedTuple):
    """What clips are like when the same scene is made with several seeds."""

    diversity: float
    """Between the seeds, root mean square of pixels in [0, 1]."""
    closeness_db: float
    """To the nearest training clip."""
    motion: float
    consistency: float


def second_half(clip: torch.Tensor) -> torch.Tensor:
    return clip[len(clip) // 2 :]


def pattern(clip: torch.Tensor, look: str) -> float:
    """Mean strength of a look's pattern over the second half of a clip."""
    return fmean(getattr(texture(frame), PATTERNS[look]) for frame in second_half(clip))


@dataclass(frozen=True)
class Judge:
    """A running host with the shipped family and LoRAs in it."""

    client: HostClient
    base: Path
    clips: int = CLIPS

    def known(self, lora: Lora | None = None) -> Scores:
        """Motions that the base knows, in their own words."""
        scenes = new_scenes(self.clips, SEED + 1)
        return score(torch.stack(self._made(scenes, lora)), scenes)[0]

    def held_out(self) -> Scores:
        """The held-out motions by their own words, which of all networks only the text encoder has met."""
        scenes = new_scenes(self.clips, SEED + 2, HELD_OUT_MOTIONS)
        return score(torch.stack(self._made(scenes, None)), scenes)[0]

    def motion(self, lesson: Lesson, lora: Lora | None = None) -> Scores:
        """New scenes, asked for a motion by its trigger."""
        scenes = lesson.scenes(self.clips, seed=SEED)
        return score(torch.stack(self._made(scenes, lora, lesson)), scenes)[0]

    def look(self, lesson: Lesson, lora: Lora | None = None) -> LookScore:
        """New scenes of known motions, asked for a look by its trigger."""
        scenes = [lesson.shown_in(scene) for scene in new_scenes(self.clips, SEED + 1)]
        made = self._made(scenes, lora, lesson)
        return LookScore(
            fmean(pattern(clip, lesson.name) for clip in made),
            fmean(look_of(frame) == lesson.name for clip in made for frame in second_half(clip)),
            score(torch.stack(made), scenes)[0].kind,
        )

    def character(self, lesson: Lesson, lora: Lora | None = None) -> Character:
        """A few new scenes with several seeds each, against the clips of the lesson's dataset."""
        trained, _ = dataset_scenes(lesson.name)
        shown = list(render(trained[:NEW]))
        scenes = lesson.scenes(max(2, self.clips // SEEDS_EACH), seed=SEED)
        groups = [self._made([scene] * SEEDS_EACH, lora, lesson) for scene in scenes]
        every = [clip for group in groups for clip in group]
        return Character(
            fmean(map(diversity, groups)),
            fmean(closeness(clip, shown) for clip in every),
            fmean(map(motion_magnitude, every)),
            fmean(map(temporal_consistency, every)),
        )

    def one(self, scene: Scene, lesson: Lesson, lora: Lora | None = None) -> torch.Tensor:
        """A single clip, for a picture."""
        return self._made([scene], lora, lesson)[0]

    def _made(
        self, scenes: Sequence[Scene], lora: Lora | None, lesson: Lesson | None = None
    ) -> list[torch.Tensor]:
        words = lesson.words if lesson else caption
        return sampled_clips(self.client, self.base, scenes, words=words, lora=lora)
