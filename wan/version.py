"""The version of this package, installed or only cloned."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@cache
def package_version() -> str:
    """For example 0.1.0: from the checkout's pyproject.toml, else from the installed distribution."""
    if PROJECT.is_file():
        # tomllib comes with Python 3.11, and ComfyUI runs on 3.10.
        found = re.search(r'^version = "([^"]+)"', PROJECT.read_text(encoding="utf-8"), re.M)
        if found:
            return found[1]
    return metadata.version("tandem-wan")
