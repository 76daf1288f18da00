"""What radial attention cannot do, said so that a person can mend it."""

from __future__ import annotations


class SettingsError(ValueError):
    """A value that radial attention cannot have: what came, what can be."""


class BackendError(ValueError):
    """A backend that cannot run here: what is missing."""
