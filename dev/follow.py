"""What a prompt does, in a terminal: one line a node, with a bar while it counts."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from .events import Event

BAR_CHARACTERS = 24
TEXT_MESSAGE = 3
"""The host's number for a line of text under a node."""


class Follower:
    """Listens to a prompt's events. On a terminal the running line is drawn anew, elsewhere each node
    gets one line when it is done."""

    def __init__(self, graph: Mapping[str, Any], out: TextIO = sys.stdout) -> None:
        self.titles = {number: node["_meta"]["title"] for number, node in graph.items()}
        self.out, self.live = out, out.isatty()
        self.running: str | None = None
        self.began = 0.0
        self.text = self.bar = ""
        self.done: set[str] = set()

    def __call__(self, event: Event) -> None:
        if event.kind == "execution_cached":
            self.done.update(event.data["nodes"])
        elif event.kind == "executing":
            self._finish()
            self.running, self.began = event.data.get("node"), time.monotonic()
        elif event.kind == "progress" and str(event.data.get("node")) == self.running:
            self.bar = _bar(event.data["value"], event.data["max"])
            self._draw()
        elif event.kind == "tandem.job":
            self.text = " | ".join(event.data["text"].splitlines()[:2])
            self._draw()
        elif event.kind == "binary":
            self._take_text(event.data["bytes"])

    def _take_text(self, message: bytes) -> None:
        (kind,) = struct.unpack(">I", message[:4])
        if kind == TEXT_MESSAGE:
            (length,) = struct.unpack(">I", message[4:8])
            node, text = message[8 : 8 + length].decode(), message[8 + length :].decode()
            if node == self.running:
                self.text = " | ".join(text.splitlines()[:2])
                self._draw()

    def _draw(self) -> None:
        if self.live and self.running:
            line = f"{self._head()} {self.bar} {self.text}"
            self.out.write(f"\r\x1b[2K{line[:150]}")
            self.out.flush()

    def _finish(self) -> None:
        if self.running is None:
            return
        self.done.add(self.running)
        seconds = time.monotonic() - self.began
        start = "\r\x1b[2K" if self.live else ""
        tail = f"  {self.text[:100]}" if self.text else ""
        self.out.write(f"{start}{self._head()} {seconds:5.1f} s{tail}\n")
        self.out.flush()
        self.running, self.text, self.bar = None, "", ""

    def _head(self) -> str:
        title = self.titles.get(str(self.running), str(self.running))
        return f"  [{len(self.done | {str(self.running)}):2}/{len(self.titles)}] {title:28}"


def _bar(value: float, most: float) -> str:
    filled = round(BAR_CHARACTERS * value / most) if most else 0
    return f"[{'#' * filled}{'.' * (BAR_CHARACTERS - filled)}] {value:.0f}/{most:.0f}"
