"""What a stack of LoRAs costs: putting it on, every step afterwards, and the report of a file from its header.

Against core's own loaders and against merged weights, in one process. The ways take turns, so drift of the machine
cancels. `TANDEM_STACKS=small` in the environment makes a quick try-out of it, whose figures mean nothing.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from ..wan.miniature.layouts import TransformerSize
from .in_host import import_comfy
from .stack_rig import RANK, Rig, Scale, image_to_video_layout, linear_shapes, write_lora

Value = TypeVar("Value")

SMALL = os.environ.get("TANDEM_STACKS") == "small"
WIDE = Scale(
    "a quarter of the width of 14B, 10 of its 40 blocks",
    TransformerSize(width=1280, heads=10, layers=10, ffn_width=3456, text_width=256),
    latent=(1, 32, 32),
)
BLOCK = Scale(
    "one block in the full width of 14B",
    TransformerSize(width=5120, heads=40, layers=1, ffn_width=13824, text_width=256),
    latent=(1, 32, 32),
)
TINY = Scale(
    "a try-out",
    TransformerSize(width=256, heads=2, layers=4, ffn_width=512, text_width=64),
    latent=(1, 16, 16),
)
SCALES = (TINY,) if SMALL else (WIDE, BLOCK)
PUT_ON_ROUNDS, STEP_ROUNDS, HEADERS = (2, 2, 20) if SMALL else (5, 3, 200)
APPLIED = 4
NUMBERS = (1, 2, 4, 8)
"""LoRAs on one expert."""
APPLY_GOAL, HEADER_GOAL_MS = 0.5, 10.0


class PutOn(NamedTuple):
    """Seconds of one way to put a stack on."""

    loaders: float
    """Files read, a MODEL that carries them returned."""
    ready: float
    """And that MODEL ready to sample."""


def main() -> None:
    import_comfy()
    # Threads wait for each other: where anything else runs, two of them take many times as long as one.
    torch.set_num_threads(1)
    _say_load()
    _reports()
    for scale in SCALES:
        size = scale.size
        print(
            f"\n{scale.words}: width {size.width}, feed-forward {size.ffn_width}, blocks: {size.layers}; LoRAs "
            f"of rank {RANK}, bf16, on {10 * size.layers} layers each",
            flush=True,
        )
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            rig = Rig(scale, Path(folder), max(NUMBERS))
            # As on a GPU, and as the host holds them on a CPU, where steps are then as fast as they can be.
            for held in (torch.bfloat16, torch.float32):
                rig.hold(held)
                _put_on(rig, held)
            _steps(rig)
        _say_load()


def _put_on(rig: Rig, held: torch.dtype) -> None:
    """`APPLIED` files, from disk to ready, beside core's loaders; the base is loaded before each turn."""
    names = rig.names[:APPLIED]
    ways = {
        "ours, model never seen": lambda: _ours(rig, names, first=True),
        "ours": lambda: _ours(rig, names, first=False),
        "ours, merged": lambda: _timed(rig, lambda model: rig.ours(names, model, "merge")),
        "core": lambda: _timed(rig, lambda model: rig.core(names, model)),
    }
    seconds = _take_turns(PUT_ON_ROUNDS, ways)
    ready = {name: [taken.ready for taken in of_way] for name, of_way in seconds.items()}
    print(f"  {APPLIED} LoRAs put on, until ready to sample; weights held in {held}")
    for name, of_way in seconds.items():
        loaders = statistics.median(taken.loaders for taken in of_way)
        print(f"    {name:24} {_ms(ready[name])}, the loaders {loaders * 1e3:.0f} ms of it")
    for name in list(ways)[:-1]:
        goal = "" if "merged" in name else f", goal {APPLY_GOAL}"
        print(f"    {name:24} / core {_ratio(ready[name], ready['core'])}{goal}", flush=True)


def _ours(rig: Rig, names: Sequence[str], *, first: bool) -> PutOn:
    """first: as on a model that was just loaded, the norms of whose weights are not known yet."""
    from ..nodes.host import parameters

    if first:
        parameters._norms.pop(rig.model.model, None)
    return _timed(rig, lambda model: rig.ours(names, model))


def _timed(rig: Rig, put_on: Callable[[object], object]) -> PutOn:
    model = rig.fresh()
    began = time.perf_counter()
    patched = put_on(model)
    loaded = time.perf_counter()
    rig.load(patched)
    return PutOn(loaded - began, time.perf_counter() - began)


