"""Random plans, cut anywhere in every way and gone on with: what is left is that of the unbroken run, bit for bit.

TANDEM_PLANS sets how many plans there are.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tandem_wan.training.checkpoints import STATE_FILE
from tandem_wan.training.events import CheckpointSaved
from tandem_wan.training.job import Identity, open_job
from tandem_wan.training.loop import train
from tandem_wan.training.monitors.curves import measured
from tandem_wan.training.monitors.held_out import HeldOutLoss, divided, pick_held_out
from tandem_wan.training.monitors.monitor import monitor_of
from tandem_wan.training.monitors.verdict import verdict_of
from tandem_wan.training.plans.plan import (
    AlphaPhases,
    LossSettings,
    PatternSettings,
    PhaseSettings,
    PruneSettings,
    RuleSettings,
    TimestepSettings,
    TrainingPlan,
)
from tandem_wan.training.preview import Preview
from tandem_wan.training.records import event_lines
from tandem_wan.training.samples import ListedSamples
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.lora.files import read_metadata

PLANS = int(os.environ.get("TANDEM_PLANS", "10"))
WIDTH = 64
"""With rank 4 the hidden layer's `up` has 256 numbers: one block of 8-bit codes."""
OPTIMIZERS = (
    *("adamw", "automagic", "adamw 8-bit", "adamw kahan", "adamw 8-bit kahan"),
    *("prodigy", "library:Lion"),
)
ENDS = ("stop", "kill", "fail", "torn")
"""By hand; a process that is gone; an error in a piece of work; one in the midst of the optimizer's step."""
HIDDEN = r"blocks\.0\.ffn\..*"


class Killed(BaseException):
    """The process is gone: nothing that catches errors runs."""


class Cut:
    """Ends a life at its moment number `at`: every piece of work, event, and step of an optimizer is one."""

    def __init__(self, at: int | None = None, end: str = "stop") -> None:
        self.left, self.end = at, end
        self.due = False

    def moment(self, *_: object) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left == 0:
            self.due = True
            if self.end == "kill":
                raise Killed

    def piece(self, *_: object) -> None:
        self.moment()
        # A preview that fails ends no run.
        if self.due and self.end == "fail" and torch.is_grad_enabled():
            raise RuntimeError("CUDA error")

    def optimizer_step(self, step):
        def stepped(*_: object) -> None:
            self.moment()
            if not (self.due and self.end == "torn"):
                return step()
            step()  # as far as it came
            raise RuntimeError("CUDA out of memory")

        return stepped


class CutTurns(Turns):
    def __init__(self, cut: Cut) -> None:
        self._cut = cut

    def over(self) -> bool:
        return self._cut.due and self._cut.end == "stop"

    def wait(self) -> None:
        raise RunStopped


