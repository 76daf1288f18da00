"""A real ComfyUI with the pack, driven over HTTP as any user's script would."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tandem_wan.dev.footage import cut_clips, first_frame
from tandem_wan.dev.server import HostServer, prepare_base
from tandem_wan.wan.miniature.family import install_family
from tandem_wan.wan.miniature.layouts import TransformerSize
from tandem_wan.wan.miniature.random_family import write_family

ROOT = Path(__file__).absolute().parents[2]
PACKS = Path(__file__).with_name("packs")


@pytest.fixture(scope="session")
def base(footage, tmp_path_factory) -> Path:
    """The host's folders: the demo's family and clips, and files of every kind that does not fit."""
    base = prepare_base(tmp_path_factory.mktemp("host"), ROOT)
    models = base / "models"
    write_family(models)
    install_family(models)
    _misfits(models)
    clips = base / "input" / "clips"
    cut_clips(footage, clips, width=64, height=64, frames=9, count=3)
    first_frame(min(clips.glob("*.mp4")), base / "input" / "tandem_demo_first_frame.png")
    one = base / "input" / "one_clip"
    one.mkdir()
    for part in sorted(clips.iterdir())[:2]:
        shutil.copyfile(part, one / part.name)
    (base / "input" / "empty").mkdir()
    for pack in PACKS.glob("*.py"):
        shutil.copyfile(pack, base / "custom_nodes" / pack.name)
    return base


@pytest.fixture(scope="session")
def server(base):
    with HostServer(base, nodes=("TandemTrainer",)) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def _misfits(models: Path) -> None:
    write_family(
        models, seed=1, prefix="other", transformer=replace(TransformerSize(), ffn_width=512)
    )
    # A network that the host takes for LTX video: two keys are enough for its detection.
    alien = {
        "adaln_single.emb.timestep_embedder.linear_1.bias": torch.zeros(64),
        "transformer_blocks.0.attn2.to_k.weight": torch.zeros(64, 64),
    }
    save_file(alien, models / "diffusion_models" / "not_wan.safetensors")
    whole = (models / "diffusion_models" / "other_low_noise.safetensors").read_bytes()
    (models / "loras" / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
