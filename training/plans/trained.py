"""What a run is trained on: a dataset without the clips that its plan holds out."""

from __future__ import annotations

from dataclasses import replace

from ..data.dataset import Counts, Dataset
from ..monitors.held_out import pick_held_out
from .plan import TrainingPlan


def held_out_places(plan: TrainingPlan, dataset: Dataset) -> tuple[int, ...]:
    """The clips that are not trained on: none of those for regularisation, which nobody wants learnt. Raises
    `UserError` where more would be held out than trained on."""
    teaching = [i for i, clip in enumerate(dataset.clips) if not clip.regularisation]
    files = [dataset.clips[i].digest for i in teaching]
    return tuple(teaching[i] for i in pick_held_out(files, plan.held_out, plan.seed))


def trained_dataset(plan: TrainingPlan, dataset: Dataset) -> Dataset:
    """The clips that are trained on; all of them where the plan holds out more than it may, which is refused."""
    teaching = sum(not clip.regularisation for clip in dataset.clips)
    if not 0 < plan.held_out <= teaching // 2:
        return dataset
    held = set(held_out_places(plan, dataset))
    clips = tuple(clip for i, clip in enumerate(dataset.clips) if i not in held)
    return replace(dataset, clips=clips)


def trained_counts(plan: TrainingPlan, shown: Counts | Dataset) -> Counts:
    """How much of it is trained on in an epoch; where only numbers are known, each clip held out has the mean
    repeats."""
    if isinstance(shown, Dataset):
        return trained_dataset(plan, shown).counts()
    if not 0 < plan.held_out <= shown.clips // 2:
        return shown
    clips = shown.clips - plan.held_out
    teaching = (shown.shown - shown.regularisation) * clips / shown.clips
    return Counts(clips, teaching + shown.regularisation, shown.regularisation)
