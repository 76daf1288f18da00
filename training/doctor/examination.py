"""Looks at every clip of a dataset once and says what is wrong with it, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...wan.errors import UserError
from ...wan.trigger_check import Verdict
from ...wan.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ..captions.report import COST
from ..data.dataset import Clip, Dataset, Skipped
from .findings import (
    Fault,
    Finding,
    Ward,
    blank,
    blank_frames,
    copies,
    cuts,
    frozen,
    low_rate,
    near,
    shorter,
    source_rate,
    still,
    variable_rate,
)
from .guidance import ANY, PRESETS, advice, whole_findings
from .look import ClipLook, Span, look_at_file
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
    source_rate,
    variable_rate,
    bars,
    logos,
    enlarged,
    cropped,
)
"""Of clips, in the order in which faults are told."""
UNREADABLE, TOO_SHORT, NOT_USED = "unreadable", "too short", "not used"
UNUSED: dict[str, tuple[Verdict, str]] = {
    UNREADABLE: ("bad", "Convert it again from its source, or take it out of the folder"),
    TOO_SHORT: ("warning", "It is not used: take a longer clip, or lower frames"),
    NOT_USED: ("warning", "Mend what the reason says, or take it out of the folder"),
}


@dataclass(frozen=True, kw_only=True)
class Unused:
    """A file that is in the folder and not in the dataset. `look` is None where it cannot be decoded."""

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
        self.names = tuple(_name(clip.path, clip.root or dataset.folder, clip) for clip in clips)
        self.files: dict[Path, list[int]] = {}
        for number, clip in enumerate(clips):
            self.files.setdefault(clip.path, []).append(number)
        self.looks: list[ClipLook | None] = [None] * len(clips)
        self.unused: list[Unused] = []
        self._gone: list[tuple[str, Fault]] = []

    def look_at(self, path: Path, numbers: list[int]) -> None:
        """All clips of a file."""
        try:
            found = look_at_file(
                path, [_span(self._dataset, self._dataset.clips[n]) for n in numbers]
            )
        except UserError as error:
            self._gone += [(UNREADABLE, _broken(self.names[n], path, error, n)) for n in numbers]
            return
        for number, look in zip(numbers, found, strict=True):
            self.looks[number] = look

    def look_at_unused(self, skipped: Skipped) -> None:
        kind, fault, look = _unused(self._dataset, skipped)
        self.unused.append(Unused(name=fault.name, look=look))
        self._gone.append((kind, fault))

    def findings(self) -> list[Finding]:
        """What is not there to be examined."""
        found = []
        for kind, (verdict, fix) in UNUSED.items():
            faults = tuple(fault for each, fault in self._gone if each == kind)
            found += [Finding(kind=kind, verdict=verdict, faults=faults, fix=fix)] if faults else []
        return found


def _unused(dataset: Dataset, skipped: Skipped) -> tuple[str, Fault, ClipLook | None]:
    """Why a file is not used, by looking at it: the reader's reason is for people."""
    name = _name(skipped.path, dataset.folder)
    wanted_s = (dataset.size.frames - 1) / dataset.fps
    if skipped.path.suffix.lower() not in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
        return NOT_USED, Fault(name, skipped.reason, "a file that can be used"), None
    try:
        (look,) = look_at_file(skipped.path, [Span(0.0, wanted_s)])
    except UserError as error:
        return UNREADABLE, _broken(name, skipped.path, error), None
    if look.frames > 1 and look.seconds < wanted_s:
        expected = f"{wanted_s:.2f} s for {dataset.size.frames} frames at {dataset.fps:g} fps"
        return TOO_SHORT, Fault(name, f"{look.seconds:.2f} s", expected), look
    return NOT_USED, Fault(name, skipped.reason, "a file that can be used"), look


def _broken(name: str, path: Path, error: UserError, clip: int | None = None) -> Fault:
    """The error without the names, which the report has, and without FFmpeg's number."""
    why = error.came.removeprefix(f"{path.name} ").replace(f": '{path}'", "").rstrip(".")
    return Fault(name, re.sub(r"\[Errno -?\d+\] ", "", why), "a file that FFmpeg can read", clip)


def _span(dataset: Dataset, clip: Clip) -> Span:
    fps = dataset.clip_fps(clip)
    return Span(clip.start / fps, (clip.start + clip.frames - 1) / fps)


def _name(path: Path, root: Path, clip: Clip | None = None) -> str:
    """Where the file lies in its folder, since names alone may stand twice, and where the clip begins."""
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return f"{shown}@{clip.start}" if clip and clip.start else shown
