"""Which load reports may pass: the policy for what has no place, as one pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NoReturn

from ..errors import UserError
from .advice import ADVICE, Sign
from .report import FileReport

Policy = Literal["error", "warn", "ignore"]

_LAYERS = "A LoRA for this model names layers that the model has, in their shapes"
# Why a file matches nothing, the surest first, and what would match.
CAUSES: Mapping[Sign, str] = {
    "other model": _LAYERS,
    "not a number": "A LoRA's weights are finite numbers",
    "no match": _LAYERS,
    "other expert": "A file whose keys are for one expert of Wan 2.2 belongs on that expert",
}


def judge(reports: Sequence[FileReport], policy: Policy) -> tuple[str, ...]:
    """The warnings that a stack's reports deserve; the rows are judged in their order.

    Raises `UserError`, naming the row: always for a file that matches nothing on any expert it goes to; with
    "error" also for every key that matters and has no place, and for a file trained for the other expert. A file
    that has nothing for one expert and matches on the other one is in order. "ignore" gives no warnings.
    """
    warnings: list[str] = []
    for row in dict.fromkeys(report.row for report in reports):
        of_row = [report for report in reports if report.row == row]
        for file in dict.fromkeys(report.file for report in of_row):
            of_file = [report for report in of_row if report.file == file]
            if not any(report.matched for report in of_file):
                _refuse_zero_match(of_file)
        doubtful = [report for report in of_row if _is_doubtful(report)]
        if doubtful and policy == "error":
            _refuse(doubtful)
        idle = [r for r in of_row if {"zero update", "unknown strength"}.intersection(r.signs)]
        if (doubtful or idle) and policy != "ignore":
            told = dict.fromkeys([*doubtful, *idle])
            warnings.append(f"{_row(row)} does not fit as it is.\n{_texts(told)}")
    return tuple(warnings)


def _is_doubtful(report: FileReport) -> bool:
    # Nothing for this expert is an answer; part of something is a doubt.
    return report.total > 0 and (not report.whole or report.swapped)


def _refuse_zero_match(reports: Sequence[FileReport]) -> NoReturn:
    models = next((report.remark for report in reports if report.fit == "other model"), "")
    shown = {sign for report in reports for sign in report.signs}
    causes: list[Sign] = [cause for cause in CAUSES if cause in shown]
    sign: Sign = causes[0] if causes else "no match"
    raise UserError(
        f"{_row(reports[0].row)}: {reports[0].file} matches nothing.\n{_texts(reports)}\n",
        f"{CAUSES[sign]}{f'; {models}' if models else ''}.",
        ADVICE[sign].say,
    )


def _refuse(reports: Sequence[FileReport]) -> NoReturn:
    raise UserError(
        f"{_row(reports[0].row)} does not fit as it is.\n{_texts(reports)}\n",
        "With unmatched = error, every key that matters finds its layer, on the expert that the file was trained "
        "for.",
        "Use the file that was made for this model, mend the row, or set unmatched to warn.",
    )


def _row(number: int) -> str:
    return f"Row {number}" if number else "The LoRA"


def _texts(reports: Iterable[FileReport]) -> str:
    return "\n".join(report.text() for report in reports)
