"""Makes the LoRAs of the proof with the shipped workflow, and lays them beside the miniature family."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ...dev.client import HostClient
from ...dev.follow import Follower
from ...dev.host import fill_base
from ...dev.server import HostServer, prepare_base
from ...dev.testing import Graph, ancestors, number_of
from ...dev.toy_clips import write_dataset
from ...wan.lora.files import read_metadata
from ...wan.miniature.family import SHIPPED_LORAS
from .loras import LORAS, ProofLora

ROOT = Path(__file__).absolute().parents[2]
WORKFLOW = ROOT / "workflows" / "api" / "train_and_sample.json"


def main(names: Sequence[str] = ()) -> None:
    """Trains the named LoRAs, or all; about 1.5 minutes, 7 and 17 on two cores."""
    with tempfile.TemporaryDirectory() as folder:
        base = prepare_base(Path(folder), ROOT)
        fill_base(base)
        with HostServer(base, nodes=("TandemTrainer",)) as server, server.client() as client:
            for name in names or LORAS:
                teach(client, base, LORAS[name])
                keep(base, LORAS[name])


def teach(client: HostClient, base: Path, lora: ProofLora) -> None:
    """Trains a pair as anyone would who changes the shipped graph's folder, name and plan."""
    graph = teaching_graph(base, lora)
    client.run(graph, Follower(graph), timeout_s=3600)


def teaching_graph(base: Path, lora: ProofLora) -> Graph:
    """The shipped graph up to its trainer, with this lesson's dataset in the host's input folder."""
    whole = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    trainer = number_of(whole, "Train both experts")
    graph = ancestors(whole, trainer)
    write_dataset(base / "input" / lora.name, lora.lesson.name)
    graph[number_of(graph, "Clips to learn from")]["inputs"]["folder"] = lora.name
    plan = graph[number_of(graph, "The same for tiny networks")]["inputs"]
    plan["changes"] = json.dumps(lora.plan)
    graph[trainer]["inputs"]["name"] = lora.name
    return graph


def keep(base: Path, lora: ProofLora, folder: Path = SHIPPED_LORAS) -> None:
    """Ships the trained pair in half precision, which halves the files."""
    folder.mkdir(exist_ok=True)
    for role in ("high_noise", "low_noise"):
        trained = base / "models" / "loras" / f"{lora.name}_{role}.safetensors"
        halves = {name: t.to(torch.float16) for name, t in load_file(trained).items()}
        target = folder / lora.file(role)
        beside = target.with_name(f".{target.name}")
        save_file(halves, beside, metadata=dict(read_metadata(trained)))
        shutil.move(beside, target)
