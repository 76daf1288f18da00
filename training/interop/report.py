"""What is said of an imported plan: the verdict first, then what came from where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..data.dataset import Counts, DatasetSettings
from ..expert_turns import expert_steps
from ..plans.limits import findings_text, plan_findings
from ..plans.material import at_samples, number_of
from ..plans.trained import trained_counts
from .plans import Import

MANY = 40
"""Lines of a list, after which only their number is said."""


def import_report(found: Import, counts: Counts | None) -> str:
    """Verdict, reading and lists, as text; without `counts` the verdict needs the number of clips."""
    lines = [
        f"{found.trainer}: read as {found.plan.preset!r}, {found.plan.steps:,} steps {at_samples(found.plan)}",
        *_verdict(found, counts),
        *_reading(found, counts),
        *_list("Done otherwise here", found.notes),
        *_list("Read from its keys, or that trainer's defaults", found.understood),
        *_list("Datasets", [_folder(part) for part in found.parts]),
        *_list("Not carried over", found.ignored),
        *_list("Keys not known here, not used", found.unknown),
    ]
    return "\n".join(lines)


def _verdict(found: Import, counts: Counts | None) -> list[str]:
    if counts is None:
        return ["No verdict: set clips to the number of files in the dataset, or connect one."]
    findings = plan_findings(found.plan, counts)
    if not findings:
        return [f"Verdict for {number_of(counts.clips, 'clip')}: nothing to object."]
    levels = [finding.level for finding in findings]
    worst = "refused" if "refusal" in levels else "warnings" if "warning" in levels else "good"
    return [
        f"Verdict for {number_of(counts.clips, 'clip')}: {worst}.",
        *(f"  {line}" for line in findings_text(findings)),
    ]


def _reading(found: Import, counts: Counts | None) -> list[str]:
    plan = found.plan
    iterations = plan.steps * plan.accumulate
    text = f"{plan.steps:,} steps are {iterations:,} iterations at batch {plan.batch}, accumulate {plan.accumulate}"
    trained = trained_counts(plan, counts) if counts else None
    if trained and trained.shown:
        text += (
            f": {iterations * plan.batch / trained.shown:,.1f} epochs of {trained.shown:g} samples"
        )
    if found.epochs is not None:
        text += f"; the config says {found.epochs:g} epochs a run"
    shares = ", ".join(
        f"{role.removesuffix('_noise')} {steps:,}" for role, steps in expert_steps(plan).items()
    )
    return [text, f"Steps here: {shares}"]


def _folder(part: DatasetSettings) -> str:
    extras = [f"repeats {part.repeats:g}"] if part.repeats != 1 else []
    extras += ["mirrored"] if part.flips else []
    extras += ["regularisation"] if part.regularisation else []
    extras += [f"trigger {part.trigger}"] if part.trigger else []
    size = f"{part.width}x{part.height}, {part.frames} frames at {part.fps:g} fps"
    return ", ".join([f"{part.folder}: {size}", *extras])


def _list(title: str, lines: Iterable[str]) -> Sequence[str]:
    lines = list(lines)
    if not lines:
        return []
    more = [f"  and {len(lines) - MANY} more"] if len(lines) > MANY else []
    return [f"{title}:", *(f"  {line}" for line in lines[:MANY]), *more]