def _steps(rig: Rig) -> None:
    """A forward step with every number of LoRAs, beside the model alone, merged ones and core's bypass."""
    base, most = rig.fresh(), rig.names
    models = {"alone": base}
    models |= {f"injected {n}": rig.ours(rig.names[:n], base) for n in NUMBERS}
    models[f"merged {len(most)}"] = rig.ours(most, base, "merge")
    models["core's bypass 1"] = rig.bypass(rig.names[0], base)
    _require_same_effect(rig, models)
    ways = {name: lambda m=model: _step(rig, m) for name, model in models.items()}
    seconds = _take_turns(STEP_ROUNDS, ways)
    rig.fresh()  # Takes off the last one while it is alive.
    print(f"  a step, {rig.scale.tokens} tokens")
    for name, of_model in seconds.items():
        print(
            f"    {name:16} {_ms(of_model)}, {_ratio(of_model, seconds['alone'])} of the model alone"
        )
    for number in NUMBERS:
        ratio = _ratio(seconds[f"injected {number}"], seconds[f"merged {len(most)}"])
        work = 1 + _extra_work(rig, number)
        print(f"    injected {number} / merged {ratio}; operations in the linear layers {work:.3f}")


def _require_same_effect(rig: Rig, models: dict[str, object]) -> None:
    """What is timed does what it should: each pair has the same effect but for the merged weights' rounding."""
    seen = {}
    for name in ("alone", "injected 1", "core's bypass 1", "injected 8", "merged 8"):
        rig.load(models[name])
        seen[name] = rig.step(models[name])
    for one, other in (("injected 1", "core's bypass 1"), ("injected 8", "merged 8")):
        effect = (seen[one] - seen["alone"]).norm()
        apart = ((seen[one] - seen[other]).norm() / effect).item()
        print(f"  {one} and {other} are {apart:.1e} of the effect apart")
        assert apart < 0.5, f"{one} and {other} differ"


def _extra_work(rig: Rig, number: int) -> float:
    from ..wan.lora.estimate import LoraWork, extra_flop_share

    works = [
        LoraWork(name, RANK, inputs, outputs) for name, (outputs, inputs) in rig.layers.items()
    ]
    return extra_flop_share(works * number)


def _step(rig: Rig, model: object) -> float:
    """Seconds of a step, after one that warms up."""
    rig.load(model)
    rig.step(model)
    began = time.perf_counter()
    rig.step(model)
    return time.perf_counter() - began


def _reports() -> None:
    """A file's report from its header, with every module of Wan 2.1 14B image-to-video."""
    from ..wan.lora.files import lora_header
    from ..wan.lora.report import Placement, header_report

    shapes = image_to_video_layout()
    layers = linear_shapes(shapes)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lora.safetensors"
        write_lora(file, layers, rank=1)
        wall, cpu = [], []
        for _ in range(HEADERS + 1):
            began = time.perf_counter(), time.process_time()
            report = header_report(lora_header(file), shapes, Placement(file.name, "single", ""))
            wall.append(time.perf_counter() - began[0])
            cpu.append(time.process_time() - began[1])
        assert report.matched == len(layers)
    print(f"the report of a file of {report.matched} modules from its header, {HEADERS} times")
    for name, seconds in (("wall time", wall), ("process time", cpu)):
        print(
            f"  {name:12} {_ms(seconds[1:], digits=1)}, the first {seconds[0] * 1e3:.1f} ms; goal "
            f"{HEADER_GOAL_MS:g} ms",
            flush=True,
        )


def _take_turns(rounds: int, ways: Mapping[str, Callable[[], Value]]) -> dict[str, list[Value]]:
    taken: dict[str, list[Value]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            found = way()
            if turn:  # the first turn warms up: files come into memory, libraries claim buffers
                taken[name].append(found)
    return taken


def _ms(seconds: Sequence[float], digits: int = 0) -> str:
    middle, least, most = (
        f"{value * 1e3:.{digits}f}"
        for value in (statistics.median(seconds), min(seconds), max(seconds))
    )
    return f"{middle} ms ({least} to {most})"


def _ratio(own: Sequence[float], other: Sequence[float]) -> str:
    """Of values of the same turn."""
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def _say_load() -> None:
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"
    threads = torch.get_num_threads()
    print(f"load of the machine {load} on {os.cpu_count()} cores; threads: {threads}", flush=True)
