"""Measures in the development host: `make bench`, or `python dev/environment.py run benchmarks NAME ...`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
BENCHMARKS = {
    "step_time": "seconds a step against a bare loop and against core's TrainLoraNode",
    "memory": "memory that starting a run adds to the loaded models",
    "background": "what a run in the background costs prompts, and what prompts cost it",
    "cache": "memory of 100 and of 10,000 clips that are streamed from the cache",
    "stacks": "what a stack of LoRAs costs: putting it on, every step, a report from a header",
    "reading": "clips read a second, beside plain decoding of the same frames",
    "optimizers": "bytes and time that each optimizer takes, against torch's AdamW",
    "radial": "radial attention tile by tile against dense attention, and making a plan",
    "import_time": "what the pack adds to ComfyUI's start",
}
PROOF = {
    "miniature.proof": "judges the shipped LoRAs of the miniature and writes its report",
    "miniature.teaching": "trains those LoRAs again (25 minutes)",
    "miniature.recipes": "tries the received recipes on the miniature and writes docs/recipes.md (an hour or more)",
    "miniature.recipe_page": "writes that page from the runs that are kept",
    "miniature.radial": "radial attention on the miniature's clips and in training; writes docs/radial.md (20 minutes)",
    "miniature.radial_page": "writes that page from the clips that are kept",
}
"""Only when they are named."""


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in BENCHMARKS | PROOF]:
        print(f"Got {', '.join(unknown)}; there are:", file=sys.stderr)
        for name, text in (BENCHMARKS | PROOF).items():
            print(f"  {name:18} {text}", file=sys.stderr)
        return 2
    # Python put this folder first on the path, where it has no business.
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT / "benchmarks"]
    spec = importlib.util.spec_from_file_location("tandem_pack_loader", ROOT / "dev" / "pack.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    loader.load_pack(ROOT)
    for name in names or BENCHMARKS:
        print(f"## {name}: {(BENCHMARKS | PROOF)[name]}\n", flush=True)
        importlib.import_module(f"tandem_wan.benchmarks.{name}").main()
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
