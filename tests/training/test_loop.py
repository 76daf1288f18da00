"""The loop learns, keeps the experts apart, and stops without losing a whole step."""

import math
import time
from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch
from tandem_wan.training.expert_trainer import build_trainers
from tandem_wan.training.expert_turns import role_at
from tandem_wan.training.loop import train
from tandem_wan.training.seat import Seat
from tandem_wan.training.turns import Turns
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.flow import mix, unwarp, velocity_target, warp
from tandem_wan.wan.lora.adapters import AdapterSet


def nothing(*args) -> None:
    pass


def run(plan, trainers, **changes):
    return train(plan, trainers, **{"save": nothing, "listen": nothing} | changes)


def held_out_loss(expert, adapters: AdapterSet, clips) -> float:
    """Mean squared error at the noise levels of a schedule with shift 5, with noise of its own."""
    generator, losses = torch.Generator().manual_seed(99), []
    low, high = (unwarp(sigma, 5.0) for sigma in expert.sigma_range)
    expert.attach(adapters)
    with expert.in_use(), torch.no_grad():
        for i in range(40):
            sigma = torch.tensor([warp(low + (high - low) * (i + 0.5) / 40, 5.0)])
            clip = clips[i % len(clips)]
            x0, noise = clip.x0[None], torch.randn(clip.x0[None].shape, generator=generator)
            v = expert.velocity(mix(x0, noise, sigma), sigma, clip.context[None], None)
            losses.append((v - velocity_target(x0, noise)).square().mean().item())
    expert.detach()
    return sum(losses) / len(losses)


@pytest.mark.parametrize("optimizer", ["adamw", "automagic"])
def test_both_experts_learn(toys, optimizer):
    plan, clips = toys.plan(optimizer, steps=300), toys.clips(with_picture=False)
    trainers = toys.trainers(plan, clips)
    before = {r: held_out_loss(t.expert, t.adapters, clips) for r, t in trainers.items()}
    assert run(plan, trainers) == "done"
    for role, trainer in trainers.items():
        after = held_out_loss(trainer.expert, trainer.adapters, clips)
        assert after < 0.5 * before[role], role


def test_only_the_adapters_of_the_targets_change(toys):
    plan, clips = toys.plan(steps=20), toys.clips()
    trainers = toys.trainers(plan, clips)
    bases = {r: {n: w.clone() for n, w in t.expert.base.items()} for r, t in trainers.items()}
    fresh = toys.weights(trainers)
    run(plan, trainers)
    for role, trainer in trainers.items():
        assert set(trainer.adapters) == {"blocks.0.self_attn.o", "blocks.0.ffn.0", "blocks.0.ffn.2"}
        assert all(torch.equal(bases[role][n], w) for n, w in trainer.expert.base.items())
        trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
        assert trained == {id(p) for p in trainer.adapters.parameters()}
        for old, new in zip(fresh[role], toys.weights(trainers)[role], strict=True):
            assert not torch.equal(old, new)


def test_one_optimizer_step_never_mixes_experts(toys):
    plan, log = toys.plan(steps=40, accumulate=3), []
    trainers = toys.trainers(plan, log=log)
    run(plan, trainers, listen=lambda event: log.append(("step", event.role, event.step)))
    since_step: list[str] = []
    roles = []
    for entry in log:
        if entry[0] == "velocity":
            since_step.append(entry[1])
        elif entry[0] == "step":
            assert since_step == [entry[1]] * plan.accumulate
            since_step.clear()
            roles.append(entry[1])
    assert roles == [role_at(plan, step) for step in range(plan.steps)]
    assert set(roles) == {"high_noise", "low_noise"}


def test_one_expert_is_in_use_at_a_time_and_none_afterwards(toys):
    plan, log = toys.plan(steps=40), []
    trainers = toys.trainers(plan, log=log)
    run(plan, trainers)
    moves = [entry for entry in log if entry[0] in ("in", "out")]
    assert len(moves) > 6, "they take turns"
    for (kind, role), (next_kind, next_role) in pairwise(moves):
        assert (kind, next_kind) in (("in", "out"), ("out", "in"))
        assert (role == next_role) == (kind == "in")
    assert moves[-1][0] == "out"
    assert all(trainer.expert.attached is None for trainer in trainers.values())


def test_each_expert_sees_noise_of_its_own_range_only(toys):
    plan, log = toys.plan(steps=60, batch=2), []
    run(plan, toys.trainers(plan, log=log))
    seen = {role: [] for role in plan.roles()}
    for entry in log:
        if entry[0] == "velocity":
            seen[entry[1]] += entry[2].double().tolist()
    assert min(seen["high_noise"]) >= 0.9 > max(seen["low_noise"])
    assert len(set(seen["low_noise"])) == len(seen["low_noise"]), "no sigma comes twice"


