"""What radial attention did in the last run: calls with their reasons, times, and what a probe has measured."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import torch

from ...radial_attention.attention import Prepared
from ...radial_attention.grid import TokenGrid

SPARSE = "sparse"
DENSE_STEP, DENSE_BLOCK = "in dense steps", "in dense blocks"


MOST_SPANS = 100_000
"""Of a kind that are kept: a run has some thousands."""


class Span(NamedTuple):
    """A stretch of time on a device. Read later: asking a GPU at once would make it wait."""

    begin: float | torch.cuda.Event
    end: float | torch.cuda.Event

    def seconds(self) -> float:
        begin, end = self
        if isinstance(begin, torch.cuda.Event):
            assert isinstance(end, torch.cuda.Event)
            end.synchronize()
            return begin.elapsed_time(end) / 1000
        assert not isinstance(end, torch.cuda.Event)
        return end - begin


@dataclass
class RadialRecord:
    """Of one MODEL that carries radial attention, from a prompt's first sampler on."""

    calls: Counter[str] = field(default_factory=Counter)
    """Self-attention calls: `sparse`, or why they were dense."""
    control: Counter[str] = field(default_factory=Counter)
    """Those of VACE's control blocks among them."""
    model_calls: int = 0
    missed: int = 0
    """Calls of the network in which no self-attention came by."""
    lines: dict[str, None] = field(default_factory=dict)
    """What a person should know, once each, in order."""
    grids: dict[TokenGrid, Prepared] = field(default_factory=dict)
    times: defaultdict[str, list[Span]] = field(default_factory=lambda: defaultdict(list))
    """Of the network, of sparse and of dense self-attention."""
    errors: defaultdict[tuple[float, int], list[torch.Tensor]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By decay and block: what a probe measured of each call, on the device."""
    prompt: str | None = None
    _lock: Lock = field(default_factory=Lock, repr=False)

    def begin(self, prompt: str | None) -> None:
        """A sampler begins. What is known is of its own prompt alone."""
        with self._lock:
            if prompt is not None and prompt == self.prompt:
                return
            for kept in (self.calls, self.control, self.lines, self.grids, self.times, self.errors):
                kept.clear()
            self.model_calls = self.missed = 0
            self.prompt = prompt

    def count(self, why: str, *, control: bool = False) -> None:
        """One call of self-attention; several GPUs may tell at once."""
        with self._lock:
            self.calls[why] += 1
            self.control[why] += control

    def model_call(self, *, came_by: bool) -> None:
        with self._lock:
            self.model_calls += 1
            self.missed += not came_by

    def say(self, line: str) -> None:
        """Keeps a line, once."""
        self.lines[line] = None

    @contextmanager
    def timed(self, kind: str, device: torch.device) -> Iterator[None]:
        """Measures what is done within, on a CPU or a CUDA device; on others nothing is known of it."""
        begin = _now(device)
        yield
        end = _now(device)
        if begin is not None and end is not None and len(self.times[kind]) < MOST_SPANS:
            self.times[kind].append(Span(begin, end))

    def seconds(self, kind: str) -> float:
        return sum(span.seconds() for span in self.times.get(kind, ()))


def _now(device: torch.device) -> float | torch.cuda.Event | None:
    if device.type == "cpu":
        return time.perf_counter()
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event
