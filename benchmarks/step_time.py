"""Our optimizer step against a bare hand-written loop and against core's TrainLoraNode.

Same model object, latents, rank and targets for ours and the bare loop; core's node trains every weight
of the model, which is its way. They take turns in one process, so drift of the machine cancels.

Core's node at its own `training_dtype = none` computes in bfloat16 (autocast), whatever the model is in. A processor
with bfloat16 units multiplies matrices twice as fast that way; with `fp32` it computes in what the others compute in.
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..wan.families import sigma_range
from ..wan.miniature.layouts import TransformerSize
from . import loops
from .in_host import import_comfy, load_pair, random_clips
from .rows import ratio_row, row, take_turns

LATENT = (5, 16, 16)
# Wan's own text is 512 tokens of width 4096: beside a tiny clip it is most of the work, and core trains the
# layers that embed it. A short text keeps the proportion that a long clip has.
TEXTS = {"Wan's text": (512, 4096), "short text": (16, 64)}
ROUNDS, SWAP_EVERY = 5, 10
WARM, CHANGES = 2, 40
MANY = 100
TINY = TransformerSize(width=64, heads=2, layers=1, ffn_width=64, text_width=16)
COPIES = ("copy_", "_to_copy", "clone")


def main() -> None:
    import_comfy()
    warnings.filterwarnings("ignore", message="CPU Autocast only supports")
    torch.manual_seed(0)
    _overhead()
    for name, text in TEXTS.items():
        size = TransformerSize(width=512, heads=4, layers=4, ffn_width=1024, text_width=text[1])
        print(f"{name} {text}; width {size.width}, {size.layers} layers, latent {LATENT}")
        pair = load_pair(size)
        clips = random_clips(LATENT, count=4, text=text)
        step = _compare(pair, clips, recompute=False)
        _compare(pair, clips, recompute=True)
        _change(pair, step)


def _compare(pair: dict, clips: list, *, recompute: bool) -> float:
    """Rows for one way of keeping activations; returns our seconds a step."""
    high, title = pair["high_noise"], "blocks recomputed" if recompute else "activations kept"
    runs = {
        "ours": lambda: loops.ours(pair, clips, recompute),
        "bare loop": lambda: loops.bare(high, clips, recompute),
        "core, float32": lambda: loops.core(high, clips, recompute),
        "core as it comes, bfloat16": lambda: loops.core(high, clips, recompute, dtype="none"),
    }
    if recompute:
        runs["core, float32, block by block"] = lambda: loops.core(high, clips, True, depth=2)
    seconds = take_turns(runs, ROUNDS)
    for name, values in seconds.items():
        spread = f"({min(values) * 1e3:.1f} to {max(values) * 1e3:.1f})"
        row(f"{title}: {name}, a step", statistics.median(values) * 1e3, unit=" ms", more=spread)
    own = seconds.pop("ours")
    goals = {"bare loop": 1.05, "core, float32": 0.72 if recompute else 0.70}
    for name, values in seconds.items():
        ratio_row(f"{title}: ours / {name}", own, values, goals.get(name))
    return statistics.median(own)


def _overhead() -> None:
    """On a network whose matrix products take no time worth mentioning, what is left is Python's."""
    pair = load_pair(TINY)
    clips = random_clips((1, 4, 4), count=4, text=(4, 16))
    print(
        f"overhead: one block of width {TINY.width}, {MANY} steps a turn, experts changing every 10"
    )
    runs = {
        "ours": lambda: loops.ours(pair, clips, recompute=False, steps=MANY),
        "bare": lambda: loops.bare(pair["high_noise"], clips, recompute=False, steps=MANY),
        "first": lambda: loops.ours(pair, clips, recompute=False, first=True),
    }
    seconds = take_turns(runs, ROUNDS)
    beyond = [(a - b) * 1e3 for a, b in zip(seconds["ours"], seconds["bare"], strict=True)]
    spread = f"({min(beyond):.2f} to {max(beyond):.2f})"
    row("a step beyond a bare loop's", statistics.median(beyond), 2.0, unit=" ms", more=spread)
    row("a bare loop's step", statistics.median(seconds["bare"]) * 1e3, unit=" ms")
    row(
        "from the start to the first step's end",
        statistics.median(seconds["first"]) * 1e3,
        unit=" ms",
    )


def _change(pair: dict, step: float) -> None:
    """To leave one expert and enter the other, adapters attached."""
    from ..nodes.host.borders import gradients
    from ..nodes.host.expert import HostExpert
    from ..wan.lora.adapters import new_adapters, pick_layers

    experts = [HostExpert(model, role, sigma_range(role, 0.9)) for role, model in pair.items()]
    seconds = []
    with gradients(), _Copies() as copies:
        for expert in experts:
            layers = expert.layers()
            shapes = {name: layers[name] for name in pick_layers(layers)}
            expert.attach(new_adapters(shapes, rank=loops.RANK, alpha=1.0, seed=0))
        for turn in range(WARM + CHANGES):
            if turn == WARM:
                copies.num_bytes = 0
            began = time.perf_counter()
            with experts[turn % 2].in_use():
                pass
            seconds.append(time.perf_counter() - began)
        for expert in experts:
            expert.detach()
    change = statistics.median(seconds[WARM:])
    row("change of experts", change * 1e3, unit=" ms")
    share = change / (SWAP_EVERY * step + change)
    row(
        f"change of experts, share of the time at swap_every {SWAP_EVERY}",
        share * 100,
        1.0,
        unit=" %",
    )
    row("change of experts, MiB copied in all", copies.num_bytes / 2**20, 0.0)


class _Copies(TorchDispatchMode):
    """Bytes of all tensors that are copies of others."""

    num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        if func._opname in COPIES:
            self.num_bytes += sum(t.nbytes for t in tree_leaves(out) if isinstance(t, torch.Tensor))
        return out