def test_a_run_is_saved_every_so_often_and_at_its_end_once(toys):
    plan, saved = toys.plan(steps=20, save_every=6), []
    run(plan, toys.trainers(plan), save=lambda step, trainers: saved.append(step))
    assert saved == [6, 12, 18, 20]
    plan, saved = toys.plan(steps=12, save_every=6), []
    run(plan, toys.trainers(plan), save=lambda step, trainers: saved.append(step))
    assert saved == [6, 12]


def test_events_count_both_experts_and_tell_finite_numbers(toys):
    plan, events, began = toys.plan("automagic", steps=12), [], time.perf_counter()
    run(plan, toys.trainers(plan), listen=events.append)
    assert 0 < sum(event.seconds for event in events) <= time.perf_counter() - began
    assert [event.step for event in events] == list(range(1, 13))
    assert [event.role for event in events] == [role_at(plan, step) for step in range(12)]
    assert {event.steps for event in events} == {12}
    for event in events:
        assert math.isfinite(event.loss) and event.loss > 0
        assert math.isfinite(event.grad_norm) and event.grad_norm > 0
        assert plan.high.minimum <= event.rate <= plan.high.maximum


class Cancelled(BaseException):
    """As a host raises it inside its own operations."""


def plain_run(toys, plan, steps: int):
    """The weights after the first `steps` steps, without any interruption."""
    trainers, done = toys.trainers(plan), []
    run(plan, trainers, listen=done.append, turns=toys.stop_when(lambda: len(done) == steps))
    return toys.weights(trainers)


def test_a_wish_to_stop_ends_after_the_step_and_saves_it(toys):
    plan, done, saved = toys.plan(steps=20), [], []
    trainers = toys.trainers(plan)
    end = run(
        plan,
        trainers,
        listen=done.append,
        turns=toys.stop_when(lambda: len(done) == 7),
        save=lambda step, t: saved.append((step, toys.weights(t))),
    )
    assert end == "stopped"
    assert [step for step, _ in saved] == [7]
    assert toys.same(saved[0][1], plain_run(toys, plan, 7))


@pytest.mark.parametrize("micro_batch", [0, 1])
@pytest.mark.parametrize("optimizer", ["adamw", "automagic"])
def test_a_cancel_inside_a_micro_batch_keeps_the_last_whole_step(toys, optimizer, micro_batch):
    plan, saved = toys.plan(optimizer, steps=20, accumulate=2), []
    trainers, done = toys.trainers(plan), []

    def cancel(call):
        if len(done) == 7 and call % 2 == micro_batch:
            raise Cancelled

    for trainer in trainers.values():
        trainer.expert.before_velocity = cancel
    end = run(
        plan,
        trainers,
        listen=done.append,
        save=lambda step, t: saved.append((step, toys.weights(t))),
        turns=toys.stop_when(interrupts=(Cancelled,)),
    )
    assert end == "stopped"
    assert [step for step, _ in saved] == [7]
    assert toys.same(saved[0][1], plain_run(toys, plan, 7))
    for trainer in trainers.values():
        assert all(p.grad is None for p in trainer.adapters.parameters())
        assert trainer.expert.attached is None
        assert not trainer.expert.resident


def test_a_cancel_that_nobody_announced_goes_through(toys):
    plan = toys.plan(steps=5)
    trainers = toys.trainers(plan)

    def cancel(call):
        raise Cancelled

    trainers["high_noise"].expert.before_velocity = cancel
    with pytest.raises(Cancelled):
        run(plan, trainers)
    assert all(trainer.expert.attached is None for trainer in trainers.values())


def test_any_other_error_keeps_the_last_whole_step_too(toys):
    plan, saved, done = toys.plan(steps=20, accumulate=2), [], []
    trainers = toys.trainers(plan)

    def run_out_of_memory(call):
        if len(done) == 7 and call % 2:
            raise MemoryError("no memory left")

    for trainer in trainers.values():
        trainer.expert.before_velocity = run_out_of_memory
    with pytest.raises(MemoryError, match="no memory left"):
        run(
            plan,
            trainers,
            listen=done.append,
            save=lambda step, t: saved.append((step, toys.weights(t))),
        )
    assert [step for step, _ in saved] == [7]
    assert toys.same(saved[0][1], plain_run(toys, plan, 7))
    assert all(trainer.expert.attached is None for trainer in trainers.values())


def broken_at(call_number, breaks):
    return lambda call, v: breaks(v) if call == call_number else v


