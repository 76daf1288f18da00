"""Shipped workflows at test size, and what comes out of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .client import HostClient

ROOT = Path(__file__).absolute().parents[1]
WORKFLOWS, OWN = ROOT / "workflows" / "api", ROOT / "tests" / "data"
Graph = dict[str, Any]
Models = Callable[[Graph, list[Any], list[Any]], tuple[list[Any], list[Any]]]


def workflow(name: str, changes: dict[str, dict[str, Any]] | None = None) -> Graph:
    """An API workflow at test size, the tests' own or a shipped one. `changes` are {title: {input: value}}."""
    own = OWN / f"{name}.json"
    graph = json.loads((own if own.is_file() else WORKFLOWS / own.name).read_text())
    small = {
        "Clips to learn from": {"folder": "clips", "frames": 9},
        "Image to video": {"width": 64, "height": 64, "length": 9},
    }
    for title, inputs in [*small.items(), *(changes or {}).items()]:
        for node in graph.values():
            if node["_meta"]["title"] == title:
                node["inputs"].update(inputs)
    return graph


def training_graph(name: str, *, mode: str = "background", **trainer: Any) -> Graph:
    """The shipped training graph up to its trainer, at test size: 30 steps of two micro-batches."""
    whole = workflow("train_and_sample")
    keep = number_of(whole, "Train both experts")
    graph = ancestors(whole, keep)
    graph[keep]["inputs"] |= {"name": name, "mode": mode, **trainer}
    graph[number_of(graph, "Plan of the run")]["inputs"]["preset"] = "video effect"
    return graph


def ancestors(whole: Graph, number: str) -> Graph:
    """A node and all that it depends on."""
    graph, waiting = {}, [number]
    while waiting:
        found = waiting.pop()
        graph[found] = whole[found]
        links = [v for v in whole[found]["inputs"].values() if isinstance(v, list)]
        waiting += [link[0] for link in links if link[0] not in graph]
    return graph


def number_of(graph: Graph, title: str) -> str:
    """The id of the node with this title."""
    (found,) = [number for number, node in graph.items() if node["_meta"]["title"] == title]
    return found


def text_of(graph: Graph, entry: dict[str, Any], title: str) -> str:
    """What a Preview Any node shows."""
    return entry["outputs"][number_of(graph, title)]["text"][0]


def sampling_graph(name: str, models: Models, **sampler: Any) -> Graph:
    """Loaders, conditioning, dual sampler, latent saved without loss; `models(graph, high, low)` may put
    nodes between loaders and sampler and gives the two links."""
    whole = workflow("train_and_sample")
    keep = (
        "High-noise",
        "Low-noise",
        "VAE",
        "Text encoder",
        "First frame",
        "What it",
        "Image to",
        "Sample before",
    )
    graph = {
        number: node
        for number, node in whole.items()
        if node["_meta"]["title"].startswith(keep) and node["class_type"] != "PreviewAny"
    }
    high = [number_of(graph, "High-noise expert: runs first"), 0]
    low = [number_of(graph, "Low-noise expert: runs second"), 0]
    node = graph[number_of(graph, "Sample before")]
    node["inputs"]["model_high"], node["inputs"]["model_low"] = models(graph, high, low)
    node["inputs"].update({"steps": 4, **sampler})
    graph["save"] = {
        "class_type": "SaveLatent",
        "inputs": {
            "samples": [number_of(graph, "Sample before"), 0],
            "filename_prefix": f"latents/{name}",
        },
        "_meta": {"title": "save"},
    }
    return graph


def sampled(
    client: HostClient,
    base: Path,
    name: str,
    models: Models = lambda _, high, low: (high, low),
    **sampler: Any,
) -> torch.Tensor:
    """The latent that a sampling graph makes, really sampled: not one that the host has kept."""
    graph = sampling_graph(name, models, **sampler)
    # At cfg 1 the negative prompt changes nothing, but the host does not know.
    assert graph[number_of(graph, "Sample before")]["inputs"]["cfg"] == 1.0
    graph[number_of(graph, "What it does not show")]["inputs"]["text"] = f"unused {uuid.uuid4()}"
    entry = client.run(graph)
    for kind, message in entry["status"]["messages"]:
        if kind == "execution_cached":
            assert number_of(graph, "Sample before") not in message["nodes"], "nothing was sampled"
    (found,) = entry["outputs"]["save"]["latents"]
    return load_file(base / "output" / found["subfolder"] / found["filename"])["latent_tensor"]


def tiny_files(graph: Graph) -> None:
    """Has a workflow for the public files load the tiny family instead."""
    family = "tiny_wan2.2_i2v"
    files = {
        "High-noise expert: runs first": {"unet_name": f"{family}_high_noise.safetensors"},
        "Low-noise expert: runs second": {"unet_name": f"{family}_low_noise.safetensors"},
        "VAE": {"vae_name": f"{family}_vae.safetensors"},
        "Text encoder": {"text_encoder": f"{family}_umt5.safetensors"},
        "First frame": {"image": "tandem_demo_first_frame.png"},
        "The model": {"unet_name": "tiny_wan2.1_i2v.safetensors"},
    }
    for node in graph.values():
        node["inputs"].update(files.get(node["_meta"]["title"], {}))
