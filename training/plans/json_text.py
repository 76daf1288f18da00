"""JSON that a person has typed: what is wrong with it, and where."""

from __future__ import annotations

import json
from typing import Any

from ...wan.errors import UserError

_CAUSES = {
    "Expecting property name": "names stand in double quotes, and no comma follows the last value",
    "Illegal trailing comma": "no comma follows the last value",
    "Expecting ',' delimiter": "a comma between two values, or a closing bracket, is missing",
    "Expecting ':' delimiter": "a colon stands between a name and its value",
    "Expecting value": 'a value is missing or is none of JSON: text in double quotes ("), true, false or null, a '
    "number as 0.5, and no comma after the last one",
    "Extra data": "something stands behind the end of the object",
    "Invalid \\": "a backslash in a text is typed twice (\\\\)",
    "Invalid control": "a text ends on the line on which it begins",
    "Unterminated string": "a text has no closing double quote",
}
"""By the beginning of what Python's reader says."""


def json_object(text: str, name: str, can_be: str, to_do: str) -> dict[str, Any]:
    """The object in a text. Raises `UserError` with line, column and cause; `name` is what the text is called."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{name} is not JSON (line {error.lineno}, column {error.colno}: {_cause(error)}). There it says "
            f"{_around(error)!r}.",
            can_be,
            to_do,
        ) from error
    except RecursionError as error:
        raise UserError(
            f"{name} is not JSON that can be read (brackets in brackets without end).",
            can_be,
            to_do,
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{name} is {str(values)[:80]!r}.", can_be, to_do)
    return values


def _cause(error: json.JSONDecodeError) -> str:
    known = (cause for begins, cause in _CAUSES.items() if error.msg.startswith(begins))
    return next(known, error.msg)


def _around(error: json.JSONDecodeError) -> str:
    """The line, near the fault."""
    line = [*error.doc.splitlines(), ""][error.lineno - 1]
    first = max(0, error.colno - 21)
    return line[first : error.colno + 20]
