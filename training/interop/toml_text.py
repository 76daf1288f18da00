"""TOML with a comment beside a value, as a person would write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit

Row = tuple[str, Any, str]
"""(key, value, comment or nothing)."""


def toml_text(title: str, tables: Mapping[str, Sequence[Row]]) -> str:
    """The rows under their tables; `""` is the top, and a name that ends in `[]` begins an array's entry.
    Several entries of one array differ by what follows the brackets."""
    lines = [f"# {title}"]
    for table, rows in tables.items():
        if table:
            name, brackets, _ = table.partition("[]")
            lines += ["", f"[[{name}]]" if brackets else f"[{name}]"]
        for key, value, comment in rows:
            line = f"{key} = {tomlkit.item(value).as_string()}"
            lines.append(f"{line}  # {comment}" if comment else line)
    return "\n".join(lines) + "\n"
