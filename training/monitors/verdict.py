"""Which checkpoint of each expert to keep, and why: a function of what the run has told."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...wan.families import Role
from ..events import StepDone
from ..plans.plan import TrainingPlan
from ..plans.presets import EFFECT, MOTION
from ..records import write_text
from .curves import Line, Measured, Points, curves_of, measured

FILE = "verdict.json"
BEST_OF_MOTION = (1800, 2000)
"""Steps at which the people who wrote the motion presets usually found the best checkpoint, of 2,200."""
OUTGREW = 1.1
"""How much faster low noise must have grown before it decides: ours."""
NOT_MEASURED = "nothing was held out, so nothing tells which is best"
UNTRAINED = "it has not been trained yet"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The checkpoint of one expert to keep. Where they were measured: `loss` is its held-out loss, `gap` how far that
    lies above the loss on clips that are trained on, as a share of it, and `gap_before` the same without the LoRA."""

    step: int
    why: str
    loss: float | None = None
    gap: float | None = None
    gap_before: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run says of itself after `step` steps."""

    step: int
    keep: Mapping[Role, Kept]
    findings: tuple[str, ...]
    """What the monitors found, in order."""
    warning: str = ""
    """That an expert diverges, whatever is kept of it."""

    @property
    def measured(self) -> bool:
        """Does a held-out loss speak for any of the checkpoints?"""
        return any(kept.loss is not None for kept in self.keep.values())

    def steps(self) -> dict[Role, int]:
        """The step of each expert's best checkpoint."""
        return {role: kept.step for role, kept in self.keep.items()}

    def text(self) -> str:
        """A line for each expert; one for both where they are of one mind. What is wrong with the whole comes first."""
        if len({(kept.step, kept.why) for kept in self.keep.values()}) == 1:
            lines = [_sentence("", next(iter(self.keep.values())))]
        else:
            lines = [
                _sentence(f"{role.replace('_', ' ')}: ", kept) for role, kept in self.keep.items()
            ]
        return "\n".join([*filter(None, [self.warning]), *lines])

    def short(self) -> str:
        """`keep: high 150, low 100`, behind what is wrong with the whole."""
        steps = self.steps()
        names = {"high_noise": "high ", "low_noise": "low "}
        each = ", ".join(f"{names.get(role, '')}{step:,}" for role, step in steps.items())
        begin = f"{self.warning.partition(' (')[0]}; " if self.warning else ""
        return f"{begin}keep: {each}"


def verdict_of(
    plan: TrainingPlan, lines: Iterable[Line], saved: Collection[int] | None = None
) -> Verdict | None:
    """The verdict on a run by its events (lines of `events.jsonl`) among the checkpoints `saved`, those that the
    events tell of where nothing is given; None while it has none."""
    lines = list(lines)
    events = measured(lines)
    step = max((event.step for event in events if isinstance(event, StepDone)), default=0)
    if saved is None:
        saved = {line["step"] for line in lines if line.get("event") == "CheckpointSaved"}
    # What lies beyond was saved before the run went on from an earlier checkpoint.
    known = sorted(saving for saving in saved if saving <= step)
    if not known:
        return None
    curves = curves_of(events)
    keep: dict[Role, Kept] = {role: _kept(plan, role, curves, known) for role in plan.roles()}
    found = [line["text"] for line in lines if line.get("event") == "Finding" and line.get("rule")]
    wrong = [
        line["text"].partition(". ")[0]
        for line in lines
        if line.get("rule") == "diverging" and line["step"] <= step
    ]
    warning = f"{'; '.join(dict.fromkeys(wrong))}; prefer checkpoints from before" if wrong else ""
    return Verdict(step=step, keep=keep, findings=tuple(dict.fromkeys(found)), warning=warning)


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """As `verdict.json` in the run's folder: written beside and renamed."""
    values = {"version": 1, **asdict(verdict), "text": verdict.text()}
    write_text(folder / FILE, json.dumps(values, indent=2))


def forget_verdict(folder: Path) -> None:
    """Takes a verdict away that the run has overtaken."""
    (folder / FILE).unlink(missing_ok=True)


