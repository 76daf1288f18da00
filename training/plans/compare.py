"""Two plans side by side: every value that differs, why each is what it is, and what the difference does."""

from __future__ import annotations

from ..data.dataset import Counts, Dataset
from .changes import Difference, differing_values
from .material import number_of
from .plan import TrainingPlan
from .reasons import reason_for, short
from .summary import said_and_budget
from .target_words import target_words

# What more of it does; a value that is no number is told as it is.
MORE: dict[str, str] = {
    "steps": "more steps: a stronger effect, and more danger of overtraining",
    "batch": "more samples in a micro-batch: calmer steps, and more memory",
    "accumulate": "more micro-batches a step: calmer steps, and more time for each",
    "swap_every": "longer turns: fewer changes of experts, and a rounder share in short runs",
    "save_every": "fewer checkpoints to compare, and less disk",
    "shift": "a higher shift: more of the schedule for the high-noise expert, so more steps for motion and layout",
    "boundary": "a higher boundary: fewer noise levels for the high-noise expert",
    "caption_dropout": "more samples without their caption: a weaker hold of the prompt",
    "high_share": "a larger share: more steps for motion and layout, fewer for detail",
    "swap_blocks": "more blocks in RAM: less memory on the card, and more time where a step is short",
    "prune.last": "more checkpoints stay, and more disk",
    "timesteps.mean": "a higher mean: more noise within each expert's range",
    "timesteps.std": "a wider spread of the noise levels",
    "held_out": "more clips to measure on: a surer verdict, and fewer to learn from",
    "lora.rank": "a higher rank: more can be learnt, more memory, larger files",
    "lora.alpha": "a higher alpha: a larger update for the same rates",
    "lora.dropout": "more dropout: slower to memorise",
    "high.rate": "a higher rate: motion and layout are learnt faster, and overtrained faster",
    "low.rate": "a higher rate: detail is learnt faster, and overtrained faster",
    "high.bump": "a higher bump: the rates of the high-noise expert grow faster",
    "low.bump": "a higher bump: the rates of the low-noise expert grow faster",
    "high.maximum": "the rates of the high-noise expert may grow further",
    "low.maximum": "the rates of the low-noise expert may grow further",
}
OTHER: dict[str, str] = {
    "seed": "another order, other noise: the same plan otherwise",
    "optimizer.name": "another rule for the steps: rates are not comparable",
    "train": "other experts are trained",
    "lora.targets": "other layers carry the LoRA",
    "checkpoint_blocks": "on takes less memory and about a third more time",
    "order": "joint takes single steps, in the share of the high-noise expert; sequential one expert after the other",
    "phases": "another order or length of the parts of a sequential run",
    "timesteps.distribution": "other noise levels are drawn; each expert keeps its own range",
    "loss.weighting": "errors at other noise levels count more",
    "alpha_phases.alphas": "the update is scaled otherwise as the run goes on",
    "patterns": "some layers have other settings",
    "offload_activations": "on takes less memory on the card and more time",
    "rules": "the monitors judge otherwise; what is trained is the same",
    "stop_on": "other findings end the run",
    "allow_long": "on lets a run go beyond the limit of epochs",
}


def compare_plans(
    ours: TrainingPlan, theirs: TrainingPlan, shown: Counts | Dataset | None = None
) -> str:
    """Plan A against plan B in words; for a dataset, or so many clips, also the findings and the budget of both."""
    counts = shown.counts() if isinstance(shown, Dataset) else shown
    found = differing_values(ours, theirs)
    lines = [
        f"{number_of(len(found), 'value')} {'differs' if len(found) == 1 else 'differ'}."
        if found
        else "The plans are equal; only their notes may differ.",
    ]
    for difference in found:
        lines += _lines(difference, ours, theirs, counts)
    if shown is not None:
        for letter, plan in (("a", ours), ("b", theirs)):
            lines += [f"Plan {letter}:", *said_and_budget(plan, shown)]
    return "\n".join(lines)


def _lines(
    difference: Difference, ours: TrainingPlan, theirs: TrainingPlan, counts: Counts | None
) -> list[str]:
    name, a, b = difference
    lines = [f"{name}: {_told(name, a, b)} in a, {_told(name, b, a)} in b"]
    for letter, plan in (("a", ours), ("b", theirs)):
        reason = reason_for(name, plan, counts)
        lines.append(f"  {letter}: {reason.why} ({reason.evidence})")
    if effect := _effect(name, a, b):
        lines.append(f"  {effect}")
    return lines


def _effect(name: str, a: object, b: object) -> str:
    if name in MORE and _is_number(a) and _is_number(b):
        return f"{'b' if b > a else 'a'} has {MORE[name]}"  # type: ignore[operator]
    return OTHER.get(name, "")


def _told(name: str, value: object, other: object) -> str:
    """Targets in words, unless those would be the same for both."""
    if name == "lora.targets" and isinstance(value, tuple) and isinstance(other, tuple):
        words = target_words(value)
        return short(value) if words == target_words(other) else words
    return short(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
