"""`make host`: the real ComfyUI with this pack, miniature models and real clips, until Ctrl-C."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..wan.errors import UserError
from ..wan.miniature.family import install_family
from . import toy_clips
from .errors import HostError
from .footage import CAPTIONS
from .server import HostServer, free_port, prepare_base

ROOT = Path(__file__).absolute().parents[1]


def main(argv: Sequence[str]) -> int:
    options = _options(argv)
    base = prepare_base(_base_folder(), ROOT)
    server = HostServer(base, port=free_port(options.port), cpu=not options.gpu)
    try:
        fill_base(base)
        with server:
            print(f"ComfyUI: {server.url}\nIts files: {base}\nIts log: {server.log}")
            print("Ctrl-C stops it.", flush=True)
            while server.running:
                time.sleep(0.5)
        print(
            f"ComfyUI has ended by itself. The end of its log:\n\n{server.tail()}", file=sys.stderr
        )
    except (HostError, UserError) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0
    return 1


def fill_base(base: Path) -> None:
    """Bring what the example workflows load: the miniature family, toy clips, a first frame, and a few real films."""
    install_family(base / "models")
    clips = base / "input" / "tandem_demo"
    if len(list(clips.rglob("*.mp4"))) < toy_clips.NEW + toy_clips.KNOWN:
        toy_clips.write_dataset(clips, toy_clips.DEMO_MOTION)
    (made,) = toy_clips.first_frames([toy_clips.DEMO_SCENE], base / "input", "tandem_demo")
    os.replace(base / "input" / made, base / "input" / "tandem_demo_first_frame.png")
    if "TANDEM_FOOTAGE" in os.environ:
        _copy_films(Path(os.environ["TANDEM_FOOTAGE"]), base / "input" / "my_clips")


def _copy_films(footage: Path, folder: Path) -> None:
    """Real films for *check_my_dataset*, as they are: there is something to find in them."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    for stem, words in CAPTIONS.items():
        shutil.copyfile(footage / f"{stem}.mp4", folder / f"{stem}.mp4")
        (folder / f"{stem}.txt").write_text(f"{words}\n", encoding="utf-8")


def _base_folder() -> Path:
    """This checkout's own base directory: what is made in it stays until it is deleted."""
    checkout = hashlib.sha256(str(ROOT.resolve()).encode()).hexdigest()[:12]
    return Path(os.environ["TANDEM_HOME"]) / "host" / checkout


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python dev host", description=__doc__)
    parser.add_argument("--port", type=int, default=8188, help="this port, or the next free one")
    parser.add_argument("--gpu", action="store_true", help="run on the GPU instead of the CPU")
    return parser.parse_args(argv)
