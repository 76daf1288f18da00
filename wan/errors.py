"""The one error that a user reads."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave cannot be used: says what came, what can be, and what to do.

    The three parts are separate arguments so that none can be forgotten; each is a full sentence.
    """

    def __init__(self, came: str, can_be: str, to_do: str) -> None:
        self.came, self.can_be, self.to_do = came, can_be, to_do
        super().__init__(f"{came} {can_be} {to_do}")