@pytest.mark.parametrize(
    "breaks",
    [
        lambda v: v * float("nan"),
        lambda v: v * 1e30,
        lambda v: v + 0 * (v - v.detach()).abs().sqrt(),
    ],
    ids=["loss not a number", "loss infinite", "gradient not a number"],
)
@pytest.mark.parametrize("optimizer", ["adamw", "automagic"])
def test_a_loss_that_is_no_number_is_an_error_and_the_good_weights_are_saved(
    toys, optimizer, breaks
):
    plan, saved = toys.plan(optimizer, steps=20, accumulate=2), []
    trainers = toys.trainers(plan)
    low = trainers["low_noise"].expert
    low.after_velocity = broken_at(7, breaks)
    with pytest.raises(UserError, match=r"low_noise.*Lower the learning rate"):
        run(plan, trainers, save=lambda step, t: saved.append((step, toys.weights(t))))
    assert len(saved) == 1
    step, kept = saved[0]
    assert all(weight.isfinite().all() for role in kept for weight in kept[role])
    assert [role_at(plan, s) for s in range(step + 1)].count("low_noise") == 4
    assert toys.same(kept, plain_run(toys, plan, step))


def test_targets_that_match_nothing_are_refused_with_the_layers_names(toys):
    plan = toys.plan()
    experts = toys.experts(plan)
    experts["low_noise"].layers = lambda: {"proj.in": (1, 1), "proj.out": (1, 1)}
    with pytest.raises(UserError, match=r"low_noise expert.*proj\.in, proj\.out"):
        build_trainers(plan, experts, toys.clips())


class LinearExpert:
    """velocity = (W + scale up down) x, cell by cell: its gradient can be written by hand."""

    role, device = "single", torch.device("cpu")

    def __init__(self) -> None:
        self.base = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def layers(self):
        return {"blocks.0.self_attn.q": (4, 4)}

    def in_use(self):
        return nullcontext()

    def velocity(self, x_t, sigma, context, image_condition, attention=None):
        self.seen.append((x_t, sigma))
        cells = x_t.movedim(1, -1)
        y = cells @ self.base.T + self.adapter(cells)
        return y.movedim(-1, 1)


class Recorder:
    """Stands where the optimizer is and keeps the gradients it is given."""

    def __init__(self, parameters) -> None:
        self.parameters, self.gradients, self.param_groups = parameters, [], [{"lr": 0.0}]

    def step(self) -> None:
        self.gradients = [p.grad.clone() for p in self.parameters]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters:
            parameter.grad = None


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 1), (1, 3), (2, 2)])
def test_gradients_are_those_of_a_plain_float64_implementation(toys, batch, accumulate):
    plan = toys.plan(family="single model", batch=batch, accumulate=accumulate, clip=1e9)
    clip = toys.clips(1, with_picture=False)[0]
    expert = LinearExpert()
    trainer = build_trainers(plan, {"single": expert}, [clip, clip])["single"]
    expert.adapter = adapter = trainer.adapters["blocks.0.self_attn.q"]
    torch.nn.init.normal_(adapter.up, generator=torch.Generator().manual_seed(4))
    trainer.optimizer = Recorder([adapter.down, adapter.up])
    loss, norm, _ = trainer.step(0, Seat({"single": trainer}, Turns()))

    down, up, base = (t.detach().double() for t in (adapter.down, adapter.up, expert.base))
    scale, x0 = plan.lora.alpha / plan.lora.rank, clip.x0.double()
    by_down, by_up, losses = torch.zeros_like(down), torch.zeros_like(up), []
    assert len(expert.seen) == accumulate
    for x_t, sigma in expert.seen:
        s = sigma.double().view(-1, 1, 1, 1, 1)
        assert len(sigma) == batch
        noise = (x_t.double() - (1 - s) * x0) / s
        x = x_t.double().movedim(1, -1).reshape(-1, 4)
        target = (noise - x0).movedim(1, -1).reshape(-1, 4)
        error = x @ (base + scale * up @ down).T - target
        losses.append(error.square().mean())
        slope = 2 * error / error.numel() / accumulate
        by_up += scale * slope.T @ (x @ down.T)
        by_down += scale * up.T @ slope.T @ x
    for ours, expected in zip(trainer.optimizer.gradients, (by_down, by_up), strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-5)
    assert loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert norm == pytest.approx(math.sqrt(by_down.square().sum() + by_up.square().sum()), rel=1e-4)


@pytest.mark.parametrize(("optimizer", "clipped"), [("adamw", True), ("automagic", False)])
def test_adamw_gets_a_clipped_gradient_and_automagic_clips_its_own_update(toys, optimizer, clipped):
    plan = toys.plan(optimizer, clip=1e-3)
    trainer = toys.trainers(plan)["high_noise"]
    seen = []
    inner = trainer.optimizer.step

    def step():
        grads = [p.grad for p in trainer.adapters.parameters()]
        seen.append(torch.stack([g.norm() for g in grads]).norm().item())
        inner()

    trainer.optimizer.step = step
    trainer.expert.attach(trainer.adapters)
    with Seat({trainer.role: trainer}, Turns()) as seat:
        norm = trainer.step(0, seat).grad_norm
    assert norm > 0.1
    assert seen[0] == pytest.approx(1e-3 if clipped else norm, rel=1e-3)
