"""A toy expert with real gradients, and plans and clips small enough for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import settings
from tandem_wan.training.loop import ExpertTrainer, build_trainers
from tandem_wan.training.plan import (
    LoraSettings,
    OptimizerSettings,
    RateSettings,
    TrainingPlan,
)
from tandem_wan.training.samples import EncodedClip
from tandem_wan.wan.expert import LinearShape
from tandem_wan.wan.families import sigma_range

# The same examples each time, however busy the machine is.
settings.register_profile("tandem", deadline=None, derandomize=True)
settings.load_profile("tandem")

CHANNELS, TEXT_WIDTH, WIDTH = 4, 6, 24
INPUTS = 2 * CHANNELS + TEXT_WIDTH + 1


class ToyExpert:
    """One linear and one hidden layer over each latent cell; keeps a log of what is done to it."""

    def __init__(self, role: str, *, boundary: float = 0.9, log: list | None = None) -> None:
        self.role = role
        self.sigma_range = sigma_range(role, boundary)
        self.device = torch.device("cpu")
        self.log = [] if log is None else log
        self.before_velocity: Callable[[int], None] = lambda call: None
        self.after_velocity: Callable[[int, torch.Tensor], torch.Tensor] = lambda call, v: v
        self.attached: Any = None
        self.resident = False
        self.calls = 0
        self._shapes = {
            "blocks.0.self_attn.o": LinearShape(INPUTS, CHANNELS),
            "blocks.0.ffn.0": LinearShape(INPUTS, WIDTH),
            "blocks.0.ffn.2": LinearShape(WIDTH, CHANNELS),
        }
        generator = torch.Generator().manual_seed(len(role))
        self.base = {
            name: torch.nn.Parameter(
                torch.randn(shape.outputs, shape.inputs, generator=generator) / shape.inputs**0.5
            )
            for name, shape in self._shapes.items()
        }

    def layers(self) -> dict[str, LinearShape]:
        return {**self._shapes, "head.head": LinearShape(WIDTH, CHANNELS)}

    def attach(self, adapters) -> None:
        assert self.attached is None
        self.attached = adapters

    def detach(self) -> None:
        self.attached = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self.log.append(("in", self.role))
        self.resident = True
        try:
            yield
        finally:
            self.resident = False
            self.log.append(("out", self.role))

    def velocity(self, x_t, sigma, context, image_condition, attention=None) -> torch.Tensor:
        assert self.resident, "weights compute only while in use"
        call, self.calls = self.calls, self.calls + 1
        self.log.append(("velocity", self.role, sigma.clone()))
        self.before_velocity(call)
        cells = rearrange(x_t, "b c f h w -> b (f h w) c")
        picture = torch.zeros_like(cells)
        if image_condition is not None:
            picture = rearrange(image_condition.latent, "b c f h w -> b (f h w) c")
        count = cells.shape[1]
        text = context.mean(dim=1, keepdim=True).expand(-1, count, -1)
        level = sigma.view(-1, 1, 1).expand(-1, count, 1)
        x = torch.cat([cells, picture, text, level], dim=-1)
        hidden = torch.nn.functional.gelu(self._linear("blocks.0.ffn.0", x))
        v = self._linear("blocks.0.self_attn.o", x) + self._linear("blocks.0.ffn.2", hidden)
        _, _, f, h, w = x_t.shape
        v = rearrange(v, "b (f h w) c -> b c f h w", f=f, h=h, w=w)
        return self.after_velocity(call, v)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = x @ self.base[name].T
        return y + self.attached[name](x) if name in self.attached else y


def toy_clips(count: int = 5, *, with_picture: bool = True) -> list[EncodedClip]:
    """Clips around one common colour, so that there is something to learn."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(CHANNELS, 1, 1, 1, generator=generator).expand(CHANNELS, 3, 2, 2)
    clips = []
    for index in range(count):
        x0 = common + 0.1 * torch.randn(common.shape, generator=generator)
        picture = {
            "mask": torch.zeros(4, 3, 2, 2),
            "image_latent": torch.randn(common.shape, generator=generator),
        }
        clips.append(
            EncodedClip(
                name=f"clip {index}",
                x0=x0,
                context=torch.randn(5, TEXT_WIDTH, generator=generator),
                **(picture if with_picture else {}),
            )
        )
    return clips


def toy_plan(optimizer: str = "adamw", **changes: Any) -> TrainingPlan:
    """Two experts in short turns; `rate`, `rank`, `dropout` and `clip` go to their places."""
    rate = changes.pop("rate", 1e-2)
    rates = RateSettings(rate=rate, bump=rate / 20, minimum=rate / 10, maximum=rate * 3)
    lora = LoraSettings(rank=changes.pop("rank", 4), alpha=4.0, dropout=changes.pop("dropout", 0.0))
    settings = OptimizerSettings(name=optimizer, weight_decay=1e-3, clip=changes.pop("clip", 1.0))
    values = {
        "family": "wan 2.2 A14B",
        "steps": 20,
        "swap_every": 3,
        "save_every": 1000,
        "lora": lora,
        "optimizer": settings,
        "high": rates,
        "low": rates,
    }
    return TrainingPlan(**(values | changes))


def toy_experts(plan: TrainingPlan, log: list | None = None) -> dict[str, ToyExpert]:
    log = [] if log is None else log
    return {role: ToyExpert(role, boundary=plan.boundary, log=log) for role in plan.roles()}


def toy_trainers(
    plan: TrainingPlan, clips: list[EncodedClip] | None = None, log: list | None = None
) -> dict[str, ExpertTrainer]:
    return build_trainers(plan, toy_experts(plan, log), clips or toy_clips())


def weights(trainers: dict[str, ExpertTrainer]) -> dict[str, list[torch.Tensor]]:
    """A copy of every adapter's factors."""
    return {
        role: [p.detach().clone() for p in trainer.adapters.parameters()]
        for role, trainer in trainers.items()
    }


def same(ours: dict[str, list[torch.Tensor]], theirs: dict[str, list[torch.Tensor]]) -> bool:
    """Bit for bit."""
    return ours.keys() == theirs.keys() and all(
        torch.equal(a, b) for role in ours for a, b in zip(ours[role], theirs[role], strict=True)
    )


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost more than they give at this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toys() -> SimpleNamespace:
    """The toy's parts: expert, experts, clips, plan, trainers, weights, same."""
    return SimpleNamespace(
        expert=ToyExpert,
        experts=toy_experts,
        clips=toy_clips,
        plan=toy_plan,
        trainers=toy_trainers,
        weights=weights,
        same=same,
    )


def write_film(path: Path, *, frames: int = 9, seed: int = 0, fps: int = 16) -> Path:
    """A small film of one colour."""
    colour = np.random.default_rng(seed).integers(0, 256, 3, dtype=np.uint8)
    picture = av.VideoFrame.from_ndarray(np.full((32, 48, 3), colour), format="rgb24")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(frames):
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def film() -> Callable[..., Path]:
    """`film(path, frames=9, seed=0)` writes a small film."""
    return write_film
