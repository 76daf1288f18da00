"""What a plan is made for, in words: clips or pictures, how often each is shown, and in which views."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..data.dataset import Counts, Dataset
from .budget import epochs_of, repeats_per_clip
from .plan import TrainingPlan
from .presets import IMAGE_STYLE
from .trained import trained_counts, trained_dataset


@dataclass(frozen=True)
class Material:
    """What a plan trains on of a dataset. Made from counts alone it knows neither pictures nor single repeats."""

    counts: Counts
    whole: Counts
    """With the clips that are held out."""
    dataset: Dataset | None = None
    """Without the clips that are held out."""

    @property
    def held_out(self) -> int:
        """Clips that teach and are held out."""
        return self.whole.clips - self.counts.clips

    def shown(self, preset: str) -> str:
        """`6 clips and 1 picture`: what teaches."""
        picture = "image" if preset == IMAGE_STYLE else "picture"
        if self.dataset is None:
            return number_of(self.counts.clips, picture if preset == IMAGE_STYLE else "clip")
        clips, pictures = self._kinds()
        words = [number_of(clips, "clip")] if clips or not pictures else []
        words += [number_of(pictures, picture)] if pictures else []
        return " and ".join(words)

    def one(self) -> str:
        """What a single one of them is called."""
        clips, pictures = self._kinds()
        return "clip" if not pictures else "clip or picture" if clips else "picture"

    def alike(self) -> bool:
        """Whether each that teaches is shown equally often, as far as is known."""
        repeats = self._repeats()
        return not repeats or max(repeats) - min(repeats) < 1e-6

    def only_pictures(self) -> bool:
        """Whether there is something to train on, and nothing of it moves."""
        clips = self.dataset.clips if self.dataset else ()
        return bool(clips) and all(clip.frames == 1 for clip in clips)

    def times(self, plan: TrainingPlan, share: float = 1.0) -> str:
        """How often each is shown in a share of the run; the mean and the range where repeats differ."""
        epochs = share * epochs_of(plan, self.counts)
        mean = f"{epochs * repeats_per_clip(self.counts):.1f} times"
        repeats = self._repeats()
        if self.alike():
            return mean
        return f"on average {mean} ({epochs * min(repeats):.3g} to {epochs * max(repeats):.3g})"

    def views(self) -> list[str]:
        """`mirrored every other time`, `up to 3 crops`: in what forms the clips are shown."""
        found = [clip.views for clip in self.dataset.clips] if self.dataset else []
        flips = any(view.flip for views in found for view in views)
        crops = max((len({view.crop for view in views}) for views in found), default=1)
        lines = ["mirrored every other time (flips)"] if flips else []
        return lines + ([f"up to {crops} crops of each in turn (crops)"] if crops > 1 else [])

    def _kinds(self) -> tuple[int, int]:
        """Clips and pictures that teach, the same part of a file counted once."""
        if self.dataset is None:
            return self.counts.clips, 0
        parts = {self.dataset.part(c): c for c in self.dataset.clips if not c.regularisation}
        pictures = sum(clip.frames == 1 for clip in parts.values())
        return len(parts) - pictures, pictures

    def _repeats(self) -> list[float]:
        """Of each that teaches: how often it is shown in an epoch."""
        shown: Counter[object] = Counter()
        for clip in self.dataset.clips if self.dataset else ():
            if not clip.regularisation:
                shown[self.dataset.part(clip)] += clip.repeats  # type: ignore[union-attr]
        return list(shown.values())


def material_of(found: Counts | Dataset, plan: TrainingPlan) -> Material:
    """What the plan trains on of a dataset, or of what is known without one."""
    if isinstance(found, Dataset):
        trained = trained_dataset(plan, found)
        return Material(trained.counts(), found.counts(), trained)
    return Material(trained_counts(plan, found), found)


def number_of(count: float, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    told = f"{count:g}" if isinstance(count, float) else str(count)
    return f"{told} {noun}{'' if count == 1 else 's'}"


def at_samples(plan: TrainingPlan) -> str:
    """What a number of steps means nothing without: `at accumulate 2`, `at batch 2, accumulate 1`."""
    batch = f"batch {plan.batch}, " if plan.batch > 1 else ""
    return f"at {batch}accumulate {plan.accumulate}"
