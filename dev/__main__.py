"""Developers' commands, run in the development environment: `python dev COMMAND`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pack import ALIAS, load_pack

ROOT = Path(__file__).absolute().parents[1]
COMMANDS = {
    "demo": "train a LoRA pair on real clips in the real host and sample with it",
    "host": "start ComfyUI with this pack, miniature models and demo clips",
    "thumbnails": "draw the shipped workflows for the template browser",
    "workflows": "write the shipped workflows anew from their description",
}


def usage(came: str) -> str:
    lines = [f"  {name:10} {text}" for name, text in COMMANDS.items()]
    return "\n".join([f"Got {came}; python dev takes one of these commands:", *lines])


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] not in COMMANDS:
        print(usage(repr(argv[0]) if argv else "nothing"), file=sys.stderr)
        return 2
    # Python put this folder first on the path; `server` and others would hide the host's modules.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "dev"]
    load_pack(ROOT)
    return importlib.import_module(f"{ALIAS}.dev.{argv[0]}").main(argv[1:]) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
