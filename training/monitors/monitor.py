"""Looks at every step of a run and tells, once each, what its rules find."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
        self.record = Record(plan.steps, in_turns=plan.order != "sequential")
        self._rules = rules_for(plan) if rules is None else rules
        self._looks: dict[tuple[str, Role | None], _Look] = {}
        """How each rule stood when it was looked at last."""
        self._told = set(told)
        for event in past:
            self._take(event)

    def between(self, listen: Listener, turns: Turns) -> Listener:
        """A listener that passes everything on, steps with their measures, and behind them what was found.

        It raises `RunStopped` at a finding that ends the run, and has told `turns` why.
        """

        def tell(event: Event) -> None:
            if not isinstance(event, (StepDone, HeldOut)):
                if not self._told_before(event):
                    listen(event)
                return
            event, found = self._take(event)
            listen(event)
            for finding, _ in found:
                if not self._told_before(finding):
                    listen(finding)
            reasons = [finding.text for finding, ends in found if ends]
            if reasons:
                turns.stop(reasons[0])
                raise RunStopped

        return tell

    def _told_before(self, event: Event) -> bool:
        """Of findings with a rule: what a run finds again because it was cut off is no news."""
        if not isinstance(event, Finding) or not event.rule:
            return False
        known = event.text in self._told
        self._told.add(event.text)
        return known

    def _take(
        self, event: StepDone | HeldOut
    ) -> tuple[StepDone | HeldOut, list[tuple[Finding, bool]]]:
        """The event with its measures; what is found, and whether that ends the run."""
        if isinstance(event, HeldOut):
            self.record.held_out(event)
            return event, list(self._found("held out", event.step, event.role))
        event = self.record.step(event)
        found = [
            *self._found("steps", event.step, None),
            *self._found("own steps", event.step, event.role),
        ]
        return event, found

    def _found(self, looks_at: str, step: int, role: Role | None) -> Iterator[tuple[Finding, bool]]:
        for rule in self._rules:
            if rule.looks_at != looks_at or self.record.share < rule.armed_from:
                continue
            values = [self.record.judged(c.measure, role or "single") for c in rule.conditions]
            before = self._looks.get((rule.name, role), _Look.of(rule))
            now = before.after(rule, values)
            self._looks[rule.name, role] = now
            news = [n and not b for n, b in zip(now.told, before.told, strict=True)]
            if any(news):
                kind = "note" if rule.level == "log" else "warning"
                text = _text(rule, step, role, values, news)
                # Who goes on with a run that a rule has ended knows what it says.
                ends = rule.level == "stop" and not any(before.told)
                yield Finding(step=step, kind=kind, text=text, rule=rule.name), ends


@dataclass(frozen=True)
class _Look:
    """How a rule stands: which of its conditions hold, and which were told since the last time that none did. Where any
    is enough, each is news when it begins to hold: how far high noise leads, and that low noise catches up, are two."""

    held: tuple[bool, ...]
    told: tuple[bool, ...]

    @classmethod
    def of(cls, rule: Rule) -> _Look:
        none = (False,) * len(rule.conditions)
        return cls(none, none)

    def after(self, rule: Rule, values: Sequence[float | None]) -> _Look:
        parts = zip(rule.conditions, values, self.held, strict=True)
        held = tuple(condition.holds(value, was) for condition, value, was in parts)
        holds = all(held) if rule.need_all else any(held)
        news = held if holds else (False,) * len(held)
        told = self.told if holds else news
        return _Look(held, tuple(n or t for n, t in zip(news, told, strict=True)))


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
    news: Sequence[bool],
) -> str:
    says = rule.says.format(role=(role or "").replace("_", "-"))
    parts = [
        condition.text(value)
        for condition, value, is_new in zip(rule.conditions, values, news, strict=True)
        if is_new and value is not None and condition.says
    ]
    return f"{says} (step {step:,}): {'; '.join(parts)}. {rule.fix_for(role)}"
