"""Slot values for single clips, from a table as a spreadsheet copies it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ...wan.errors import UserError
from ..data.dataset import Clip

EXAMPLE = "file, person, place"
RESERVED = ("trigger", "filename")
LIKED = 10
"""Rows for which clips of like names are looked for."""
# In this order: a tab stands in no value, a comma in many.
_SEPARATORS = ("\t", "|", ";", ",")


@dataclass(frozen=True, kw_only=True)
class CaptionTable:
    """`rows`: what stands in the first column to the values of the other columns that are not empty."""

    columns: tuple[str, ...] = ()
    rows: Mapping[str, Mapping[str, str]]

    def values(self, clip: Clip, root: Path) -> Mapping[str, str]:
        """The values for a clip: of the most exact of its names that has a row; none without one."""
        return next((self.rows[name] for name in clip_names(clip, root) if name in self.rows), {})

    def near(self, clip: Clip) -> list[str]:
        """Rows whose name is like the clip's."""
        return _near(clip.path.stem, self.rows)

    def strangers(self, clips: Iterable[tuple[Clip, Path]]) -> list[str]:
        """A line for each row that names no clip, with clips of like names. `clips` come with their roots."""
        if not self.rows:
            return []
        known = {name: clip.path.name for clip, root in clips for name in clip_names(clip, root)}
        lines = []
        for count, row in enumerate(sorted(self.rows.keys() - known.keys())):
            # Comparing with every name takes its time: a table of another dataset has thousands.
            near = list(dict.fromkeys(known[n] for n in _near(row, known))) if count < LIKED else []
            like = f"; clips of like names: {', '.join(near)}" if near else ""
            lines.append(f"The table's row {row!r} is for no clip of this dataset{like}.")
        return lines


NO_TABLE = CaptionTable(rows={})


def clip_names(clip: Clip, root: Path) -> list[str]:
    """What a table can call a clip, the most exact first: its path below `root` or its name, each with and
    without the suffix."""
    path = clip.path
    below = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    names = [below.as_posix(), below.with_suffix("").as_posix(), path.name, path.stem]
    return list(dict.fromkeys(names))


def parse_table(text: str) -> CaptionTable:
    """The first line names the columns, the first column the file; separated by tabs, `|`, `;` or commas.

    Quotes keep a separator inside a value, as in CSV; a line of dashes below the header is passed over.
    Raises `UserError` for a table that cannot be read, with the line.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return NO_TABLE
    separator = next((each for each in _SEPARATORS if each in lines[0]), None)
    if separator is None:
        raise _unreadable(
            f"its header {lines[0]!r} has one column", f"Begin with a line such as: {EXAMPLE}."
        )
    cells = [_cells(line, separator) for line in lines]
    columns = _columns(cells[0])
    rows: dict[str, dict[str, str]] = {}
    for line, (name, *values) in zip(lines[1:], cells[1:], strict=True):
        if set("".join([name, *values])) <= set("-: "):  # below a header in Markdown
            continue
        if len(values) > len(columns) or not name:
            fault = "has no file" if not name else f"has more than {len(columns) + 1} values"
            raise _unreadable(f"the line {line!r} {fault}", "Quote a value that holds a separator.")
        name = name.replace("\\", "/")
        if name in rows:
            raise _unreadable(f"it has two rows for {name}", "Keep one of them.")
        rows[name] = {key: value for key, value in zip(columns, values, strict=False) if value}
    return CaptionTable(columns=columns, rows=rows)


def _cells(line: str, separator: str) -> list[str]:
    line = line.strip(" ")
    if separator == "|":
        line = line.removeprefix("|").removesuffix("|")
    read = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    return [" ".join(cell.split()) for cell in read]


def _columns(header: list[str]) -> tuple[str, ...]:
    columns = tuple(header[1:])
    if not all(columns) or len(set(columns)) < len(columns):
        raise _unreadable(
            f"its columns are {', '.join(repr(each) for each in columns)}",
            "Give each a name of its own.",
        )
    if taken := [name for name in columns if name in RESERVED]:
        raise _unreadable(
            f"its column {taken[0]} has the name of a slot that is always there",
            "Give the column another name.",
        )
    return columns


def _unreadable(what: str, to_do: str) -> UserError:
    can_be = "A table is a header and a line for each clip: the file first, then the slots' values."
    return UserError(f"The table cannot be read: {what}.", can_be, to_do)


def _near(name: str, names: Iterable[str]) -> list[str]:
    return get_close_matches(name, list(names), n=3, cutoff=0.7)
