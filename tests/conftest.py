"""What every test stands on: the pack under its own name, the host in this process, the host as a server."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).absolute().parents[1]


def _load_pack() -> None:
    spec = importlib.util.spec_from_file_location("tandem_pack_loader", ROOT / "dev" / "pack.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    loader.load_pack(ROOT)


_load_pack()


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The host's tree."""
    if "TANDEM_COMFYUI" not in os.environ:
        pytest.skip("needs the development host: run `make test`")
    return Path(os.environ["TANDEM_COMFYUI"])


@pytest.fixture(scope="session")
def footage() -> Path:
    """Real films."""
    if "TANDEM_FOOTAGE" not in os.environ:
        pytest.skip("needs the films of the development host: run `make test`")
    return Path(os.environ["TANDEM_FOOTAGE"])


@pytest.fixture(scope="session")
def comfy(comfyui):
    """ComfyUI imported into this process, on the CPU."""
    # The pack's root would hide the host's `nodes` module.
    sys.path[:] = [str(comfyui), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    from comfy.cli_args import args

    args.cpu = True
    # Toy networks gain nothing from a second thread, and on a busy machine they wait for it.
    torch.set_num_threads(1)
    import comfy.sd

    import nodes

    assert Path(nodes.__file__).parent == comfyui
    return comfy


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """The files of a tiny Wan 2.2 image-to-video family."""
    from tandem_wan.wan.miniature.random_family import write_family

    return write_family(tmp_path_factory.mktemp("family") / "models")


@pytest.fixture(scope="session")
def clips(footage, tmp_path_factory) -> Path:
    """A folder of three real clips with captions, 64x64, 9 frames."""
    from tandem_wan.dev.footage import cut_clips

    folder = tmp_path_factory.mktemp("clips")
    cut_clips(footage, folder, width=64, height=64, frames=9, count=3)
    return folder
