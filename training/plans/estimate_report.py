"""What a run will take on one machine, in words: time, memory, disk, whether it fits, and what to do if not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from ...wan.shapes import ClipSize
from ..data.dataset import Dataset
from .estimate import disk_bytes, largest_clip, run_flops
from .estimate_memory import DeviceBytes, device_bytes, offloaded_bytes, swapped_bytes
from .network_sizes import FP8, NetworkSize
from .plan import TrainingPlan

GIB = 1024**3
EFFICIENCY = 0.7
"""A step's pace over that of large matrix products (ours): one published run of Wan 2.1 14B on an H200 fits 53 % of
the card's nominal pace, of which large products reach about three quarters."""
LACKS = "does not fit"
FAR_TOO_LONG_S = 30 * 86_400.0
"""A run that nobody waits for (ours)."""
SMALL_AREA = 832 * 480
FEWER_FRAMES = (49, 17)
SMALL_RANK = 16
SWAPPED_SHARE = 0.75
"""Of the blocks, where swapping is proposed: 30 of 14B's 40, as others do on a card of 12 to 24 GB."""
MARGIN = 0.95
"""Share of the free memory that may be planned with; the rest is fragmentation (ours)."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is here to compute with. Bytes are free ones; models that ComfyUI can move away count as free."""

    device: str
    has_own_memory: bool
    """False where the device computes in main memory."""
    device_free: float
    ram_free: float
    disk_free: float
    flops_per_s: float | None = None
    """Of large matrix products, measured; None where it was not."""


class Load(NamedTuple):
    """What decides the memory: a plan on a network, and the size of the largest clip."""

    plan: TrainingPlan
    network: NetworkSize
    size: ClipSize

    def bytes(self) -> DeviceBytes:
        """On the device, with one expert there."""
        return device_bytes(self.network, self.plan, self.network.tokens(self.size))


def estimate_report(
    plan: TrainingPlan, dataset: Dataset, network: NetworkSize, machine: Machine
) -> list[str]:
    """Lines for people: time, memory on the device, main memory, disk; each with a verdict where there is one."""
    if not dataset.clips:
        return []
    size = largest_clip(network, {dataset.clip_size(clip) for clip in dataset.clips})
    load = Load(plan, network, size)
    needed, disk = load.bytes(), disk_bytes(network, plan, dataset)
    return [
        f"Estimate for {machine.device} with {network.name}, {size.width} x {size.height}, {_frames(size)} "
        f"({network.tokens(size):,} tokens):",
        f"  time: {_time(run_flops(network, plan, dataset), machine)}",
        f"  device memory: {_gib(needed.total)} (weights {_gib(needed.weights)}, adapters and optimizer "
        f"{_gib(needed.adapters)}, activations {_gib(needed.activations)}), free {_gib(machine.device_free)}: "
        f"{'fits' if fits(load, machine) else 'does not fit'}",
        *_main_memory(load, machine),
        f"  disk: {_gib(disk.total)} (encoded clips {_gib(disk.cache)}, {disk.num_checkpoints} checkpoints "
        f"{_gib(disk.checkpoints)}), free {_gib(machine.disk_free)}: {_disk_verdict(disk.total, machine)}",
        "  Calculated, not measured. Encoding the clips, previews and the change of experts are not counted.",
    ]


def fit_report(
    plan: TrainingPlan, dataset: Dataset, network: NetworkSize, machine: Machine
) -> list[str]:
    """For a verdict: whether the run fits here and how long it takes, and a line with what would help if not."""
    if not dataset.clips:
        return []
    size = largest_clip(network, {dataset.clip_size(clip) for clip in dataset.clips})
    load = Load(plan, network, size)
    lacks = ["" if fits(load, machine) else "memory"]
    lacks.append("" if _waits_in(load, machine) else "main memory")
    disk = disk_bytes(network, plan, dataset).total
    lacks.append("" if disk <= machine.disk_free else "disk space")
    short_of = " and ".join(filter(None, lacks))
    on = f"on {machine.device}"
    verdict = f"{LACKS} {on} (too little {short_of})" if short_of else f"fits {on}"
    seconds = run_seconds(run_flops(network, plan, dataset), machine)
    if seconds is not None:
        verdict += f", {_length(seconds)}"
    remedies = [] if fits(load, machine) else [_memory_advice(load, machine)]
    return [verdict, *remedies, *_too_slow(seconds, machine)]


