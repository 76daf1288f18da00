"""Looks at every step of a run and tells, once each, what its rules find."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from ...wan.families import Role
from ..events import Event, Finding, HeldOut, Listener, StepDone
from ..plans.plan import TrainingPlan
from ..turns import RunStopped, Turns
from .curves import measured
from .measures import Record
from .rules import Rule, rules_for


class Monitor:
    """The measures and rules of one run.

    What it knows follows from the run's steps and held-out losses alone: of a run that goes on it is built again
    from them (`past`), and what it has told before (`told`) it does not tell again.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        *,
        rules: Sequence[Rule] | None = None,
        past: Iterable[StepDone | HeldOut] = (),
        told: Collection[str] = (),
    ) -> None:
        self.record = Record(plan.steps)
        self._rules = rules_for(plan) if rules is None else rules
        self._held: dict[tuple[str, Role | None], tuple[bool, ...]] = {}
        """Which conditions of a rule held when it was looked at last."""
        self._told = set(told)
        for event in past:
            self._take(event)

    def between(self, listen: Listener, turns: Turns) -> Listener:
        """A listener that passes everything on, steps with their measures, and behind them what was found.

        It raises `RunStopped` at a finding that ends the run, and has told `turns` why.
        """

        def tell(event: Event) -> None:
            if not isinstance(event, (StepDone, HeldOut)):
                listen(event)
                return
            event, found = self._take(event)
            listen(event)
            for rule, finding in found:
                if finding.text not in self._told:
                    self._told.add(finding.text)
                    listen(finding)
                if rule.level == "stop":
                    turns.stop(finding.text)
                    raise RunStopped

        return tell

    def _take(
        self, event: StepDone | HeldOut
    ) -> tuple[StepDone | HeldOut, list[tuple[Rule, Finding]]]:
        if isinstance(event, HeldOut):
            self.record.held_out(event)
            return event, list(self._found("held out", event.step, event.role))
        event = self.record.step(event)
        return event, list(self._found("steps", event.step, None))

    def _found(self, looks_at: str, step: int, role: Role | None) -> Iterator[tuple[Rule, Finding]]:
        for rule in self._rules:
            if rule.looks_at == looks_at and self.record.share >= rule.armed_from:
                finding = self._look(rule, step, role)
                if finding is not None:
                    yield rule, finding

    def _look(self, rule: Rule, step: int, role: Role | None) -> Finding | None:
        values = [self.record.value(c.measure, role or "single") for c in rule.conditions]
        before = self._held.get((rule.name, role), (False,) * len(rule.conditions))
        parts = zip(rule.conditions, values, before, strict=True)
        now = tuple(condition.holds(value, was) for condition, value, was in parts)
        self._held[rule.name, role] = now
        together = all if rule.need_all else any
        if together(before) or not together(now):
            return None
        return Finding(
            step=step,
            kind="note" if rule.level == "log" else "warning",
            text=_text(rule, step, role, values, now),
            rule=rule.name,
        )


def monitor_of(plan: TrainingPlan, lines: Iterable[dict[str, Any]], step: int) -> Monitor:
    """The monitor of a run that goes on from `step`; `lines` are its events so far."""
    lines = list(lines)
    told = {line["text"] for line in lines if line.get("event") == "Finding" and line.get("rule")}
    return Monitor(plan, past=measured(lines, up_to=step), told=told)


def _text(
    rule: Rule,
    step: int,
    role: Role | None,
    values: Sequence[float | None],
    now: Sequence[bool],
) -> str:
    says = rule.says.format(role=(role or "").replace("_", "-"))
    parts = [
        condition.says.format(value=value)
        for condition, value, holds in zip(rule.conditions, values, now, strict=True)
        if holds and value is not None and condition.says
    ]
    return f"{says} (step {step:,}): {'; '.join(parts)}. {rule.fix}"
