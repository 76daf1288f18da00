"""How a run gets on: its curves, its pace, and a few lines that say so."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..wan.families import Role
from .events import ClipEncoded, Event, Finding, PreviewMade, StepDone, VerdictGiven
from .monitors.curves import measured
from .preview_files import previews_line
from .records import event_lines

Curves = dict[Role, list[tuple[int, float]]]
PACE_STEPS = 50
"""Steps over which the pace is averaged: both experts, and no first slow ones for long."""


class RunWatch:
    """Listens to one run. `steps` is the plan's; `curves` what it did before, up to the step it goes on from, and
    `findings` what was found in it."""

    def __init__(self, steps: int, curves: Curves, findings: Iterable[str] = ()) -> None:
        self.steps = steps
        self.curves = curves
        self.step = max((points[-1][0] for points in curves.values() if points), default=0)
        self.role: Role | None = None
        self.encoded: tuple[int, int] | None = None
        """Clips encoded, and how many there are; None before and after that."""
        self.verdict = ""
        """What the run has said of itself last: at a checkpoint, or when it ended."""
        self.findings = list(findings)
        self.previews = ""
        """Where the clips lie that were sampled so far."""
        self._encoding = ""
        self._seconds: deque[float] = deque(maxlen=PACE_STEPS)

    def __call__(self, event: Event) -> None:
        if isinstance(event, ClipEncoded):
            self.encoded = (event.done, event.total)
            self._encoding = encoding_text(event)
        elif isinstance(event, StepDone):
            self.encoded = None
            self.step, self.role = event.step, event.role
            _forget_from(self.curves, event.step)
            self.curves.setdefault(event.role, []).append((event.step, event.loss))
            self._seconds.append(event.seconds)
        elif isinstance(event, VerdictGiven):
            self.verdict = event.text
        elif isinstance(event, Finding) and event.rule:
            self.findings.append(event.text)
        elif isinstance(event, PreviewMade):
            self.previews = previews_line(Path(event.file).parent, event.step)

    def seconds_per_step(self) -> float | None:
        """Of the run's own work; None before the first step."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else None

    def seconds_left(self) -> float | None:
        """If nothing came between."""
        pace = self.seconds_per_step()
        return None if pace is None else pace * (self.steps - self.step)

    def text(self, state: str, message: str = "") -> str:
        """State, step, pace and time left; why it ended; the losses; the verdict and what was found."""
        parts = [state, f"step {self.step} of {self.steps}"]
        if self.encoded is not None:
            parts[1] = self._encoding
        pace, left = self.seconds_per_step(), self.seconds_left()
        if pace is not None and left is not None and state in ("running", "parked", "paused"):
            parts += [f"{pace:.2f} s a step", f"{clock(left)} left"]
        told = [message, loss_line(self.curves), self.verdict]
        told += [self.previews, found_line(self.findings)]
        return "\n".join(line for line in [", ".join(parts), *told] if line)


def encoding_text(event: ClipEncoded) -> str:
    """`encoding clip 3 of 40, 1:20 left`, or `40 of 40 clips from the cache`."""
    if event.cached == event.done:
        return f"{event.done} of {event.total} clips from the cache"
    text = f"encoding clip {event.done} of {event.total}"
    if event.cached:
        text += f" ({event.cached} from the cache)"
    return text if event.seconds_left is None else f"{text}, {clock(event.seconds_left)} left"


def stored_curves(folder: Path, up_to: int | None = None) -> Curves:
    """(step, loss) of every step in a run's folder, by expert. When a run went on from an earlier checkpoint,
    what came after that is forgotten: those steps were made again, or will be."""
    curves: Curves = {}
    for event in measured(event_lines(folder), up_to):
        if isinstance(event, StepDone):
            curves.setdefault(event.role, []).append((event.step, event.loss))
    return curves


def stored_findings(folder: Path) -> list[str]:
    """What the monitors have found in a run so far, in order."""
    lines = event_lines(folder)
    found = [line["text"] for line in lines if line.get("event") == "Finding" and line.get("rule")]
    return list(dict.fromkeys(found))


def found_line(findings: Iterable[str]) -> str:
    """The beginnings of findings, which are as long as a person needs them: what, and at which step."""
    short = [f"{text.partition('):')[0]})" if "):" in text else text for text in findings]
    return f"found: {'; '.join(short)}" if short else ""


def _forget_from(curves: Curves, step: int) -> None:
    """A run that goes on from an earlier checkpoint than was thought makes its steps again."""
    for points in curves.values():
        while points and points[-1][0] >= step:
            points.pop()


def mean_losses(curves: Mapping[Role, list[tuple[int, float]]]) -> dict[Role, float]:
    """Mean loss of each expert's last tenth, at least 5 steps."""
    recent: dict[Role, list[float]] = {
        role: [loss for _, loss in points[-max(5, len(points) // 10) :]]
        for role, points in curves.items()
    }
    return {role: sum(losses) / len(losses) for role, losses in recent.items() if losses}


def loss_line(curves: Mapping[Role, list[tuple[int, float]]]) -> str:
    """Both experts' losses in one line; empty before the first step."""
    names = {"high_noise": "high ", "low_noise": "low "}
    parts = [f"{names.get(role, '')}{loss:.4f}" for role, loss in mean_losses(curves).items()]
    return f"loss: {', '.join(parts)}" if parts else ""


def clock(seconds: float) -> str:
    """1:05 or 2:03:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
