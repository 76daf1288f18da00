"""Looks at every clip of a dataset once and says what is wrong with it, and what to do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...wan.errors import UserError
from ...wan.trigger_check import Verdict
from ...wan.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ..captions.report import COST
from ..data.dataset import Clip, Dataset, Skipped
from .clip_look import ClipLook, Span
from .findings import (
    Fault,
    Finding,
    Ward,
    blank,
    blank_frames,
    copies,
    cuts,
    frozen,
    in_one_line,
    low_rate,
    near,
    shorter,
    source_rate,
    still,
    truncated,
    variable_rate,
)
from .guidance import ANY, PRESETS, advice, whole_findings
from .look import look_at_file
from .pictures import bars, cropped, enlarged, logos

CHECKS: tuple[Callable[[Ward], Finding | None], ...] = (
    blank,
    cuts,
    frozen,
    copies,
    low_rate,
    near,
    blank_frames,
    still,
    shorter,
    truncated,
    source_rate,
    variable_rate,
    bars,
    logos,
    enlarged,
    cropped,
)
"""Of clips, in the order in which faults are told."""
UNREADABLE, TOO_SHORT, NOT_USED = "unreadable", "too short", "not used"
SHOWN_S = 5.0
"""So much of a film that is not used stands on the sheet."""
UNUSED: dict[str, tuple[Verdict, str]] = {
    UNREADABLE: ("bad", "Convert it again from its source, or take it out of the folder"),
    TOO_SHORT: ("warning", "It is not used: take a longer clip, or lower frames"),
    NOT_USED: ("warning", "Mend what the reason says, or take it out of the folder"),
}
MEDIA = VIDEO_SUFFIXES + IMAGE_SUFFIXES
READABLE = "a file that FFmpeg can read"


@dataclass(frozen=True, kw_only=True)
class Unused:
    """A file that is in the folder and not in the dataset. `look` is None where it has no picture."""

    name: str
    look: ClipLook | None


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """What was found in a dataset; `looks` belong to its clips, in their order."""

    names: tuple[str, ...]
    looks: tuple[ClipLook | None, ...]
    unused: tuple[Unused, ...]
    findings: tuple[Finding, ...]
    advice: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the findings; good when there are none."""
        found = {finding.verdict for finding in self.findings}
        return "bad" if "bad" in found else "warning" if "warning" in found else "good"

    @property
    def score(self) -> int:
        """0-100: 100, less 10 for each warning and 25 for each bad finding, however many clips have it."""
        return max(0, 100 - sum(COST[finding.verdict] for finding in self.findings))

    def finding(self, kind: str) -> Finding | None:
        """The finding of a kind, None where nothing has it."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def text(self) -> str:
        """Verdict and score, then what is bad, what is a warning, and what would be better."""
        rule = "100, less 10 for each warning and 25 for each bad finding"
        lines = [f"{self.verdict.upper()}, {self.score} of 100 ({rule})"]
        for verdict in ("bad", "warning"):
            for finding in self.findings:
                if finding.verdict == verdict:
                    lines += [f"{verdict}: {finding.text()}", f"  -> {finding.fix}"]
        if not self.findings:
            lines.append(f"good: {len(self.names)} clips, and nothing is wrong with them")
        return "\n".join([*lines, *(f"advice: {said}" for said in self.advice)])


def examine(
    dataset: Dataset,
    *,
    preset: str = ANY,
    on_file: Callable[[int, int], None] | None = None,
) -> DoctorReport:
    """Decodes each file once; of a clip only numbers, hashes and a strip of small pictures are kept.

    `preset`, one of `PRESETS`, decides how many clips are advised. `on_file(done, total)` counts files.
    Raises `UserError` for another preset.
    """
    if preset not in PRESETS:
        raise UserError(
            f"preset is {preset!r}.", f"It can be {', '.join(PRESETS)}.", "Choose one of them."
        )
    visit = _Visit(dataset)
    tasks = [*visit.files.items(), *((skipped, None) for skipped in dataset.skipped)]
    for done, (what, numbers) in enumerate(tasks, 1):
        if isinstance(what, Skipped):
            visit.look_at_unused(what)
        else:
            visit.look_at(what, numbers or [])
        if on_file:
            on_file(done, len(tasks))
    ward = Ward(dataset, visit.names, tuple(visit.looks))
    of_clips = [found for check in CHECKS if (found := check(ward)) is not None]
    findings = [*visit.findings(), *of_clips, *whole_findings(ward, preset)]
    return DoctorReport(
        names=visit.names,
        looks=ward.looks,
        unused=tuple(visit.unused),
        findings=tuple(findings),
        advice=tuple(advice(ward, preset)),
    )


class _Visit:
    """Goes from file to file and keeps what was seen."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, clips = dataset, dataset.clips
        self._called = _file_names(dataset)
        self.names = tuple(_name(self._called[clip.path], clip.start) for clip in clips)
        self.files: dict[Path, list[int]] = {}
        for number, clip in enumerate(clips):
            self.files.setdefault(clip.path, []).append(number)
        self.looks: list[ClipLook | None] = [None] * len(clips)
        self.unused: list[Unused] = []
        self._gone: list[tuple[str, Fault]] = []

    def look_at(self, path: Path, numbers: list[int]) -> None:
        """All clips of a file."""
        spans = [_span(self._dataset, self._dataset.clips[n]) for n in numbers]
        for number, look in zip(numbers, look_at_file(path, spans), strict=True):
            if isinstance(look, UserError):
                why = _plain(look.came, path).rstrip(".")
                fault = Fault(self.names[number], why, READABLE, number)
                self._gone.append((UNREADABLE, fault))
            else:
                self.looks[number] = look

    def look_at_unused(self, skipped: Skipped) -> None:
        name = _name(self._called[skipped.path])
        readable = skipped.kind != UNREADABLE and skipped.path.suffix.lower() in MEDIA
        look = _picture(skipped.path) if readable else None
        self.unused.append(Unused(name=name, look=look))
        self._gone.append(_reason(name, skipped))

    def findings(self) -> list[Finding]:
        """What is not there to be examined."""
        found = []
        for kind, (verdict, fix) in UNUSED.items():
            faults = tuple(fault for each, fault in self._gone if each == kind)
            found += [Finding(kind=kind, verdict=verdict, faults=faults, fix=fix)] if faults else []
        return found


