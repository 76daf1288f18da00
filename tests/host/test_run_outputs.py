"""Losses and pictures of a run as outputs: core's own graph node draws our losses."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tandem_wan.dev import runs
from tandem_wan.dev.testing import number_of, training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow]
PICTURES = {"losses": None, "loss_plot": (900, 480), "monitor_plot": (1500, 800)}
MARGIN, WIDTH, HEIGHT = 40, 800, 480
"""Of core's graph (comfy_extras/nodes_train.py, LossGraphNode)."""


def test_core_draws_our_losses_and_the_pictures_are_images(client, base):
    graph = _graph("drawn", unfinished="block")
    blocked = client.run(graph)
    assert not blocked["blocked"] and not set(blocked["outputs"]) & set(PICTURES)
    runs.wait_for_end(client, "drawn")
    entry = client.run(graph)
    assert not entry["blocked"]
    drawn = {
        name: Image.open(io.BytesIO(client.download(entry["outputs"][name]["images"][0])))
        for name in PICTURES
    }
    for name, size in PICTURES.items():
        assert size in (None, drawn[name].size), name
    pixels = np.asarray(drawn["losses"].convert("RGB")).astype(int)
    losses = [loss for _, _, loss, _ in sorted(runs.losses(base, "drawn"))]
    assert len(losses) == 30 and len(set(losses)) > 20
    least, most = min(losses), max(losses)
    for number, loss in enumerate(losses):
        # A place on the curve for each loss, in the order of the steps; blue is (0, 0, 255).
        column = MARGIN + int(number / len(losses) * WIDTH)
        row = HEIGHT - int((loss - least) / (most - least) * HEIGHT)
        around = pixels[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        blue = (around[..., 2] - around[..., :2].max(axis=-1)) > 200
        assert blue.any() or number == 0, (number, loss)
    red = np.asarray(drawn["loss_plot"].convert("RGB")).astype(int)
    assert (np.abs(red - [0xD1, 0x49, 0x5B]).max(axis=-1) <= 2).sum() > 100, "the high-noise curve"


def test_previews_of_clips_and_prompts_are_in_the_details_of_a_run(client, base):
    """Two clips and a prompt; the trigger of the dataset is where the placeholder stands."""
    wishes = {"preview_every": 30, "preview_clips": 2, "preview_prompts": "A {trigger} in the rain"}
    client.run(training_graph("shown", mode="wait", **wishes))
    details = client.get(f"/tandem/jobs/{runs.job(client, 'shown')['id']}")
    assert [(p["step"], p["number"]) for p in details["previews"]] == [(30, 1), (30, 2), (30, 3)]
    words = [p["prompt"] for p in details["previews"]]
    assert words[:2] == ["", ""] and words[2].endswith(" in the rain") and "{" not in words[2]
    folder = base / "output" / "tandem" / "shown"
    for preview in details["previews"]:
        name = preview["file"].split("/")[-1]
        film = client.download(
            {"filename": name, "subfolder": "tandem/shown/previews", "type": "output"}
        )
        assert film == (folder / preview["file"]).read_bytes() and film[4:8] == b"ftyp"
    assert f"previews up to step 30: {folder / 'previews'}" in details["text"]


def _graph(name: str, unfinished: str):
    graph = training_graph(name)
    trainer = number_of(graph, "Train both experts")
    result = {"job": [trainer, 0], "unfinished": unfinished}
    graph["result"] = {"class_type": "TandemJobResult", "inputs": result}
    graph["losses"] = {"class_type": "LossGraphNode", "inputs": {"loss": ["result", 4]}}
    graph["losses"]["inputs"]["filename_prefix"] = "losses"
    for place, picture in enumerate(list(PICTURES)[1:], 5):
        graph[picture] = {"class_type": "PreviewImage", "inputs": {"images": ["result", place]}}
    for title in ("result", *PICTURES):
        graph[title]["_meta"] = {"title": title}
    return graph
