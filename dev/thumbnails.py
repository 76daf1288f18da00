"""`python dev thumbnails`: the pictures of the shipped workflows for the template browser."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from .browser import find_browser
from .footage import cut_clips, first_frame
from .page import SIZE, chromium, fill_for_page, fit_graph, load_workflow, wait_until_ready
from .server import HostServer, prepare_base

ROOT = Path(__file__).absolute().parents[1]
WORKFLOWS = ROOT / "workflows"
THUMBNAIL_PX = (768, 432)
QUALITY = 80
DRAWN_MS = 1500
ONLY_THE_GRAPH = """
body { visibility: hidden; }
#graph-canvas, .dom-widget { visibility: visible; }
[data-testid="close-workflow-button"] { display: none; }
"""


def main(argv: Sequence[str]) -> int:
    """Draw every workflow in the real front end and save it beside its JSON."""
    del argv
    if find_browser() is None:
        print("There is no Chromium: run `python3 dev/environment.py browser`.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        base = prepare_base(Path(folder), ROOT)
        fill_for_page(base, WORKFLOWS)
        _real_pictures(base / "input")
        with HostServer(base, nodes=("TandemTrainer",)) as server, chromium() as browser:
            page = browser.new_page(viewport=SIZE)
            page.goto(server.url)
            wait_until_ready(page)
            page.add_style_tag(content=ONLY_THE_GRAPH)
            for path in sorted(WORKFLOWS.glob("*.json")):
                _save_thumbnail(page, path)
    return 0


def _real_pictures(folder: Path) -> None:
    films = Path(os.environ["TANDEM_FOOTAGE"])
    with tempfile.TemporaryDirectory() as clips:
        (clip,) = cut_clips(films, Path(clips), width=832, height=480, frames=1, count=1)
        for path in folder.glob("*.png"):
            first_frame(clip, path)


def _save_thumbnail(page: Page, workflow: Path) -> None:
    load_workflow(page, workflow.stem)
    fit_graph(page, 0.98)
    page.wait_for_timeout(DRAWN_MS)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    small = picture.resize(THUMBNAIL_PX, Image.Resampling.LANCZOS)
    small.save(workflow.with_suffix(".jpg"), quality=QUALITY, optimize=True)
    print(f"{workflow.stem}.jpg: {workflow.with_suffix('.jpg').stat().st_size // 1000} kB")
