"""Writes captions in processes that are killed after 0, 1, 2 ... file changes, a folder for each.

python caption_child.py ROOT COUNT      the folders are ROOT/0, ROOT/1 ...; what is done is on stdout
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

OLD = {"one/a.txt": b"old a\r\n", "one/sub/b.txt": b"\xff\xfe old b", "two/c.txt": b"old c"}
CLIPS = ("one/a.mp4", "one/sub/b.mp4", "one/new.mp4", "two/c.mp4", "two/new.mp4")


def dataset(folder: Path):
    """Two dataset folders joined; one clip of each has no caption."""
    from tandem_wan.training.data.dataset import Clip, Dataset
    from tandem_wan.wan.shapes import ClipSize

    clips = tuple(
        Clip(path=folder / name, root=folder / name.split("/")[0], caption="", frames=9, digest="")
        for name in CLIPS
    )
    return Dataset(folder=folder / "one", clips=clips, size=ClipSize(64, 64, 9), fps=16.0)


def fill(folder: Path) -> None:
    for name in CLIPS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name, content in OLD.items():
        (folder / name).write_bytes(content)


def texts(word: str) -> list[str]:
    return [f"{word} {n}" for n in range(len(CLIPS))]


def killed_after(changes: int, work) -> int:
    """The signal that ended a process which does the work, and is killed before it renames once more."""
    child = os.fork()
    if child:
        return os.WTERMSIG(os.waitpid(child, 0)[1])
    rename, left = os.replace, [changes]

    def replace(*paths):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        rename(*paths)

    os.replace = replace
    work()
    os._exit(0)


def make_the_pack_importable() -> None:
    path = Path(__file__).absolute().parents[2] / "conftest.py"
    spec = importlib.util.spec_from_file_location("conftest_of_tests", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def main() -> None:
    make_the_pack_importable()
    from tandem_wan.training.captions.files import undo_captions, write_captions

    root, count = Path(sys.argv[1]), int(sys.argv[2])
    ends = []
    for n in range(count):
        folder = root / "write" / str(n)
        fill(folder)
        ends.append(killed_after(n, lambda at=folder: write_captions(dataset(at), texts("first"))))
        folder = root / "undo" / str(n)
        fill(folder)
        write_captions(dataset(folder), texts("first"))
        ends.append(killed_after(n, lambda at=folder: undo_captions(dataset(at))))
    sys.stdout.write(" ".join(map(str, ends)))


if __name__ == "__main__":
    main()
