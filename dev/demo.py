"""`make demo`: teaches the miniature Wan 2.2 a motion it has never seen, in a running ComfyUI, and measures it."""

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

from ..wan.errors import UserError
from .demo_proof import prove
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
    print("Preparing: the miniature Wan 2.2 family, 40 clips of a toy world ...")
    try:
        fill_base(base)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    print("Starting ComfyUI on the CPU ...", flush=True)
    try:
        with HostServer(base, nodes=("TandemTrainer",)) as server, server.client() as client:
            print(f"Queueing {WORKFLOW.relative_to(ROOT)} at {server.url}", flush=True)
            entry = client.run(graph, Follower(graph), timeout_s=1800)
            print("Sampling new scenes with and without it ...", flush=True)
            measured = prove(client, base, base)
    except HostError as error:
        print(f"\n{error}\nThe host's log: {base / 'server.log'}", file=sys.stderr)
        return 1
    collect(base, graph, entry, measured, DEMO)
    print(f"\n{measured}")
    print(_guide(DEMO, time.monotonic() - began))
    return 0


def collect(
    base: Path,
    graph: Mapping[str, Any],
    entry: Mapping[str, Any],
    measured: str,
    target: Path,
) -> None:
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
    (beside / "measured.txt").write_text(measured + "\n", encoding="utf-8")
    for name in ("comparison.png", "strengths.png"):
        shutil.move(base / name, beside / name)
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
        "comparison.png": "open this first: without and with the LoRA, frame by frame, measured",
        "strengths.png": "checkpoints by strengths, all frames of a clip in one picture",
        "measured.txt": "new scenes without and with the LoRA, in figures",
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
        "The models are a million parameters each, trained on simple shapes: no beauty, but a real lesson.\n"
        "Next: `make host`, then open the template train_and_sample in the browser."
    )
    return "\n".join(lines)


def _fresh_base() -> Path:
    """The demo always trains: what an earlier one left in its host is taken away."""
    checkout = hashlib.sha256(str(ROOT.resolve()).encode()).hexdigest()[:12]
    base = Path(os.environ["TANDEM_HOME"]) / "demo" / checkout
    shutil.rmtree(base, ignore_errors=True)
    return prepare_base(base, ROOT)