def _too_slow(seconds: float | None, machine: Machine) -> list[str]:
    if seconds is None or seconds < FAR_TOO_LONG_S:
        return []
    other = "a faster one" if machine.has_own_memory else "a graphics card"
    return [f"Time is far too long here: train on {other}, a smaller model, or smaller clips."]


def _length(seconds: float) -> str:
    far = f"far too long there ({duration(seconds)})"
    return far if seconds >= FAR_TOO_LONG_S else f"about {duration(seconds)}"


def run_seconds(flops: float, machine: Machine) -> float | None:
    """How long so many operations take at a step's pace; None where the pace was not measured."""
    return flops / (EFFICIENCY * machine.flops_per_s) if machine.flops_per_s else None


def _frames(size: ClipSize) -> str:
    return "a picture" if size.frames == 1 else f"{size.frames} frames"


def fits(load: Load, machine: Machine) -> bool:
    """Whether a micro-batch fits on the device."""
    needed = load.bytes().total
    if not machine.has_own_memory:
        needed += _waiting_bytes(load) + _brought_bytes(load, machine)
    return needed <= MARGIN * machine.device_free


def way_to_fit(load: Load, machine: Machine) -> tuple[list[str], bool]:
    """(changes, whether it fits with all of them), one after the other until it fits; each is something that this
    pack can do, the ones that cost least first."""
    changes: dict[str, str] = {}
    for kind, change in _CHANGES:
        if fits(load, machine):
            break
        if kind in _MOVES and not machine.has_own_memory:
            continue
        if (changed := change(load)) is not None:
            # A further change of the same kind takes the place of the first.
            changes[kind], load = changed
    return list(changes.values()), fits(load, machine)


Changed = tuple[str, Load] | None


def _recompute(load: Load) -> Changed:
    if load.plan.checkpoint_blocks:
        return None
    return "checkpoint_blocks true", load._replace(plan=replace(load.plan, checkpoint_blocks=True))


def _one_clip(load: Load) -> Changed:
    if load.plan.batch == 1:
        return None
    plan = replace(load.plan, batch=1, accumulate=load.plan.accumulate * load.plan.batch)
    return f"batch 1, accumulate {plan.accumulate}", load._replace(plan=plan)


def _fp8(load: Load) -> Changed:
    if load.network.weight_bytes <= 1.2 * FP8 * load.network.num_params:
        return None
    weight_bytes = FP8 * load.network.num_params
    return "a model file in fp8", load._replace(
        network=replace(load.network, weight_bytes=weight_bytes)
    )


def _offload(load: Load) -> Changed:
    plan = load.plan
    if plan.offload_activations or not plan.checkpoint_blocks:
        return None
    return "offload_activations true", load._replace(plan=replace(plan, offload_activations=True))


def _swap(load: Load) -> Changed:
    plan, many = load.plan, int(SWAPPED_SHARE * load.network.num_blocks)
    if plan.swap_blocks >= many or not plan.checkpoint_blocks:
        return None
    return f"swap_blocks {many}", load._replace(plan=replace(plan, swap_blocks=many))


