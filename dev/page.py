"""The host's page in a headless Chromium: open it, load the shipped workflows, fit them into view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from .browser import find_browser

PACK = "tandem"
"""The folder under custom_nodes: the pack's name in the host's addresses."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Graph.CanvasInfo": False}
"""A new user's first page would open on the template browser; the canvas would show its frame rate."""
FOLDERS = {
    "unet_name": "diffusion_models",
    "vae_name": "vae",
    "clip_name": "clip_vision",
    "text_encoder": "text_encoders",
}
START_MS = 120_000
SIZE = {"width": 1920, "height": 1080}

READY = """() => Boolean(
    window.app?.vueAppReady && app.graph?.nodes.length
    && LiteGraph.registered_node_types.TandemTrainer
)"""
LOAD = """async ([address, name]) => {
    const workflow = await (await fetch(address)).json();
    await app.loadGraphData(workflow, true, true, name, { openSource: "template" });
}"""
SHOWN = """() => app.graph.nodes.every(node => node.type !== "LoadImage" || node.imgs?.length)"""
FIT = """zoom => {
    const boxes = [...app.graph.nodes, ...app.graph.groups].map(item => item.boundingRect);
    const left = Math.min(...boxes.map(box => box[0])), top = Math.min(...boxes.map(box => box[1]));
    const right = Math.max(...boxes.map(box => box[0] + box[2]));
    const bottom = Math.max(...boxes.map(box => box[1] + box[3]));
    app.canvas.ds.fitToBounds([left, top, right - left, bottom - top], { zoom });
    app.canvas.setDirty(true, true);
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    path = find_browser()
    assert path, "ask find_browser() first"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def fill_for_page(base: Path, workflows: Path) -> None:
    """Give the host every name that the shipped workflows hold, so that no file is missing.

    The models are empty: they are listed, never loaded.
    """
    for path in sorted((workflows / "api").glob("*.json")):
        for node in json.loads(path.read_text(encoding="utf-8")).values():
            _fill_for_node(base, node["inputs"])
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(SETTINGS), encoding="utf-8")


def _fill_for_node(base: Path, inputs: dict) -> None:
    for name in FOLDERS.keys() & inputs.keys():
        _touch(base / "models" / FOLDERS[name] / inputs[name])
    for row in json.loads(inputs.get("rows", "[]")):
        for file in filter(None, (row["lora"], row.get("lora_low"))):
            _touch(base / "models" / "loras" / file)
    if isinstance(inputs.get("image"), str):
        Image.linear_gradient("L").resize((832, 480)).save(base / "input" / inputs["image"])


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def wait_until_ready(page: Page) -> None:
    """Until the page has its nodes and the graph that it starts with."""
    page.wait_for_function(READY, timeout=START_MS)


def load_workflow(page: Page, name: str) -> None:
    """Open a workflow as the template browser does, and wait for its pictures."""
    page.evaluate(LOAD, [f"/api/workflow_templates/{PACK}/{name}.json", name])
    page.wait_for_function(SHOWN, timeout=START_MS)


def fit_graph(page: Page, zoom: float) -> None:
    """Centre the graph, frames included; `zoom` is the share of the view that it may fill."""
    page.evaluate(FIT, zoom)
