"""What to say at which sign: advice as data, and the signs that a load report can see by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from .kinds import MOST_STRENGTH
from .measure import INVISIBLE, UNUSUAL
from .pair_names import readings

if TYPE_CHECKING:
    from .report import FileReport

Sign = Literal[
    "no effect",
    "too weak",
    "too strong",
    "motion tame",
    "lacks energy",
    "overtrained",
    "out of memory",
    "error on load",
    "no match",
    "other model",
    "not a number",
    "zero update",
    "huge update",
    "other expert",
    "2.1 on 2.2",
    "unknown strength",
    "half a pair",
    "scheduled to zero",
    "loaded twice",
    "too many",
    "total strength",
]


class Advice(NamedTuple):
    """What a user sees, and what helps; full sentences, most likely help first."""

    sign: str
    say: str


ADVICE: Mapping[Sign, Advice] = {
    # What a user sees in samples; a report cannot know it, the help pages and the grid show it.
    "no effect": Advice(
        "The LoRA has no effect.",
        "Is it loaded (see the report)? Is it on the right expert? Is the trigger in the prompt? Then try an earlier "
        "checkpoint, and strength up to 1.2-1.5 without other LoRAs.",
    ),
    "too weak": Advice(
        "The effect is too weak.",
        "Try a later checkpoint (15, 20 epochs) or strength 1.0; for a style train with rank 32 or rate 4e-4.",
    ),
    "too strong": Advice(
        "The effect is too strong: distortion, artefacts.",
        "Try an earlier checkpoint (5, 10 epochs), strength 0.5-0.8, fewer LoRAs (3-4); or retrain shorter.",
    ),
    "motion tame": Advice(
        "Motion is tame or floaty, weaker than in earlier samples.",
        "Low noise overpowers: stop and take an earlier checkpoint; lower the largest rate of low noise or raise the "
        "bump of high noise.",
    ),
    "lacks energy": Advice(
        "Samples lack energy from the start.", "Raise the rate of the high-noise expert."
    ),
    "overtrained": Advice(
        "It reproduces training clips and cannot follow new prompts.",
        "It is overtrained: take an earlier checkpoint, train fewer epochs, or add data.",
    ),
    "out of memory": Advice(
        "The card is out of memory.",
        "Use 2-3 LoRAs, 480p in place of 720p, 49 frames in place of 81, block swap; in training checkpointing.",
    ),
    "error on load": Advice(
        "A file crashes or fails on load.",
        "Check Wan 2.1 against 2.2, that it is a safetensors file, and that there is memory for it.",
    ),
    # What the report itself can see.
    "no match": Advice(
        "No key of the file finds its place.",
        "Check that it was trained for this Wan model (2.1, 2.2 A14B or 5B), and which expert it is for.",
    ),
    "other model": Advice(
        "Its layers have the widths of another model.",
        "Load the file that was made for this model, or the model that it was made for: no setting makes it fit.",
    ),
    "not a number": Advice(
        "It holds NaN or infinity in place of weights.",
        "Its training failed: take an earlier checkpoint, and train on from there at a lower learning rate.",
    ),
    "zero update": Advice(
        "Its update is zero, or too small to see.",
        "The file was saved before it learnt, or its training failed: take a later checkpoint.",
    ),
    "huge update": Advice(
        "Its update is as large as the weights that it changes.",
        "Lower the strength to 0.5-0.8, or take an earlier checkpoint: expect artefacts as it is.",
    ),
    "other expert": Advice(
        "It was trained for the other expert.",
        "Swap the two files of the row, or set the row's route to the expert that it was trained for.",
    ),
    "2.1 on 2.2": Advice(
        "It is a Wan 2.1 LoRA on Wan 2.2.",
        "That is legal. It works on low noise as it is; high noise may need more strength, or a file made for 2.2.",
    ),
    "unknown strength": Advice(
        "Its settings give alpha or rank by regular expressions, which are not followed: its strength may differ.",
        "Compare a sample with one from where it was trained, and set the row's strength; or save the file again with "
        "names of layers in alpha_pattern and rank_pattern.",
    ),
    "half a pair": Advice(
        "Only one half of a pair is loaded.",
        "Put the other file into the row's lora_low (lora is the high-noise one), unless one expert is what you want.",
    ),
    "scheduled to zero": Advice(
        "Its schedule is zero at every step.",
        "Give the schedule a value above 0 somewhere, or switch the row off.",
    ),
    "loaded twice": Advice(
        "One file is on one expert more than once: its strengths add up.",
        "Switch one of the rows off, or set the strength of one row to the sum.",
    ),
    "too many": Advice(
        "More than four LoRAs are on one expert.",
        "Use 3-4: each one costs speed, and together they distort. Give up the least important one first.",
    ),
    "total strength": Advice(
        f"The strengths on one expert add up to more than {MOST_STRENGTH:g}, speed left out.",
        "If samples show artefacts, lower styles, characters and motions to 0.5-0.8 each.",
    ),
}

MOST_LORAS = 4


def signs_of_file(report: FileReport) -> tuple[Sign, ...]:
    """The signs that one file shows on one expert."""
    size = report.size
    share = size.median * abs(report.strength) if size and size.median is not None else None
    broken = [group.cause == "not a number" for group in report.fatal]
    lost = report.total > 0 and report.matched == 0 and report.fit != "other model"
    rules: dict[Sign, bool] = {
        "no match": lost and not (broken and all(broken)),
        "other model": report.fit == "other model",
        "not a number": any(broken),
        "zero update": size is not None
        and (size.zero or (size.median is not None and size.median < INVISIBLE)),
        "huge update": share is not None and share >= UNUSUAL,
        "other expert": {report.meant_for, report.expert} == {"high_noise", "low_noise"},
        "2.1 on 2.2": report.fit == "other generation" and "2.1" in report.made_for,
        "unknown strength": bool(report.expressions),
        "scheduled to zero": bool(report.schedule) and report.peak == 0,
    }
    return tuple(sign for sign, shown in rules.items() if shown)


def signs_of_stack(
    reports: Sequence[FileReport], roles: Sequence[str]
) -> dict[Sign, tuple[str, ...]]:
    """The signs that show only when the files of a stack are seen together, and who shows them.

    roles: the experts that are connected.
    """
    at_work = [report for report in reports if report.at_work]
    found: dict[Sign, tuple[str, ...]] = {
        "half a pair": tuple(_halves(at_work, roles)),
        "loaded twice": tuple(dict.fromkeys(_twice(at_work))),
        "too many": tuple(role for role in roles if len(_on(role, at_work)) > MOST_LORAS),
        "total strength": tuple(
            role for role in roles if _strength(_on(role, at_work)) > MOST_STRENGTH
        ),
    }
    return {sign: who for sign, who in found.items() if who}


def _on(role: str, reports: Sequence[FileReport]) -> list[FileReport]:
    return [report for report in reports if report.expert == role]


def _strength(reports: Sequence[FileReport]) -> float:
    """A speed LoRA is made to run at full strength beside others."""
    return sum(abs(report.strength * report.peak) for report in reports if report.kind != "speed")


def _halves(reports: Sequence[FileReport], roles: Sequence[str]) -> Iterator[str]:
    """Files made for one expert whose other half is on no row, though its expert is connected."""
    if not {"high_noise", "low_noise"} <= set(roles):
        return
    for report in reports:
        if report.meant_for != report.expert:
            continue
        others = [other for other in reports if other.expert != report.expert]
        if not any(_belong_together(report, other) for other in others):
            yield report.file


def _belong_together(one: FileReport, other: FileReport) -> bool:
    if one.row and one.row == other.row:
        return True
    if one.pair_id or other.pair_id:
        return one.pair_id == other.pair_id
    sides = {(reading.exact, reading.side) for reading in readings(one.file)}
    return any(
        exact == reading.exact and side != reading.side
        for reading in readings(other.file)
        for exact, side in sides
    )


def _twice(reports: Sequence[FileReport]) -> Iterator[str]:
    """`a.safetensors` for one name twice, `a = b` for one content under two names."""
    first: dict[tuple[str, str], str] = {}
    for report in reports:
        marks = [(report.expert, mark) for mark in (report.file, report.content) if mark]
        known = next((first[mark] for mark in marks if mark in first), None)
        if known is not None:
            yield report.file if known == report.file else f"{known} = {report.file}"
        first |= {mark: report.file for mark in marks if mark not in first}
