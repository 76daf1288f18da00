"""`make host`: the real ComfyUI with this pack, miniature models and real clips, until Ctrl-C."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..wan.miniature.random_family import write_family
from .errors import HostError
from .footage import cut_clips, first_frame
from .server import HostServer, free_port, prepare_base

ROOT = Path(__file__).absolute().parents[1]
NUM_CLIPS = 6


def main(argv: Sequence[str]) -> int:
    options = _options(argv)
    base = prepare_base(_base_folder(), ROOT)
    fill_base(base)
    server = HostServer(base, port=free_port(options.port), cpu=not options.gpu)
    try:
        with server:
            print(f"ComfyUI: {server.url}\nIts files: {base}\nIts log: {server.log}")
            print("Ctrl-C stops it.", flush=True)
            while server.running:
                time.sleep(0.5)
        print(
            f"ComfyUI has ended by itself. The end of its log:\n\n{server.tail()}", file=sys.stderr
        )
    except HostError as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0
    return 1


def fill_base(base: Path) -> None:
    """Bring what the example workflows load: miniature models, clips, a first frame."""
    if not any((base / "models" / "text_encoders").glob("*.safetensors")):  # written last
        write_family(base / "models")
    clips = base / "input" / "tandem_demo"
    if len(list(clips.glob("*.mp4"))) < NUM_CLIPS:
        footage = Path(os.environ["TANDEM_FOOTAGE"])
        cut_clips(footage, clips, width=64, height=64, frames=17, count=NUM_CLIPS)
    first_frame(min(clips.glob("*.mp4")), base / "input" / "tandem_demo_first_frame.png")


def _base_folder() -> Path:
    """This checkout's own base directory: what is made in it stays until it is deleted."""
    checkout = hashlib.sha256(str(ROOT.resolve()).encode()).hexdigest()[:12]
    return Path(os.environ["TANDEM_HOME"]) / "host" / checkout


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python dev host", description=__doc__)
    parser.add_argument("--port", type=int, default=8188, help="this port, or the next free one")
    parser.add_argument("--gpu", action="store_true", help="run on the GPU instead of the CPU")
    return parser.parse_args(argv)
