"""Trains and measures the miniature family.

python -m tandem_wan.wan.miniature train FOLDER [STAGE]   train it, or go on where it stopped
python -m tandem_wan.wan.miniature judge FOLDER           measure it: FOLDER/figures.json
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .recipe.train import STAGES, Recipe


def main(argv: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    command, *rest = argv or [""]
    if (command, len(rest)) not in (("train", 1), ("train", 2), ("judge", 1)):
        sys.stderr.write(f"{__doc__}STAGE: {', '.join(STAGES)}\n")
        return 2
    recipe = Recipe(Path(rest[0]))
    try:
        if command == "judge":
            recipe.judge()
        else:
            recipe.run(last=rest[1] if len(rest) == 2 else STAGES[-1])
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
