"""What each optimizer costs on the adapters of 14B, a quarter as wide: bytes kept for each trained number, and time."""

from __future__ import annotations

import statistics
import time

import torch

from ..training.optimizers.build import build_optimizer
from ..training.optimizers.gradients import GradientSum
from ..training.plans.settings import ExpertSettings, OptimizerSettings
from ..wan.lora.adapters import new_adapters

WIDTH, FFN, RANK, BLOCKS = 5120 // 4, 13824 // 4, 32, 4
RATES = ExpertSettings(rate=1e-4, bump=1e-6, minimum=1e-5, maximum=1e-3)
MEASURED = [
    ("adamw", "float32"),
    ("adamw", "bfloat16"),
    ("adamw kahan", "bfloat16"),
    ("adamw 8-bit", "float32"),
    ("adamw 8-bit kahan", "bfloat16"),
    ("automagic", "float32"),
    ("automagic", "bfloat16"),
    ("prodigy", "float32"),
]
ROUNDS, FIRST = 12, 2


class Subject:
    """An optimizer with adapters of its own, and the same gradients as all."""

    def __init__(self, name: str, dtype: str) -> None:
        self.name, self.dtype = name, dtype
        adapters = new_adapters(
            _shapes(), rank=RANK, alpha=RANK, seed=0, dtype=getattr(torch, dtype)
        )
        self.weights = adapters.to(_device()).parameters()
        self.optimizer = build_optimizer(self.weights, OptimizerSettings(name=name), RATES)
        self.sums = GradientSum(self.weights)
        self.seconds: list[float] = []

    def step(self) -> None:
        """A norm, a clip and a step; the gradients are drawn before the clock runs."""
        random = torch.Generator(_device()).manual_seed(len(self.seconds))
        drawn = (torch.randn(w.shape, generator=random, device=w.device) for w in self.weights)
        self.sums.add([g.to(w.dtype) for g, w in zip(drawn, self.weights, strict=True)])
        began = _now()
        self.sums.clip(1.0)
        self.optimizer.step()
        self.seconds.append(_now() - began)
        self.sums.clear()

    def bytes_a_number(self) -> float:
        """Of the optimizer's memory, for each trained number."""
        kept = sum(
            value.nbytes
            for state in self.optimizer.state.values()
            for value in state.values()
            if torch.is_tensor(value)
        )
        return kept / sum(weight.numel() for weight in self.weights)


def main() -> None:
    subjects = [Subject(name, dtype) for name, dtype in MEASURED]
    # In turns, so that whatever else the machine does meets all of them.
    for _ in range(ROUNDS):
        for subject in subjects:
            subject.step()
    usual = _median(subjects[0])
    count = sum(weight.numel() for weight in subjects[0].weights)
    print(f"{count:,} numbers in {len(subjects[0].weights)} tensors on {_device()}, rank {RANK}\n")
    print("| optimizer | adapters | bytes a number | ms a step | to AdamW of torch |")
    print("| --- | --- | --- | --- | --- |")
    for subject in subjects:
        took = _median(subject)
        print(
            f"| {subject.name} | {subject.dtype} | {subject.bytes_a_number():.3f} | {took * 1e3:.1f} | "
            f"{took / usual:.2f} |"
        )


def _shapes() -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of what a usual LoRA trains."""
    shapes = {}
    for block in range(BLOCKS):
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                shapes[f"blocks.{block}.{attention}.{part}"] = (WIDTH, WIDTH)
        shapes |= {
            f"blocks.{block}.ffn.0": (WIDTH, FFN),
            f"blocks.{block}.ffn.2": (FFN, WIDTH),
        }
    return shapes


def _median(subject: Subject) -> float:
    return statistics.median(subject.seconds[FIRST:])


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
