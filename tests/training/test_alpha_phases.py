"""Alpha in phases: when an expert leaves one, that a resume goes on as if nothing had been, and what is saved."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tandem_wan.training.alpha_phases import AlphaMover, alpha_line, fitted
from tandem_wan.training.checkpoints import CheckpointStore
from tandem_wan.training.loop import train
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import AlphaPhases
from tandem_wan.wan.lora.adapters import new_adapters

PHASES = AlphaPhases(alphas=(8.0, 14.0, 20.0))
LAYERS = {"blocks.0.self_attn.q": (6, 6), "blocks.0.ffn.0": (6, 8)}
STEPS = 1000


def adapters():
    return new_adapters(LAYERS, rank=2, alpha=2.0, seed=0)


def driven(
    mover: AlphaMover,
    own,
    steps: int,
    *,
    loss: Callable[[int], float] = lambda _: 1.0,
    sign: Callable[[int], float] = lambda _: 1.0,
) -> list[tuple[int, float]]:
    """(step, alpha) at which the alpha changed."""
    changes = []
    for index in range(steps):
        for parameter in own.parameters():
            parameter.grad = torch.full_like(parameter, sign(index))
        mover.see_gradients()
        if mover.after(index, loss(index)):
            changes.append((index + 1, mover.alpha))
    return changes


def test_a_steady_expert_leaves_each_phase_after_its_least_share():
    own = adapters()
    changes = driven(AlphaMover(PHASES, own, STEPS), own, STEPS)
    assert changes == [(300, 14.0), (700, 20.0)]
    assert {adapter.alpha for adapter in own.values()} == {20.0}


def test_gradients_that_turn_each_step_keep_it_in_its_phase():
    own = adapters()
    mover = AlphaMover(PHASES, own, STEPS)
    assert driven(mover, own, STEPS, sign=lambda i: (-1.0) ** i) == []
    assert mover.alpha == 8.0


def test_a_loss_that_still_falls_keeps_it_until_it_does_no_more():
    own = adapters()
    changes = driven(
        AlphaMover(PHASES, own, STEPS), own, 720, loss=lambda i: max(0.5, 1 - i / 1000)
    )
    # The fall ends at step 500; 200 losses later at the latest the line through them is flat.
    [(step, alpha)] = changes
    assert alpha == 14.0
    assert 650 < step <= 700


def test_stability_is_the_mean_of_the_last_fifty_agreements():
    own = adapters()
    mover = AlphaMover(PHASES, own, 100)
    # Signs turn in 26 of the last 50 steps: 0.48 agree, just above 0.47.
    turns = [1 if i % 50 < 26 else 0 for i in range(200)]
    signs = np.cumprod([-1.0 if t else 1.0 for t in turns])
    changes = driven(mover, own, 100, sign=lambda i: float(signs[i]))
    assert changes and changes[0][1] == 14.0
    own = adapters()
    turns = [1 if i % 50 < 28 else 0 for i in range(200)]
    signs = np.cumprod([-1.0 if t else 1.0 for t in turns])
    late = driven(AlphaMover(PHASES, own, 100), own, 100, sign=lambda i: float(signs[i]))
    assert [step for step, _ in late if step >= 50] == []


def test_only_the_targets_move():
    own = adapters()
    phases = AlphaPhases(alphas=(8.0, 14.0), least=(0.3,), targets=(r".*\.ffn\.0",))
    driven(AlphaMover(phases, own, 100), own, 50)
    assert own["blocks.0.ffn.0"].alpha == 14.0
    assert own["blocks.0.self_attn.q"].alpha == 2.0


def test_a_restored_one_goes_on_as_if_nothing_had_been():
    generator = np.random.default_rng(3)
    losses, signs = 1 + generator.normal(0, 0.05, STEPS), np.sign(generator.normal(0.4, 1, STEPS))

    def drive(mover, own, first, last):
        found = []
        for index in range(first, last):
            for parameter in own.parameters():
                parameter.grad = torch.full_like(parameter, float(signs[index]))
            mover.see_gradients()
            found.append((mover.after(index, float(losses[index])), mover.alpha))
        return found

    own = adapters()
    whole = drive(AlphaMover(PHASES, own, STEPS), own, 0, STEPS)
    assert any(text for text, _ in whole)
    for cut in (1, 30, 301, 650):
        first = adapters()
        mover = AlphaMover(PHASES, first, STEPS)
        begun = drive(mover, first, 0, cut)
        tensors, values = mover.state()
        values = json.loads(json.dumps(values))
        second = adapters()
        again = AlphaMover(PHASES, second, STEPS)
        again.restore(tensors, values)
        assert {adapter.alpha for adapter in second.values()} == {mover.alpha}
        assert begun + drive(again, second, cut, STEPS) == whole


def test_the_line_is_that_of_least_squares():
    losses = np.random.default_rng(5).normal(1, 0.1, 200) - np.linspace(0, 0.3, 200)
    slope, intercept = np.polyfit(np.arange(200), losses, 1)
    line = intercept + slope * np.arange(200)
    r_squared = 1 - ((losses - line) ** 2).sum() / ((losses - losses.mean()) ** 2).sum()
    fit = fitted(losses.tolist())
    assert fit.improvement == pytest.approx((line[0] - line[-1]) / losses.mean())
    assert fit.r_squared == pytest.approx(r_squared)


def test_a_run_saves_the_alpha_of_its_phase_and_resumes_to_the_bit(toys, tmp_path):
    plan = toys.plan(
        family="single model",
        steps=80,
        save_every=50,
        alpha_phases=AlphaPhases(alphas=(1.0, 3.0), least=(0.3,), improvement=10.0, stability=0.0),
    )

    def run(name, **more):
        store = CheckpointStore(tmp_path / name, "run")
        trainers = toys.trainers(plan)
        first = store.resume(trainers)
        more = {"listen": lambda event: None, **more}
        train(plan, trainers, save=lambda s, t: store.save(s, t, {}), first_step=first, **more)
        return store, trainers

    _, trainers = run("whole")
    notes = []
    stop = toys.stop_when(lambda: len(notes) >= 40)
    run("cut", listen=notes.append, turns=stop)
    cut, again = run("cut")
    for a, b in zip(
        trainers["single"].adapters.parameters(), again["single"].adapters.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    with safe_open(cut.file(80, "single"), "pt") as file:
        alphas = {file.get_tensor(k).item() for k in file.keys() if k.endswith(".alpha")}  # noqa: SIM118
        assert alphas == {3.0}
        assert file.metadata()["ss_network_alpha"] == "3.0"


def test_the_alpha_that_each_expert_has_reached_is_told_from_its_notes():
    plan = TrainingPlan(family="wan 2.2 A14B", alpha_phases=AlphaPhases(alphas=(8, 14, 20)))
    notes = [
        {"step": 40, "text": "high_noise: alpha 8 -> 14 after 30 of its steps: gradients keep."},
        {"step": 80, "text": "low_noise: alpha 8 -> 14 after 50 of its steps: gradients keep."},
        {"step": 90, "text": "high_noise: alpha 14 -> 20 after 60 of its steps: gradients keep."},
    ]

    def at(step):
        return dict.fromkeys(("high_noise", "low_noise"), step)

    assert alpha_line(plan, notes, {"high_noise": 95, "low_noise": 60}) == "alpha: high 20, low 8"
    assert alpha_line(plan, notes, at(85)) == "alpha: high 14, low 14"
    assert alpha_line(plan, notes, at(20)) == "alpha: high 8, low 8"
    assert alpha_line(TrainingPlan(), notes, at(85)) == ""
