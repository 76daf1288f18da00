"""`make recipes`: tries the received recipes on the miniature, in the real host, and writes docs/recipes.md."""

from __future__ import annotations

from pathlib import Path

from ...dev.errors import PromptFailed
from ...dev.host import fill_base
from ...dev.server import HostServer, prepare_base
from .judging import Judge
from .recipe_lab import folder, judge_without, kept, kept_without, make
from .recipe_page import main as write_page
from .recipe_runs import JUDGED, RUNS

ROOT = Path(__file__).absolute().parents[2]


def main() -> None:
    """Makes what is missing of the runs, then the page. Delete the folder of the runs to begin anew."""
    missing = [run for run in RUNS if kept(run) is None]
    print(f"{len(RUNS)} runs, {len(missing)} to make; kept in {folder()}", flush=True)
    if missing or kept_without() is None:
        base = prepare_base(folder() / "host", ROOT)
        fill_base(base)
        with HostServer(base, nodes=("TandemTrainer",)) as server, server.client() as client:
            if kept_without() is None:
                judge_without(Judge(client, base, JUDGED))
            for run in missing:
                try:
                    make(run, client, base, lambda line: print(line, flush=True))
                except PromptFailed as error:
                    print(f"{run.key} failed: {error}", flush=True)
    write_page()