class Life:
    """The lives of one run in `root`, and what comes of them."""

    def __init__(self, toys, root: Path, plan: TrainingPlan, previews: int) -> None:
        self._toys, self._root, self._plan, self._every = toys, root, plan, previews
        self.previews: dict[tuple[int, int], torch.Tensor] = {}

    def job(self):
        roles = (("high_noise", "b1"), ("low_noise", "b2"))
        of_data = {"dataset": "d", "base": roles, "vae": "v", "text_encoder": "t"}
        return open_job(self._root, Identity(name="run", plan=self._plan, **of_data))

    def live(self, cut: Cut) -> None:
        """From the newest checkpoint until the end, or the cut."""
        plan, job, clips = self._plan, self.job(), self._toys.clips(6)
        samples = ListedSamples(
            clips, repeats=[1, 2, 1, 0.5, 1, 1], empty_context=torch.zeros(5, 6)
        )
        shown, held = divided(samples, pick_held_out(range(6), plan.held_out, plan.seed))
        trainers = self._toys.trainers(plan, shown, width=WIDTH)
        job.step = job.store.resume(trainers)
        for state in ("queued", "running"):
            job.set_state(state)
        for trainer in trainers.values():
            trainer.expert.before_velocity = cut.piece
            trainer.optimizer.step = cut.optimizer_step(trainer.optimizer.step)

        def listen(event):
            cut.moment()
            job.listen(event)
            cut.moment()

        with ExitStack() as stack:
            # What a life before this one has drawn is nothing to it.
            torch.manual_seed(cut.left or 0)
            stack.enter_context(suppress(Killed, RuntimeError))
            train(
                plan,
                trainers,
                save=self._saver(job, cut, listen),
                listen=listen,
                first_step=job.step,
                turns=CutTurns(cut),
                preview=self._preview(clips) if self._every else None,
                monitor=monitor_of(plan, event_lines(job.folder), job.step),
                held_out=HeldOutLoss(plan, held, shown) if len(held) else None,
            )

    def _saver(self, job, cut: Cut, listen):
        """Saves, judges and prunes as the host does."""

        def save(step, trainers):
            if step == 0:
                return
            cut.moment()
            job.store.save(step, trainers, job.metadata("T"))
            cut.moment()
            listen(CheckpointSaved(step=step, files={}))
            verdict = verdict_of(self._plan, event_lines(job.folder), job.store.steps())
            job.store.prune(self._plan.prune, set(verdict.steps().values()) if verdict else ())
            cut.moment()

        return save

    def _preview(self, clips) -> Preview:
        return Preview(
            every=self._every,
            clips=clips[:2],
            negative=torch.zeros_like(clips[0].context),
            show=lambda step, number, latent: self.previews.update({(step, number): latent}),
            made=lambda step, number: (step, number) in self.previews,
            steps=2,
        )

    def told(self) -> list[dict]:
        """Steps and held-out losses as they count in the end."""
        return [vars(replace_seconds(event)) for event in measured(event_lines(self.job().folder))]

    def found(self) -> list[str]:
        lines = event_lines(self.job().folder)
        found = [line["text"] for line in lines if line["event"] == "Finding"]
        return list(dict.fromkeys(found))

    def verdict(self):
        job = self.job()
        return verdict_of(self._plan, event_lines(job.folder), job.store.steps())

    def files(self) -> dict[str, tuple]:
        """Every LoRA that is left, by its name: what it says of itself, and its numbers as bytes."""
        found = {}
        for file in self.job().folder.glob("step_*/*.safetensors"):
            tensors = {
                name: tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
                for name, tensor in load_file(file).items()
            }
            found[file.name] = (read_metadata(file), tensors)
        return found

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next step would depend on."""
        job = self.job()
        last = job.store.file(self._plan.steps, self._plan.roles()[0])
        return load_file(last.with_name(STATE_FILE))


def replace_seconds(event):
    return replace(event, seconds=0.0) if hasattr(event, "seconds") else event


maybe = st.sampled_from
EXPERTS = ({}, {}, {}, {"train": "high"}, {"train": "low"}, {"family": "single model"})
ALPHAS = AlphaPhases(alphas=(2.0, 4.0, 8.0), least=(0.1, 0.1), stability=0.0, improvement=9.0)


@st.composite
def plans(draw, toys) -> TrainingPlan:
    name = draw(maybe(OPTIMIZERS))
    rate = 0.5 if name == "prodigy" else 1e-2
    phase = st.builds(PhaseSettings, train=maybe(("high", "low", "joint")), steps=st.integers(1, 3))
    plan = toys.plan(
        preset=draw(maybe(("motion 4x", "video effect", "general video"))),
        rate=rate,
        seed=draw(st.integers(0, 3)),
        steps=draw(st.integers(4, 10)),
        batch=draw(st.integers(1, 2)),
        accumulate=draw(st.integers(1, 2)),
        dropout=draw(maybe((0.0, 0.2))),
        order=draw(maybe(("interleaved", "joint", "sequential"))),
        swap_every=draw(st.integers(1, 3)),
        high_share=draw(maybe((None, 0.5, 0.7))),
        phases=draw(st.lists(phase, min_size=1, max_size=3).map(tuple)),
        save_every=draw(st.integers(1, 5)),
        prune=PruneSettings(last=draw(st.integers(0, 2)), every=draw(maybe((0, 0, 2, 3)))),
        held_out=draw(st.integers(0, 2)),
        caption_dropout=draw(maybe((0.0, 0.4))),
        timesteps=TimestepSettings(
            distribution=draw(maybe(("uniform", "logit-normal", "sigmoid")))
        ),
        loss=LossSettings(weighting=draw(maybe(("none", "x0", "cosmap", "clamped snr")))),
        alpha_phases=draw(maybe((AlphaPhases(), ALPHAS))),
        rules=draw(maybe(((), (RuleSettings(rule="high too weak", level="log", armed_from=0.0),)))),
        **draw(maybe(EXPERTS)),
    )
    return with_parts(draw, plan)


def with_parts(draw, plan: TrainingPlan) -> TrainingPlan:
    """Other settings of the optimizer, the LoRA, one expert and some layers."""
    optimizer = replace(plan.optimizer, ema=draw(maybe((0.0, 0.9))))
    dtype = draw(maybe(("float32", "bfloat16")))
    high = replace(
        plan.high,
        schedule=draw(maybe(("constant", "cosine with restarts"))),
        warmup=draw(maybe((0, 2))),
        rank=draw(maybe((None, 2))),
        alpha=draw(maybe((None, 1.0))),
    )
    pattern = PatternSettings(pattern=HIDDEN, rate=2.0, dropout=0.3, alpha=3.0)
    patterns = draw(maybe(((), (pattern,))))
    lora = replace(plan.lora, dtype=dtype)
    return replace(plan, optimizer=optimizer, lora=lora, high=high, patterns=patterns)


cuts = st.lists(st.tuples(st.integers(1, 60), st.sampled_from(ENDS)), min_size=1, max_size=3)


@settings(
    max_examples=PLANS,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(data=st.data())
def test_whatever_the_plan_and_wherever_it_is_cut_the_run_ends_as_if_it_had_not_been(toys, data):
    plan = data.draw(plans(toys))
    previews, ends = data.draw(st.integers(0, 3)), data.draw(cuts)
    with ExitStack() as stack:
        # Small numbers of what takes long runs or wide layers to come about.
        for name in ("alpha_phases.FEWEST_LOSSES", "optimizers.low_bit.LEAST"):
            stack.enter_context(patch(f"tandem_wan.training.{name}", 2))
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        whole = Life(toys, root / "whole", plan, previews)
        whole.live(Cut())
        cut = Life(toys, root / "cut", plan, previews)
        for at, end in ends:
            cut.live(Cut(at, end))
        cut.live(Cut())
        assert_same(whole, cut, only_killed=all(end == "kill" for _, end in ends))


def assert_same(whole: Life, cut: Life, *, only_killed: bool) -> None:
    ours, theirs = whole.state(), cut.state()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]) and tensor.dtype == theirs[name].dtype, name
    assert json.dumps(whole.told()) == json.dumps(cut.told())
    assert whole.found() == cut.found()
    assert whole.previews.keys() == cut.previews.keys()
    assert all(torch.equal(cut.previews[key], latent) for key, latent in whole.previews.items())
    # One that is stopped or fails saves where the plan does not: other checkpoints are the newest then.
    ours, theirs = whole.files(), cut.files()
    assert all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())
    if only_killed:
        assert ours.keys() == theirs.keys()
        assert whole.verdict() == cut.verdict()
