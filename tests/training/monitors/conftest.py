"""Runs told as events, without anything being trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from types import SimpleNamespace

import pytest
from tandem_wan.training.events import StepDone
from tandem_wan.training.expert_turns import role_at
from tandem_wan.training.monitors.monitor import Monitor
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.turns import RunStopped, Turns

Curve = Callable[[int], float]


def between(*points: tuple[int, float]) -> Curve:
    """Straight lines from point to point."""

    def at(step: int) -> float:
        for (first, value), (last, following) in pairwise(points):
            if step <= last:
                return value + (following - value) * (step - first) / (last - first)
        return points[-1][1]

    return at


def motion_plan(steps: int = 3070, **changes) -> TrainingPlan:
    values = {"preset": "motion 4x", "family": "wan 2.2 A14B", "shift": 8.0, "save_every": 100}
    return TrainingPlan(steps=steps, **(values | changes))


def run_of(
    plan: TrainingPlan,
    weights: dict[str, Curve],
    rates: dict[str, Curve],
    loss: Curve | None = None,
) -> list[StepDone]:
    """Every step of a run, in the order in which the loop takes the experts."""
    loss = loss or (lambda step: 0.08)
    return [
        StepDone(
            step=step,
            steps=plan.steps,
            role=(role := role_at(plan, step - 1)),
            loss=loss(step),
            grad_norm=1.0,
            rate=rates[role](step),
            seconds=1.0,
            weight=weights[role](step),
        )
        for step in range(1, plan.steps + 1)
    ]


def the_real_run() -> tuple[TrainingPlan, list[StepDone]]:
    """A run that people judged: at step 2,400 of 3,070 high 0.005605, low 0.004710, rates 1.48e-4 and 1.10e-4; to
    step 3,000 high grew by 5.4 %, low by 7.1 %. Before 2,400 it is drawn as straight lines from a fresh LoRA, high
    noise growing faster."""
    high = between((0, 0.0035), (2400, 0.005605), (3000, 0.005605 * 1.054))
    low = between((0, 0.0035), (2400, 0.004710), (3000, 0.004710 * 1.071))
    rates = {
        "high_noise": between((0, 2e-5), (2400, 1.48e-4)),
        "low_noise": between((0, 5e-6), (2400, 1.10e-4)),
    }
    plan = motion_plan()
    return plan, run_of(plan, {"high_noise": high, "low_noise": low}, rates)


def a_healthy_run(steps: int = 2200) -> tuple[TrainingPlan, list[StepDone]]:
    """High noise leads in weight (1.7 to 1.9 times) and rate (4 times), reaches its goal and grows faster."""
    high = between((0, 0.0060), (steps // 2, 0.0085), (steps, 0.0098))
    low = between((0, 0.0035), (steps // 2, 0.0049), (steps, 0.0052))
    rates = {"high_noise": lambda step: 2e-4, "low_noise": lambda step: 5e-5}
    plan = motion_plan(steps)
    return plan, run_of(plan, {"high_noise": high, "low_noise": low}, rates)


def told_by(monitor: Monitor, events) -> list:
    """Everything that a listener hears when a run passes the monitor."""
    heard = []
    tell = monitor.between(heard.append, Turns())
    try:
        for event in events:
            tell(event)
    except RunStopped:
        heard.append("stopped")
    return heard


def as_lines(events) -> list[dict]:
    """As they are kept in `events.jsonl`."""
    return [{"event": type(event).__name__, "time": 0.0, **asdict(event)} for event in events]


@pytest.fixture(scope="session")
def replays():
    """Runs as events, and what a monitor says of them."""
    return SimpleNamespace(
        between=between,
        plan=motion_plan,
        run=run_of,
        real=the_real_run,
        healthy=a_healthy_run,
        told=told_by,
        lines=as_lines,
    )
