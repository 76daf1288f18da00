"""A toy expert with real gradients, and plans and clips small enough for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import settings
from tandem_wan.training.events import CheckpointSaved
from tandem_wan.training.expert_trainer import ExpertTrainer, build_trainers
from tandem_wan.training.job import Identity, Job, open_job
from tandem_wan.training.loop import train
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import ExpertSettings, LoraSettings, OptimizerSettings
from tandem_wan.training.runner import Run, Runner
from tandem_wan.training.samples import EncodedClip
from tandem_wan.training.states import TRANSITIONS
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.expert import LinearShape
from tandem_wan.wan.families import sigma_range

# The same examples each time, however busy the machine is.
settings.register_profile("tandem", deadline=None, derandomize=True)
settings.load_profile("tandem")

LIMIT_S = 20.0
"""How long a test waits for another thread before it fails."""
CHANNELS, TEXT_WIDTH, WIDTH = 4, 6, 24
INPUTS = 2 * CHANNELS + TEXT_WIDTH + 1


class ToyExpert:
    """One linear and one hidden layer over each latent cell; keeps a log of what is done to it."""

    def __init__(self, role: str, *, boundary=0.9, log: list | None = None, width=WIDTH) -> None:
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
            "blocks.0.ffn.0": LinearShape(INPUTS, width),
            "blocks.0.ffn.2": LinearShape(width, CHANNELS),
        }
        generator = torch.Generator().manual_seed(len(role))
        self.base = {
            name: torch.nn.Parameter(
                torch.randn(shape.outputs, shape.inputs, generator=generator) / shape.inputs**0.5
            )
            for name, shape in self._shapes.items()
        }

    def layers(self) -> dict[str, LinearShape]:
        return {
            **self._shapes,
            "head.head": LinearShape(self._shapes["blocks.0.ffn.0"].outputs, CHANNELS),
        }

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

    def unload(self) -> None:
        assert not self.resident, "weights in use stay where they are"
        self.log.append(("unload", self.role))

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


class StopWhen(Turns):
    """Ends a run before the piece of work at which `condition()` holds, or within one by `interrupts`."""

    def __init__(
        self,
        condition: Callable[[], bool] = lambda: False,
        interrupts: tuple[type[BaseException], ...] = (),
    ) -> None:
        self.condition, self.interrupts = condition, interrupts

    def over(self) -> bool:
        return self.condition()

    def wait(self) -> None:
        raise RunStopped

    def interrupted(self) -> None:
        raise RunStopped


class ToyGate:
    """Opened and closed by the test. Like a real one it looks again only when it is woken."""

    def __init__(self) -> None:
        self.inside = False
        self.interrupts = 0
        self._open = True
        self._changed = threading.Condition()

    def set_open(self, is_open: bool) -> None:
        with self._changed:
            self._open = is_open
            self._changed.notify_all()

    def is_open(self) -> bool:
        return self._open

    def enter(self, give_up: Callable[[], bool]) -> bool:
        with self._changed:
            assert self._changed.wait_for(lambda: self._open or give_up(), LIMIT_S), "never let in"
            self.inside = not give_up()
            return self.inside

    def leave(self) -> None:
        self.inside = False

    def rest(self, until: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(until, LIMIT_S), "never woken"

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def interrupted(self) -> None:
        self.interrupts += 1


class Hold:
    """Stops a run within its piece of work number `at`, counted over all experts, until `go` is set."""

    def __init__(self, at: int = 0) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self._at, self._pieces = at, 0

    def __call__(self, call: int) -> None:
        self._pieces += 1
        if self._pieces == self._at + 1:
            self.reached.set()
            assert self.go.wait(LIMIT_S), "held for ever"


def eventually(condition: Callable[[], object]) -> None:
    """Waits for something that another thread does."""
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit, "did not happen"
        time.sleep(0.001)


def event_states(job: Job) -> list[str]:
    """The states that a run's folder tells, in order."""
    lines = (job.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [e["state"] for e in map(json.loads, lines) if e["event"] == "StateChanged"]


class ToyRuns:
    """A runner over toy experts below `root`, behind a gate of its own."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.root, self.gate, self.frames = root, ToyGate(), []
        self.holds: list[Hold] = []
        self.jobs: list[Job] = []
        self.runner = Runner(
            self.gate,
            **{
                "busy": lambda: self.frames.append("busy"),
                "idle": lambda: self.frames.append("idle"),
            }
            | changes,
        )

    def job(self, name: str = "mermaid", **plan: Any) -> Job:
        base = (("high_noise", "b1"), ("low_noise", "b2"))
        plan = toy_plan(**({"steps": 6, "save_every": 2} | plan))
        identity = Identity(
            name=name, plan=plan, dataset="d1", base=base, vae="v1", text_encoder="t1"
        )
        self.jobs.append(open_job(self.root, identity))
        return self.jobs[-1]

    def work(self, job: Job, before_velocity: Callable[[int], None] = lambda call: None):
        """Resumes and trains as the host does."""

        def save(step: int, trainers: dict[str, ExpertTrainer]) -> None:
            if step > 0:
                job.store.save(step, trainers, job.metadata("T"))
                job.listen(CheckpointSaved(step=step, files={}))

        def work(turns: Turns):
            trainers = toy_trainers(job.plan)
            for trainer in trainers.values():
                trainer.expert.before_velocity = before_velocity
            job.step = job.store.resume(trainers)
            wishes = {"save": save, "listen": job.listen, "turns": turns}
            return train(job.plan, trainers, first_step=job.step, **wishes)

        return work

    def hold(self, at: int = 0) -> Hold:
        self.holds.append(Hold(at))
        return self.holds[-1]

    def start(self, job: Job, before_velocity: Callable[[int], None] = lambda call: None) -> Run:
        return self.runner.submit(job, self.work(job, before_velocity))

    def held(self, name: str = "mermaid", at: int = 0, **plan: Any) -> tuple[Run, Hold]:
        """A run that is within its piece of work number `at`."""
        hold = self.hold(at)
        run = self.start(self.job(name, **plan), hold)
        assert hold.reached.wait(LIMIT_S)
        return run, hold

    def end(self) -> None:
        """Lets everything go, ends the thread, and looks whether every run kept to the table of states."""
        for hold in self.holds:
            hold.go.set()
        self.runner.shutdown(LIMIT_S)
        for job in {job.folder: job for job in self.jobs}.values():
            job.release()
            states = event_states(job) if (job.folder / "events.jsonl").is_file() else []
            for before, after in pairwise(states):
                assert before == after or after in TRANSITIONS[before], states


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
    rates = ExpertSettings(rate=rate, bump=rate / 20, minimum=rate / 10, maximum=rate * 3)
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


def toy_experts(plan: TrainingPlan, log: list | None = None, width=WIDTH) -> dict[str, ToyExpert]:
    """With a width of 1024 and rank 4, factors have the 4,096 numbers that 8-bit optimizers begin at."""
    more = {"boundary": plan.boundary, "log": [] if log is None else log, "width": width}
    return {role: ToyExpert(role, **more) for role in plan.roles()}


def toy_trainers(plan: TrainingPlan, clips=None, log=None, width=WIDTH) -> dict[str, ExpertTrainer]:
    return build_trainers(plan, toy_experts(plan, log, width), clips or toy_clips())


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
    """The toy's parts: experts, clips, plans and trainers; turns, a gate, and runs behind it."""
    return SimpleNamespace(
        expert=ToyExpert,
        experts=toy_experts,
        clips=toy_clips,
        plan=toy_plan,
        trainers=toy_trainers,
        weights=weights,
        same=same,
        stop_when=StopWhen,
        gate=ToyGate,
        runs=ToyRuns,
        hold=Hold,
        eventually=eventually,
        states=event_states,
    )


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[ToyRuns]:
    """A runner that is ended after the test."""
    runs = ToyRuns(tmp_path / "tandem")
    yield runs
    runs.end()


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
