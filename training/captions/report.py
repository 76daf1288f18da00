"""What a dataset's captions are like, what is wrong with them, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...wan.trigger_check import Verdict
from ...wan.wording import counted
from ..data.dataset import Clip, Dataset
from .findings import (
    SHOWN,
    SPELLING,
    Finding,
    clip_names,
    duplicates_findings,
    length_finding,
    missing_finding,
    overlong_finding,
    placeholders_finding,
    regularisation_findings,
    shapes_finding,
    shortened,
    spelling_finding,
    spread_finding,
    trigger_findings,
)
from .shapes import Shape, sentence_shapes, trigger_places, words_of

COST: dict[Verdict, int] = {"good": 0, "warning": 10, "bad": 25}
SHOWN_LETTERS = 120


@dataclass(frozen=True, kw_only=True)
class CaptionReport:
    """The captions of a dataset in figures, and what follows from them."""

    names: tuple[str, ...]
    """The clips whose captions are judged: the first of each file with its caption, regularisation left out.
    With their folders where two files have one name."""
    captions: tuple[str, ...]
    words: tuple[int, ...]
    """Words of each caption, 0 for an empty one."""
    places: tuple[int | None, ...]
    """The word at which the trigger first begins in each caption, from 1; None where it does not stand."""
    shapes: tuple[Shape, ...]
    findings: tuple[Finding, ...]
    trigger: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the findings."""
        found = {finding.verdict for finding in self.findings}
        return "bad" if "bad" in found else "warning" if "warning" in found else "good"

    @property
    def score(self) -> int:
        """0-100: 100, less 10 for each warning and 25 for each bad finding; 0 without any caption."""
        left = 100 - sum(COST[finding.verdict] for finding in self.findings)
        return max(0, left) if any(self.words) else 0

    def finding(self, kind: str) -> Finding | None:
        """The finding of a kind, None where it was not looked for."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def with_findings(self, *findings: Finding) -> CaptionReport:
        """The same report with more findings."""
        return replace(self, findings=(*self.findings, *findings))

    def with_trigger_tokens(self, finding: Finding) -> CaptionReport:
        """The same report with what a tokenizer says of the trigger, in place of its spelling alone."""
        kept = tuple(each for each in self.findings if each.kind != SPELLING)
        return replace(self, findings=(*kept, finding))

    def text(self) -> str:
        """Verdict and score, then what is bad, what is a warning, what is good, and the shapes."""
        rule = "100, less 10 for each warning and 25 for each bad finding"
        lines = [f"{self.verdict.upper()}, {self.score} of 100 ({rule})"]
        for verdict in ("bad", "warning", "good"):
            for finding in self.findings:
                if finding.verdict == verdict:
                    lines.append(f"{verdict}: {finding.text}")
                    lines += [f"  -> {finding.fix}"] if finding.fix else []
        for shape in self.shapes[:SHOWN]:
            lines.append(
                f"shape of {len(shape.members)}: {shortened(shape.skeleton, SHOWN_LETTERS)}"
            )
        if more := len(self.shapes) - SHOWN:
            lines += [f"... and {counted(more, 'more shape')}"] if more > 0 else []
        return "\n".join(lines)


def caption_report(dataset: Dataset) -> CaptionReport:
    """Looks at every caption of the dataset; the figures need no text encoder.

    Kinds of findings: missing, placeholders, length, spread, overlong, trigger, places, shapes,
    duplicates, spelling, near, trigger spelling, regularisation. All but missing, placeholders and trigger
    spelling look only at captions with words.
    Parts of a file that share its caption are one; regularisation clips are looked at for missing captions
    and the trigger alone.
    """
    clips = judged_clips(dataset)
    called = clip_names(dataset)
    names = [called[clip] for clip in clips]
    captions = [clip.caption for clip in clips]
    present = [caption for caption in captions if words_of(caption)]
    trigger = dataset.trigger.strip()
    shapes = tuple(sentence_shapes(present))
    all_places = [trigger_places(c, trigger) if trigger else [] for c in captions]
    findings = [missing_finding(dataset), placeholders_finding(clips, trigger, names)]
    if present:
        words = [len(words_of(caption)) for caption in present]
        theirs = [name for name, caption in zip(names, captions, strict=True) if words_of(caption)]
        findings += [length_finding(words, theirs), spread_finding(words)]
        findings += [overlong_finding(clips, names), *trigger_findings(present, trigger)]
        findings += [shapes_finding(shapes, len(present)), *duplicates_findings(present, shapes)]
        findings += [spelling_finding(trigger)] if trigger else []
    return CaptionReport(
        names=tuple(names),
        captions=tuple(captions),
        words=tuple(len(words_of(caption)) for caption in captions),
        places=tuple(places[0] if places else None for places in all_places),
        shapes=shapes,
        findings=(*findings, *regularisation_findings(dataset)),
        trigger=trigger,
    )


def judged_clips(dataset: Dataset) -> list[Clip]:
    """The clips that teach, one for each file and caption."""
    clips: dict[tuple[Path, str], Clip] = {}
    for clip in dataset.clips:
        if not clip.regularisation:
            clips.setdefault((clip.path, clip.caption), clip)
    return list(clips.values())