def verdict_text(folder: Path) -> str:
    """What the run in this folder has said of itself last; empty where it has said nothing."""
    try:
        return str(json.loads((folder / FILE).read_text(encoding="utf-8"))["text"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _kept(plan: TrainingPlan, role: Role, curves: Measured, saved: Sequence[int]) -> Kept:
    # Of two experts that are trained one after the other, the second begins late: until then its LoRA does nothing.
    begun = next((step for step, _ in curves.rates.get(role, [])), None)
    trained = [step for step in saved if begun is not None and step >= begun]
    if not trained:
        return Kept(step=saved[-1], why=UNTRAINED)
    return _best(plan, role, curves, trained)


def _best(plan: TrainingPlan, role: Role, curves: Measured, saved: Sequence[int]) -> Kept:
    if curves.held_out.get(role):
        by_loss = _lowest_loss(curves, role, saved)
        if by_loss is not None:
            return by_loss
    # Experts that are trained one after the other do not grow side by side.
    if plan.preset in MOTION and plan.order != "sequential":
        high, low = curves.weights.get("high_noise"), curves.weights.get("low_noise")
        outgrown = _before_low_outgrew(high, low, plan.steps, saved) if high and low else None
        return outgrown or _usual_of_motion(plan, saved)
    return Kept(step=saved[-1], why=_advice(plan))


def _lowest_loss(curves: Measured, role: Role, saved: Sequence[int]) -> Kept | None:
    losses, trained = dict(curves.held_out[role]), dict(curves.trained[role])
    of_saved = [(losses[step], step) for step in saved if step in losses]
    if not of_saved:
        return None
    loss, step = min(of_saved)
    beside = [] if 0 not in losses else [f"{losses[0]:.4f} without the LoRA"]
    # A run that was stopped ends between two measurements: the last of them speaks for it.
    last = max(step for _, step in of_saved)
    if step != last:
        figure = f"{losses[last]:.4f}"
        equal = figure == f"{loss:.4f}"
        beside.append(f"{'the same' if equal else figure} at step {last:,}")
    why = f"lowest held-out loss, {loss:.4f}" + (f" ({', '.join(beside)})" if beside else "")
    if 0 in losses and loss >= losses[0]:
        why += "; no checkpoint is better there than the model alone"
    gap, before = _gap(losses, trained, step), _gap(losses, trained, 0)
    if gap is not None and before is not None:
        why += f"; gap to trained clips {gap:+.0%} (was {before:+.0%})"
    return Kept(step=step, why=why, loss=loss, gap=gap, gap_before=before)


def _gap(held_out: Mapping[int, float], trained: Mapping[int, float], step: int) -> float | None:
    """How far the loss on held-out clips lies above that on trained ones; clips differ, so it need not begin at 0."""
    ours, theirs = held_out.get(step), trained.get(step)
    return None if ours is None or not theirs else ours / theirs - 1


def _before_low_outgrew(high: Points, low: Points, steps: int, saved: Sequence[int]) -> Kept | None:
    """The earliest checkpoint of the second half after which low noise grew faster than high: over the next tenth of
    the run, and to its end."""
    late = [step for step in saved if step >= steps / 2]
    for step in late:
        following = next((later for later in late if later - step >= steps / 10), None)
        if following is None:
            return None
        spans = ((step, following), (step, late[-1]))
        if all(_growth(low, *s) > OUTGREW * max(0.0, _growth(high, *s)) for s in spans):
            return Kept(step=step, why=_outgrown(_growth(low, *spans[1]), _growth(high, *spans[1])))
    return None


def _outgrown(low: float, high: float) -> str:
    if high <= 0:
        return "after it low noise grew, and high noise did not"
    return f"after it low noise grew {low / high:.1f} times faster than high noise"


def _growth(weights: Points, first: int, last: int) -> float:
    """Of the weight from one step of the run to another, as a share; for as many steps of its own as the expert has
    on average in that time, for the experts take turns."""
    steps = [step for step, _ in weights]
    begin, end = (max(0, bisect_right(steps, step) - 1) for step in (first, last))
    then, now = weights[begin][1], weights[end][1]
    if begin == end or then <= 0:
        return 0.0
    expected = (len(steps) - 1) / (steps[-1] - steps[0]) * (last - first)
    return (now / then - 1) * expected / (end - begin)


def _not_measured(plan: TrainingPlan) -> str:
    return "no checkpoint was measured on the clips held out" if plan.held_out else NOT_MEASURED


def _usual_of_motion(plan: TrainingPlan, saved: Sequence[int]) -> Kept:
    first, last = BEST_OF_MOTION
    usual = [step for step in saved if first <= step <= last]
    step = usual[-1] if usual else saved[-1]
    words = f"runs of motion were usually best at {first:,}-{last:,}; {_not_measured(plan)}"
    return Kept(step=step, why=words)


def _advice(plan: TrainingPlan) -> str:
    if plan.preset == EFFECT:
        return f"an effect is strong at epoch 15 and done at 20; earlier is weaker; {_not_measured(plan)}"
    return f"it is the last, and {_not_measured(plan)}; compare the earlier ones"


def _sentence(who: str, kept: Kept) -> str:
    return f"{who}keep step {kept.step:,}: {kept.why}"