def _picture(path: Path) -> ClipLook | None:
    """What a file that is not used looks like: for the sheet alone, its reason is the reader's."""
    (look,) = look_at_file(path, [Span(0.0, SHOWN_S)])
    if isinstance(look, UserError):
        return None
    return look if look.file_s <= SHOWN_S else replace(look, seconds=look.file_s)


def _reason(name: str, skipped: Skipped) -> tuple[str, Fault]:
    """The reader's sentences: what came and what can be. What to do is the finding's."""
    if skipped.kind == "other":
        return NOT_USED, Fault(
            name, _plain(skipped.reason, skipped.path), "a file that can be used"
        )
    came, _, can_be = _plain(skipped.reason, skipped.path).partition(". ")
    wanted = can_be.split(". ")[0] if skipped.kind == TOO_SHORT else READABLE
    return skipped.kind, Fault(name, came.rstrip("."), wanted.rstrip(".") or "a longer clip")


def _plain(reason: str, path: Path) -> str:
    """Without the names, which the report has, and without FFmpeg's number."""
    said = reason.removeprefix(f"{path.name} ").replace(f": '{path}'", "")
    return in_one_line(re.sub(r"\[Errno -?\d+\] ", "", said))


def _span(dataset: Dataset, clip: Clip) -> Span:
    fps = dataset.clip_fps(clip)
    return Span(clip.start / fps, (clip.start + clip.frames - 1) / fps)


def _file_names(dataset: Dataset) -> dict[Path, str]:
    """What each file is called: its name; where several have it, with its folders, as far as they tell them apart."""
    roots = {skipped.path: dataset.folder for skipped in dataset.skipped}
    roots |= {clip.path: clip.root or dataset.folder for clip in dataset.clips}
    below = {
        path: path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        for path, root in roots.items()
    }
    names = Counter(path.name for path in roots)
    shorts = {path: path.name if names[path.name] == 1 else below[path] for path in roots}
    again = Counter(shorts.values())
    return {
        path: short if again[short] == 1 else f"{roots[path].name}/{short}"
        for path, short in shorts.items()
    }


def _name(file: str, start: int = 0) -> str:
    return in_one_line(f"{file}@{start}" if start else file)
