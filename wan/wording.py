"""Counts in sentences."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """`1 caption`, `2 captions`; `many` for what does not only get an s: `1 is over it`, `2 are over it`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"
