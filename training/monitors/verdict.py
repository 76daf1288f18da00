"""Which checkpoint of each expert to keep, and why: a function of what the run has told."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...wan.families import Role
from ..events import HeldOut, StepDone
from ..plans.plan import TrainingPlan
from ..plans.presets import EFFECT, MOTION
from ..records import write_text
from .curves import Line, Points, curves_of, measured

FILE = "verdict.json"
BEST_OF_MOTION = (1800, 2000)
"""Steps at which the people who wrote the motion presets usually found the best checkpoint, of 2,200."""
OUTGREW = 1.1
"""How much faster low noise must have grown before it decides: ours."""
NOT_MEASURED = "nothing was held out, so nothing tells which is best"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The checkpoint of one expert to keep. `loss` is its held-out loss, where that was measured."""

    step: int
    why: str
    loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run says of itself after `step` steps."""

    step: int
    keep: Mapping[Role, Kept]
    findings: tuple[str, ...]
    """What the monitors found, in order."""

    def text(self) -> str:
        """A line for each expert; one for both where they are of one mind."""
        if len({(kept.step, kept.why) for kept in self.keep.values()}) == 1:
            return _sentence("", next(iter(self.keep.values())))
        return "\n".join(
            _sentence(f"{role.replace('_', ' ')}: ", kept) for role, kept in self.keep.items()
        )


def verdict_of(plan: TrainingPlan, lines: Iterable[Line]) -> Verdict | None:
    """The verdict on a run by its events (lines of `events.jsonl`); None while it has no checkpoint."""
    lines = list(lines)
    events = measured(lines)
    step = max((event.step for event in events if isinstance(event, StepDone)), default=0)
    saved = sorted(
        {
            line["step"]
            for line in lines
            if line.get("event") == "CheckpointSaved" and line["step"] <= step
        }
    )
    if not saved:
        return None
    keep: dict[Role, Kept] = {role: _kept(plan, role, events, saved) for role in plan.roles()}
    found = [line["text"] for line in lines if line.get("event") == "Finding" and line.get("rule")]
    return Verdict(step=step, keep=keep, findings=tuple(dict.fromkeys(found)))


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """As `verdict.json` in the run's folder: written beside and renamed."""
    values = {"version": 1, **asdict(verdict), "text": verdict.text()}
    write_text(folder / FILE, json.dumps(values, indent=2))


def verdict_text(folder: Path) -> str:
    """What the run in this folder said of itself when it ended; empty where it has said nothing."""
    try:
        return str(json.loads((folder / FILE).read_text(encoding="utf-8"))["text"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _kept(
    plan: TrainingPlan, role: Role, events: Sequence[StepDone | HeldOut], saved: Sequence[int]
) -> Kept:
    curves = curves_of(events)
    if losses := curves.held_out.get(role):
        by_loss = _lowest_loss(losses, saved)
        if by_loss is not None:
            return by_loss
    if plan.preset in MOTION:
        high, low = curves.weights.get("high_noise"), curves.weights.get("low_noise")
        outgrown = _before_low_outgrew(high, low, plan.steps, saved) if high and low else None
        return outgrown or _usual_of_motion(saved)
    return Kept(step=saved[-1], why=_advice(plan))


def _lowest_loss(losses: Points, saved: Sequence[int]) -> Kept | None:
    of_saved = [(loss, step) for step, loss in losses if step in saved]
    if not of_saved:
        return None
    loss, step = min(of_saved)
    others = f"the lowest loss on held-out clips, {loss:.4f}"
    before = dict(losses).get(0)
    if before is not None:
        others += f" ({before:.4f} without the LoRA)"
        if loss >= before:
            others += "; no checkpoint is better there than the model alone"
    if step != saved[-1]:
        last = dict(losses).get(saved[-1])
        others += "" if last is None else f"; at step {saved[-1]:,} it is {last:.4f}"
    return Kept(step=step, why=others, loss=loss)


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


def _usual_of_motion(saved: Sequence[int]) -> Kept:
    first, last = BEST_OF_MOTION
    usual = [step for step in saved if first <= step <= last]
    step = usual[-1] if usual else saved[-1]
    words = f"runs of motion were usually best at {first:,}-{last:,}; {NOT_MEASURED}"
    return Kept(step=step, why=words)


def _advice(plan: TrainingPlan) -> str:
    if plan.preset == EFFECT:
        return f"an effect is strong at epoch 15 and done at 20; earlier is weaker; {NOT_MEASURED}"
    return f"it is the last, and {NOT_MEASURED}; compare the earlier ones"


def _sentence(who: str, kept: Kept) -> str:
    return f"{who}keep step {kept.step:,}: {kept.why}"
