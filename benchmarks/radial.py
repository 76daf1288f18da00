"""Radial attention on this machine: tile by tile against dense attention, forwards and backwards, and making a plan."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional as F

from ..radial_attention.gather import gather_attention
from ..radial_attention.grid import TokenGrid
from ..radial_attention.layout import Layout, density
from ..radial_attention.plan import RadialPlan
from ..radial_attention.settings import RadialSettings

GOAL = 0.7
"""Of 1 / density."""
ROUNDS = 3
HEADS, WIDTH = 2, 64
VIDEOS = {
    "832 x 480, 53 frames (21,840 tokens)": TokenGrid(14, 30, 52),
    "832 x 480, 81 frames (32,760 tokens)": TokenGrid(21, 30, 52),
}
LONG = TokenGrid(81, 45, 80)
"""1280 x 720, 321 frames."""
GOAL_MS, GOAL_MB = 50.0, 2.0


def main() -> None:
    print(f"{HEADS} heads of width {WIDTH}, float32, {torch.get_num_threads()} threads.")
    print("Dense is scaled_dot_product_attention over all tokens; rounds take turns.\n")
    print("| video | density | forwards | of 1/density | both ways | of 1/density | goal |")
    print("|---|---|---|---|---|---|---|")
    for name, grid in VIDEOS.items():
        print(_row(name, RadialSettings().layout(grid)))
    print()
    _plan()


def _row(name: str, layout: Layout) -> str:
    share = density(layout)
    forwards, both = _ratios(layout)
    reached = [ratio * share for ratio in (forwards, both)]
    met = "met" if min(reached) >= GOAL else "missed"
    return (
        f"| {name} | {share:.3f} | {forwards:.2f} x faster | {reached[0]:.2f} | {both:.2f} x faster | "
        f"{reached[1]:.2f} | {GOAL}: {met} |"
    )


def _ratios(layout: Layout) -> tuple[float, float]:
    """Dense time over sparse time: forwards, and forwards and backwards. Medians of rounds in turns."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 1, layout.tokens, HEADS, WIDTH)
    q, k, v = torch.randn(shape, generator=generator).unbind()
    calls = {"dense": _dense, "sparse": lambda *x: gather_attention(*x, layout)}
    times: dict[tuple[str, bool], list[float]] = {}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for backwards, seconds in _timed(call, (q, k, v)):
                times.setdefault((name, backwards), []).append(seconds)
    median = {key: statistics.median(values) for key, values in times.items()}
    return tuple(median["dense", way] / median["sparse", way] for way in (False, True))


def _timed(
    call: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]
) -> Iterator[tuple[bool, float]]:
    with torch.no_grad():
        began = time.perf_counter()
        call(*inputs)
        yield False, time.perf_counter() - began
    inputs = tuple(t.clone().requires_grad_() for t in inputs)
    began = time.perf_counter()
    out = call(*inputs)
    torch.autograd.grad(out, inputs, torch.ones_like(out))
    yield True, time.perf_counter() - began


def _dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


def _plan() -> None:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        density(RadialPlan(LONG, RadialSettings().rule(LONG.frame)))
        times.append(1000 * (time.perf_counter() - began))
    tracemalloc.start()
    plan = RadialPlan(LONG, RadialSettings().rule(LONG.frame))
    share = density(plan)
    kept, peak = (n / 1e6 for n in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    middle = statistics.median(times)
    met = "met" if middle <= GOAL_MS and peak <= GOAL_MB else "missed"
    print(
        f"A plan of 1280 x 720, 321 frames ({LONG.tokens:,} tokens), with its density ({share:.3f}): median "
        f"{middle:.2f} ms ({min(times):.2f} to {max(times):.2f}), {kept:.2f} MB kept, {peak:.2f} MB at most. "
        f"Goal {GOAL_MS:g} ms and {GOAL_MB:g} MB: {met}."
    )


if __name__ == "__main__":
    main()
