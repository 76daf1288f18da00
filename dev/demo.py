"""`make demo`: trains a LoRA pair on real clips inside a running ComfyUI and samples with it, in one queued graph."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .contact_sheet import contact_sheet
from .errors import HostError
from .follow import Follower
from .host import fill_base
from .server import HostServer, prepare_base

ROOT = Path(__file__).absolute().parents[1]
WORKFLOW = ROOT / "workflows" / "api" / "train_and_sample.json"
DEMO = ROOT / "demo"


def main(argv: Sequence[str]) -> int:
    del argv
    began = time.monotonic()
    base = _fresh_base()
    print("Preparing: a tiny Wan 2.2 family with random weights, real clips from three films ...")
    fill_base(base)
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    print("Starting ComfyUI on the CPU ...", flush=True)
    try:
        with HostServer(base, nodes=("TandemTrainer",)) as server, server.client() as client:
            print(f"Queueing {WORKFLOW.relative_to(ROOT)} at {server.url}", flush=True)
            entry = client.run(graph, Follower(graph), timeout_s=1800)
    except HostError as error:
        print(f"\n{error}\nThe host's log: {base / 'server.log'}", file=sys.stderr)
        return 1
    collect(base, graph, entry, DEMO)
    print(_guide(DEMO, time.monotonic() - began))
    return 0


def collect(base: Path, graph: Mapping[str, Any], entry: Mapping[str, Any], target: Path) -> None:
    """What the graph made, under plain names in `target`; an earlier demo is replaced when this one is whole."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.mkdir(parents=True)
    texts = _by_title(graph, entry, "text")
    videos = {
        title: base / "output" / found["subfolder"] / found["filename"]
        for title, found in _by_title(graph, entry, "images").items()
        if found["type"] == "output"
    }
    (beside / "load_report.txt").write_text(texts["Load report"] + "\n", encoding="utf-8")
    (beside / "run.txt").write_text(texts["What the run says"] + "\n", encoding="utf-8")
    shutil.copyfile(videos["Save before"], beside / "before.mp4")
    shutil.copyfile(videos["Save after"], beside / "after.mp4")
    for file in sorted((base / "models" / "loras").glob("demo_*.safetensors")):
        shutil.copyfile(file, beside / file.name)
    shutil.copyfile(base / "output" / "tandem" / "demo" / "loss.png", beside / "loss.png")
    rows = [
        ("before: without the LoRA", beside / "before.mp4"),
        ("after: with the LoRA, same seed", beside / "after.mp4"),
        ("one of the training clips", min((base / "input" / "tandem_demo").glob("*.mp4"))),
    ]
    contact_sheet(rows, beside / "contact_sheet.png")
    shutil.rmtree(target, ignore_errors=True)
    beside.replace(target)


def _by_title(graph: Mapping[str, Any], entry: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The first output of a kind of each node that has one, by the node's title."""
    return {
        graph[number]["_meta"]["title"]: found[kind][0]
        for number, found in entry["outputs"].items()
        if found.get(kind)
    }


def _guide(folder: Path, seconds: float) -> str:
    lines = [f"\nDone in {seconds / 60:.1f} minutes. In {folder}:"]
    said = {
        "contact_sheet.png": "open this first: both clips and a training clip, frame by frame",
        "loss.png": "the loss of both experts",
        "before.mp4": "the clip without the LoRA",
        "after.mp4": "the same seed with the LoRA",
        "load_report.txt": "what each file of the pair matched",
        "run.txt": "the plan of the run and what it says of itself",
        "demo_high_noise.safetensors": "the pair: first expert",
        "demo_low_noise.safetensors": "the pair: second expert",
    }
    lines += [f"  {name:30} {text}" for name, text in said.items() if (folder / name).is_file()]
    lines.append(
        "The models are tiny and their weights random: the clips show that training reaches the samples, "
        "not beauty.\nNext: `make host`, then open the template train_and_sample in the browser."
    )
    return "\n".join(lines)


def _fresh_base() -> Path:
    """The demo always trains: what an earlier one left in its host is taken away."""
    checkout = hashlib.sha256(str(ROOT.resolve()).encode()).hexdigest()[:12]
    base = Path(os.environ["TANDEM_HOME"]) / "demo" / checkout
    shutil.rmtree(base, ignore_errors=True)
    return prepare_base(base, ROOT)
