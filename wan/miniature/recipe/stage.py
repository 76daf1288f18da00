"""One stage of training: a loop that a stop or a crash costs a minute, and that a seed repeats."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ...errors import UserError
from ...lora.files import read_metadata, write_safetensors
from .muon import Muon

logger = logging.getLogger("tandem.miniature")

LossAt = Callable[[int, torch.Generator], torch.Tensor]
"""loss(step, generator): the generator is the same for the same step of the same stage."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What decides the outcome of a stage; a checkpoint of another plan is refused."""

    name: str
    steps: int
    learning_rate: float
    seed: int = 0
    warmup: int = 50
    ema: float = 0.995
    """Share of the running mean of the weights that each step keeps."""


CHECKPOINT_EVERY_S = 60.0
LOG_EVERY_S = 15.0


def train_stage(stage: Stage, network: nn.Module, loss_at: LossAt, folder: Path) -> None:
    """Trains `network` in place and leaves the running mean of its weights in it.

    Writes `folder/<name>.safetensors` when done, and finds it there the next time; on the way
    `<name>.partial.safetensors` holds all that a resumed run needs for the same outcome.
    """
    done = folder / f"{stage.name}.safetensors"
    if done.exists():
        _check_plan(stage, done)
        network.load_state_dict(load_file(done))
        logger.info("%s: found %s", stage.name, done)
        return
    run = _Run(stage, network, folder / f"{stage.name}.partial.safetensors")
    run.resume()
    while run.step < stage.steps:
        run.advance(loss_at)
    network.load_state_dict(run.mean)
    write_safetensors(done, run.mean, {"stage": _plan_json(stage)})
    run.partial.unlink(missing_ok=True)


def step_generator(stage: Stage, step: int) -> torch.Generator:
    """Noise and data of one step; torch's CPU generator takes only the lower 32 bits of a seed."""
    return torch.Generator().manual_seed((1_000_003 * stage.seed + step) % 2**32)


class _Run:
    """Weights, their running mean and the optimizers' memory, at one step."""

    def __init__(self, stage: Stage, network: nn.Module, partial: Path) -> None:
        self.stage, self.network, self.partial = stage, network, partial
        self.step = 0
        self.mean = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.optimizers = _optimizers(network, stage.learning_rate)
        self.saved_s = self.logged_s = time.monotonic()
        self.logged_step, self.losses = 0, []

    def advance(self, loss_at: LossAt) -> None:
        """One step; a log line and a checkpoint when it is time."""
        loss = loss_at(self.step, step_generator(self.stage, self.step))
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.stage.learning_rate * _rate(self.step, self.stage)
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self._average()
        self.losses.append(loss.item())
        if time.monotonic() - self.logged_s > LOG_EVERY_S or self.step == self.stage.steps:
            self._log()
        if time.monotonic() - self.saved_s > CHECKPOINT_EVERY_S:
            self._save()

    def resume(self) -> None:
        if not self.partial.exists():
            return
        _check_plan(self.stage, self.partial)
        tensors = load_file(self.partial)
        self.network.load_state_dict(_under("weights.", tensors))
        self.mean = _under("mean.", tensors)
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in _under(f"optimizer{number}.", tensors).items():
                index, key = name.split(".", 1)
                state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.step = self.logged_step = int(tensors["step"])
        logger.info("%s: resumed at step %d of %d", self.stage.name, self.step, self.stage.steps)

    def _average(self) -> None:
        # A young mean follows quickly, so that it does not carry the random start along.
        keep = min(self.stage.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                self.mean[name].lerp_(tensor, 1 - keep)

    def _log(self) -> None:
        now = time.monotonic()
        seconds = (now - self.logged_s) / max(1, self.step - self.logged_step)
        left = seconds * (self.stage.steps - self.step)
        loss = sum(self.losses) / len(self.losses)
        logger.info(
            "%s: step %d of %d, loss %.4f, %.2f s a step, %.1f min left",
            *(self.stage.name, self.step, self.stage.steps, loss, seconds, left / 60),
        )
        self.logged_s, self.logged_step, self.losses = now, self.step, []

    def _save(self) -> None:
        tensors = {f"weights.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"mean.{k}": v for k, v in self.mean.items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer{number}.{index}.{k}": v for k, v in state.items()}
        tensors["step"] = torch.tensor(self.step)
        write_safetensors(self.partial, tensors, {"stage": _plan_json(self.stage)})
        self.saved_s = time.monotonic()


def _optimizers(network: nn.Module, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for convolutions and for the matrices of a transformer's blocks, AdamW for everything else."""
    inner, outer = [], []
    for name, parameter in network.named_parameters():
        (inner if _is_inner(name, parameter.shape) else outer).append(parameter)
    adamw = torch.optim.AdamW(outer, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [adamw, *([Muon(inner, learning_rate)] if inner else [])]


def _is_inner(name: str, shape: torch.Size) -> bool:
    if name.startswith("patch_embedding") or "bias" in name:
        return False
    # What reads or writes the three colours is no inner layer.
    convolution = len(shape) >= 4 and min(shape[:2]) > 3
    return convolution or (len(shape) == 2 and "block" in name)


def _rate(step: int, stage: Stage) -> float:
    """Up in a straight line, then down to a fiftieth along a cosine."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    position = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * position)) / 2


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _plan_json(stage: Stage) -> str:
    return json.dumps(asdict(stage), sort_keys=True)


def _check_plan(stage: Stage, path: Path) -> None:
    theirs = read_metadata(path, "checkpoint").get("stage", "")
    if theirs != _plan_json(stage):
        raise UserError(
            f"{path} was made by another recipe: {theirs or 'it does not say which'}.",
            f"This one is {_plan_json(stage)}.",
            "Move the file away to train this stage anew.",
        )
