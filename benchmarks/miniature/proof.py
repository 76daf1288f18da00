"""`make proof`: judges the shipped LoRAs in the real host and writes the miniature's report."""

from __future__ import annotations

import datetime
import tempfile
import time
from pathlib import Path

from ...dev.host import fill_base
from ...dev.server import HostServer, prepare_base
from .figures import measure
from .judging import CLIPS, Judge
from .pictures import draw
from .report import claims, page

ROOT = Path(__file__).absolute().parents[2]
REPORT = ROOT / "wan" / "miniature" / "REPORT.md"


def main(clips: int = CLIPS) -> None:
    """Of `clips` clips a row; fewer are quicker and say less."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        base = prepare_base(Path(folder), ROOT)
        fill_base(base)
        with HostServer(base, nodes=("TandemTrainer",)) as server, server.client() as client:
            judge = Judge(client, base, clips)
            found = measure(judge, lambda line: print(line, flush=True))
            draw(judge, REPORT.with_name("report"))
    minutes = (time.monotonic() - began) / 60
    how = (
        f"{datetime.date.today()}, {clips} clips a row, {minutes:.0f} minutes on the CPU; "
        "one training run of each LoRA."
    )
    beside = REPORT.with_name(f".{REPORT.name}")
    beside.write_text(page(found, how), encoding="utf-8")
    beside.replace(REPORT)
    for claim in claims(found):
        print(f"{'met' if claim.met else 'MISSED':7} {claim.what}: {claim.reached} ({claim.goal})")
    print(f"\n{REPORT.relative_to(ROOT)}")
