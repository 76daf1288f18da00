"""`python -m tandem_wan.wan.miniature train FOLDER [STAGE]`: trains the family, or goes on where it stopped."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .recipe.train import STAGES, Recipe

USAGE = f"Usage: python -m tandem_wan.wan.miniature train FOLDER [{' | '.join(STAGES)}]"


def main(argv: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if len(argv) not in (2, 3) or argv[0] != "train":
        sys.stderr.write(f"{USAGE}\n")
        return 2
    try:
        Recipe(Path(argv[1])).run(last=argv[2] if len(argv) == 3 else STAGES[-1])
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
