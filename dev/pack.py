"""Loads the checkout as the package `tandem_wan`, whatever its folder is called."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ALIAS = "tandem_wan"


def load_pack(root: Path) -> ModuleType:
    """Import the pack at `root` as `tandem_wan`; where that is done already, give what is there.

    The root stays off `sys.path`: its `nodes` folder would hide the host's `nodes` module.
    """
    if ALIAS in sys.modules:
        return sys.modules[ALIAS]
    start = root / "__init__.py"
    if not start.is_file():
        raise FileNotFoundError(
            f"{start} does not exist: load_pack takes the root of a Tandem checkout. "
            "Name the folder that holds wan/, training/ and nodes/."
        )
    spec = importlib.util.spec_from_file_location(
        ALIAS, start, submodule_search_locations=[str(root)]
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[ALIAS] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[ALIAS]
        raise
    return module
