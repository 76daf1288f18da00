"""Clips streamed from the cache: memory of 100 and of 10,000 of them, and the time of an entry."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch

from ..training.cache.files import entry_key
from ..training.cache.latent_cache import EntryReader, LatentCache
from ..training.expert_trainer import ExpertTrainer
from ..training.plans.plan import TrainingPlan
from ..training.samples import CachedSamples, ClipKeys, ViewKeys, stack_batch
from ..wan.expert import LinearShape

COUNTS = (100, 10_000)
LATENT, TEXT = (16, 3, 10, 12), (512, 256)
MEMORY_BYTES = 4 << 20
"""In the proportion that the real bound has to 5,000 clips at 832 x 480 and 81 frames."""
REAL = {"latent of 832 x 480 x 81": (16, 21, 60, 104), "text of 512 tokens": (512, 4096)}
STEPS = 12_000
MIB = 1 << 20


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = LatentCache(Path(folder))
        began = time.perf_counter()
        clips = _fill(cache, max(COUNTS))
        print(f"{len(clips)} clips written in {time.perf_counter() - began:.1f} s")
        # The first walk takes what libraries and allocator take once.
        _walk(cache, clips[: COUNTS[0]])
        before = _resident()
        for count in COUNTS:
            peak, seconds = _walk(cache, clips[:count])
            size = count * 2 * _bytes(LATENT) / MIB
            print(
                f"{count:6} clips, {size:6.1f} MiB of latents: peak {(peak - before) / MIB:+5.1f} MiB resident, "
                f"{seconds * 1e3:.2f} ms a micro-batch"
            )
        for name, shape in REAL.items():
            _time_entry(cache, name, shape)


def _fill(cache: LatentCache, count: int) -> list[ClipKeys]:
    """Clips of small latents that share one caption."""
    text = _put(cache, "text", torch.ones(TEXT))
    return [
        ClipKeys(
            name=f"{number}.mp4",
            shape=LATENT,
            text=text,
            views=(
                ViewKeys(
                    _put(cache, f"x0 {number}", torch.full(LATENT, 0.5)),
                    _put(cache, f"image {number}", torch.full(LATENT, 0.25)),
                ),
            ),
        )
        for number in range(count)
    ]


def _put(cache: LatentCache, name: str, tensor: torch.Tensor) -> str:
    key = entry_key("benchmark", {"name": name})
    cache.write(key, tensor, name)
    return key


def _walk(cache: LatentCache, clips: list[ClipKeys]) -> tuple[int, float]:
    """Largest resident size while the loop draws its micro-batches, and seconds for one."""
    expert = SimpleNamespace(
        role="single", layers=lambda: {"blocks.0.self_attn.q": LinearShape(4, 4)}
    )
    samples = CachedSamples(clips, EntryReader(cache, memory_bytes=MEMORY_BYTES))
    trainer = ExpertTrainer(TrainingPlan(family="single model"), expert, samples)
    peak, seconds, device = 0, 0.0, torch.device("cpu")
    for index in range(STEPS):
        began = time.perf_counter()
        stack_batch(trainer._clips_of(index), device)
        seconds += time.perf_counter() - began
        if index % 1000 == 999:
            peak = max(peak, _resident())
    return peak, seconds / STEPS


def _time_entry(cache: LatentCache, name: str, shape: tuple[int, ...]) -> None:
    """Of a text, the first 40 tokens are filled, as in a caption."""
    tensor = torch.randn(shape)
    if len(shape) == 2:
        tensor[40:] = 0
    key = _put(cache, name, tensor)
    actions: dict[str, Callable[[], object]] = {
        "write": lambda: cache.write(key, tensor, name),
        "read": lambda: cache.read(key),
        "verify": lambda: cache.verified(key),
    }
    parts = [f"{what} {_median(action) * 1e3:.1f} ms" for what, action in actions.items()]
    print(f"{name}, {_bytes(shape) / MIB:.1f} MiB: {', '.join(parts)}")


def _median(action: Callable[[], object], times: int = 15) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _bytes(shape: tuple[int, ...]) -> int:
    return 4 * torch.Size(shape).numel()


def _resident() -> int:
    """After the allocator has given back what nobody uses."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss
