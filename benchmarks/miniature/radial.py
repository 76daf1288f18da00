"""`make radial`: radial attention on the miniature, in the real host, and docs/radial.md."""

from __future__ import annotations

from pathlib import Path

from ...dev.host import fill_base
from ...dev.server import HostServer, prepare_base
from .radial_page import main as write_page
from .radial_page import plan_pictures
from .radial_runs import ROWS, folder, lora_files, make, missing, teach

ROOT = Path(__file__).absolute().parents[2]


def main() -> None:
    """Makes what is missing of the clips, then the page. Delete the folder of the clips to begin anew."""
    rows = missing()
    print(f"{len(ROWS)} rows, {len(rows)} to make; kept in {folder()}", flush=True)
    base = prepare_base(folder() / "host", ROOT)
    fill_base(base)
    with HostServer(base, nodes=("TandemTrainer",)) as server, server.client() as client:
        if not all(path.is_file() for path in lora_files(base)):
            teach(client, base)
        for row in rows:
            make(row, client, base)
            print(f"{row.key} is made", flush=True)
        plan_pictures(client, base)
    write_page()