def _smaller(load: Load) -> Changed:
    area = load.size.width * load.size.height
    if area <= SMALL_AREA:
        return None
    shrink = (SMALL_AREA / area) ** 0.5
    width, height = (max(16, int(side * shrink) // 16 * 16) for side in load.size[:2])
    size = load.size._replace(width=width, height=height)
    return f"clips of {width} x {height} (480p)", load._replace(size=size)


def _shorter(load: Load, frames: int) -> Changed:
    if load.size.frames <= frames:
        return None
    return f"{frames} frames", load._replace(size=load.size._replace(frames=frames))


def _lower_rank(load: Load) -> Changed:
    lora = load.plan.lora
    if lora.rank <= SMALL_RANK:
        return None
    alpha = lora.alpha * SMALL_RANK / lora.rank
    plan = replace(load.plan, lora=replace(lora, rank=SMALL_RANK, alpha=alpha))
    return f"rank {SMALL_RANK}, alpha {alpha:g}", load._replace(plan=plan)


_MOVES = ("offload", "swap")
"""Changes that move bytes to main memory, which helps where the device has its own."""
_CHANGES: tuple[tuple[str, Callable[[Load], Changed]], ...] = (
    ("recompute", _recompute),
    ("batch", _one_clip),
    ("weights", _fp8),
    ("offload", _offload),
    ("swap", _swap),
    ("size", _smaller),
    *(("frames", partial(_shorter, frames=frames)) for frames in FEWER_FRAMES),
    ("rank", _lower_rank),
)


def _memory_advice(load: Load, machine: Machine) -> str:
    changes, enough = way_to_fit(load, machine)
    if enough:
        return f"It would fit with {', '.join(changes)}."
    tried = f"It would not fit with {', '.join(changes)} either: train" if changes else "Train"
    return f"{tried} a smaller model (Wan 1.3B or 5B), or on a larger card."


def _waiting_bytes(load: Load) -> float:
    """Weights of the expert whose turn it is not."""
    return load.network.weight_bytes * (len(load.plan.roles()) - 1)


def _brought_bytes(load: Load, machine: Machine) -> float:
    """What the expert at work has in main memory: swapped blocks and activations."""
    plan, network, size = load
    activations = offloaded_bytes(
        network, plan, network.tokens(size), pinned=machine.has_own_memory
    )
    return swapped_bytes(network, plan) + activations


def _waits_in(load: Load, machine: Machine) -> bool:
    """Whether there is room for the expert that waits, on the device or in main memory, and for what is brought."""
    if not machine.has_own_memory:
        return True  # in the device's own account
    return _in_ram(load, machine) <= MARGIN * machine.ram_free


def _in_ram(load: Load, machine: Machine) -> float:
    waiting, brought = _waiting_bytes(load), _brought_bytes(load, machine)
    room = MARGIN * machine.device_free - load.bytes().total
    # A waiting expert leaves its swapped blocks where they are.
    resident = waiting - swapped_bytes(load.network, load.plan) * (len(load.plan.roles()) - 1)
    return brought + (waiting - resident if room >= resident else waiting)


def _main_memory(load: Load, machine: Machine) -> list[str]:
    waiting, brought = _waiting_bytes(load), _brought_bytes(load, machine)
    if not waiting and not brought:
        return []
    what = ["the expert that waits"] if waiting else []
    what += ["swapped blocks"] if load.plan.swap_blocks else []
    what += ["activations"] if load.plan.offload_activations else []
    if not machine.has_own_memory:
        takes = "takes" if len(what) == 1 and waiting else "take"
        return [f"  main memory: {' and '.join(what)} {takes} {_gib(waiting + brought)} of it too"]
    if not _in_ram(load, machine):
        return ["  main memory: little, since both experts fit on the device"]
    verdict = "fits" if _waits_in(load, machine) else "does not fit; use files in fp8"
    return [
        f"  main memory: {_gib(_in_ram(load, machine))} for {' and '.join(what)}, free {_gib(machine.ram_free)}: "
        f"{verdict}"
    ]


def _disk_verdict(needed: float, machine: Machine) -> str:
    return (
        "fits"
        if needed <= machine.disk_free
        else "does not fit; raise save_every, prune checkpoints, or make room"
    )


def _time(flops: float, machine: Machine) -> str:
    seconds = run_seconds(flops, machine)
    if seconds is None:
        return "not known, since the device was not measured"
    long = "far too long here, " if seconds >= FAR_TOO_LONG_S else ""
    return (
        f"{long}about {duration(seconds)}, from the speed of matrix products that was measured here, of which a step "
        f"is assumed to reach {EFFICIENCY:.0%}"
    )


def duration(seconds: float) -> str:
    """`50 s`, `12 minutes`, `3.5 hours`, `2.0 days`, `46 years`: as exact as an estimate is."""
    for least, unit, name in (
        (3.2e7, 31_557_600, "years"),
        (172_800, 86_400, "days"),
        (5400, 3600, "hours"),
    ):
        if seconds >= least:
            count = seconds / unit
            return f"{count:.1f} {name}" if count < 10 else f"{count:,.0f} {name}"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(1, seconds):.0f} s"


def _gib(num_bytes: float) -> str:
    gib = num_bytes / GIB
    return f"{gib:.1f} GiB" if gib >= 1 else f"{num_bytes / 1024**2:.0f} MiB"
