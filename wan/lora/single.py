"""Rows that speak of one expert of Wan 2.2, on a model that is taken as a single one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from ..errors import UserError
from ..families import A14B
from .experts import Evidence
from .judge import Policy
from .pair_names import Side
from .stack import Row, decide_route


class OneSided(NamedTuple):
    """A row on a single model whose file is meant for one expert."""

    number: int
    """Its place in the stack, from 1."""
    file: str
    side: Side
    why: str
    """What says so: the route, the file's keys, its metadata or its name."""

    def text(self) -> str:
        return (
            f"Row {self.number}: {self.file} is meant for the {self.side}-noise expert ({self.why}), and is taken as "
            f"for a single model, at the strength high. For a lone expert of Wan 2.2 set family to {A14B}."
        )


def one_sided(rows: Iterable[Row], evidence_of: Callable[[str], Evidence]) -> tuple[OneSided, ...]:
    """The files of the rows at work on a single model that are meant for one expert; those that are mixed in too.

    A row with route both is meant as it is. `evidence_of` gives what a file says of itself.
    """
    found = []
    for number, row in enumerate(rows, 1):
        if not row.on or row.high == 0:
            continue
        for file in (row.lora,) if row.blend is None else (row.lora, row.blend.lora):
            # Quality goes to low noise by habit, which says nothing about the file.
            route, why = decide_route(replace(row, lora=file, kind=None), evidence_of(file))
            if route == "high" or route == "low":
                found.append(OneSided(number, file, route, why))
    return tuple(found)


def single_model_warnings(found: tuple[OneSided, ...], policy: Policy) -> tuple[str, ...]:
    """A warning for each. Raises `UserError`, with "error", when both experts' files are among them: a single model
    takes neither's place."""
    if policy == "error" and len({each.side for each in found}) == 2:
        rows = "\n".join(f"- row {each.number}: {each.file} ({each.why})" for each in found)
        raise UserError(
            f"Files of both experts of Wan 2.2 go to one model, which is taken as a single one:\n{rows}\n",
            "Each half of a pair was trained for its own expert; together on one model they act twice.",
            f"Connect both experts; for a lone one set family to {A14B}; or switch one half's row off, or set its "
            "route to both if it is meant so.",
        )
    return tuple(each.text() for each in found)
