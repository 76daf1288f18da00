"""A step's gradients: their sum and norm in float32 whatever the adapters' dtype, and no broken number goes further."""

import math
from dataclasses import replace

import pytest
import torch
from tandem_wan.training.loop import train
from tandem_wan.training.optimizers.build import build_optimizer
from tandem_wan.training.optimizers.gradients import GradientSum
from tandem_wan.training.optimizers.names import AVAILABLE
from tandem_wan.training.plans.settings import ExpertSettings, OptimizerSettings
from tandem_wan.wan.errors import UserError

BF16 = torch.bfloat16


def weights(dtype=BF16, count=3) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(64, 32, dtype=dtype)) for _ in range(count)]


def drawn(dtype, count, seed, size=1.0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [(size * torch.randn(64, 32, generator=random)).to(dtype) for _ in range(count)]


def test_many_small_gradients_after_a_large_one_add_up_as_in_float32():
    # Each is below 1/256 of the first: in bfloat16 all of them would be rounded away.
    batches = [[torch.ones(64, 32, dtype=BF16)]] + [drawn(BF16, 1, 7, size=1e-3)] * 100
    sums, own = GradientSum(trained := weights(count=1)), weights(count=1)[0]
    for batch in batches:
        sums.add([batch[0].clone()])
        own.grad = batch[0].clone() if own.grad is None else own.grad.add_(batch[0])
    exact = sum(batch[0].float() for batch in batches)
    # Half of the last place of bfloat16.
    assert ((trained[0].grad.float() - exact).abs() <= exact.abs() / 256).all()
    assert (own.grad.float() - exact).norm() > 0.5 * (exact - 1).norm()


@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=str)
def test_the_norm_is_that_of_all_numbers_in_float64_and_the_clip_leads_to_its_limit(dtype):
    sums = GradientSum(trained := weights(dtype))
    sums.add(batch := drawn(dtype, 3, 1))
    slow = math.sqrt(sum(float(x) ** 2 for each in batch for x in each.flatten().tolist()))
    before = [g.clone() for g in batch]
    assert sums.clip(slow * 2) == pytest.approx(slow, rel=1e-5)
    assert all(torch.equal(w.grad, g) for w, g in zip(trained, before, strict=True))
    assert sums.clip(0.5) == pytest.approx(slow, rel=1e-5)
    after = math.sqrt(sum(w.grad.double().square().sum().item() for w in trained))
    assert after == pytest.approx(0.5, rel=1e-5 if dtype == torch.float32 else 2e-3)
    assert sums.clip(math.inf) == pytest.approx(0.5, rel=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=str)
def test_weights_without_a_gradient_are_left_out_and_nothing_stays_after_a_step(dtype):
    sums = GradientSum(trained := weights(dtype))
    assert sums.clip(1.0) == 0.0
    for seed in range(3):
        sums.add([None, *drawn(dtype, 1, seed), None])
    assert trained[0].grad is None and trained[2].grad is None
    assert 0 < sums.clip(1.0) < math.inf
    sums.clear()
    sums.add(first := drawn(dtype, 3, 9))
    assert all(torch.equal(w.grad, g) for w, g in zip(trained, first, strict=True))
    assert GradientSum([]).clip(1.0) == 0.0
    # Whoever sets the gradients to None has cleared them too.
    sums.add(drawn(dtype, 3, 10))
    sums.add(drawn(dtype, 3, 12, size=0.999))
    for weight in trained:
        weight.grad = None
    alone = drawn(dtype, 3, 11)
    sums.add([g.clone() for g in alone])
    sums.add(other := drawn(dtype, 3, 13, size=0.999))
    for weight, a, b in zip(trained, alone, other, strict=True):
        exact = a.float() + b.float()
        assert ((weight.grad.float() - exact).abs() <= exact.abs() / 256).all()


@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=str)
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 3e38])
def test_a_norm_tells_of_every_number_that_no_optimizer_can_take(dtype, broken):
    sums = GradientSum(weights(dtype))
    batch = drawn(dtype, 3, 1)
    batch[1][5, 5] = broken
    sums.add(batch)
    assert not math.isfinite(sums.clip(1.0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [*AVAILABLE, "library:Lion"])
def test_a_broken_number_in_one_micro_batch_changes_nothing_of_weights_and_memory(
    toys, name, dtype
):
    plan = toys.plan(name, steps=6, train="high", accumulate=2, rank=4)
    plan = replace(plan, lora=replace(plan.lora, dtype=dtype))
    trainers, saved = toys.trainers(plan), []
    ((_, trainer),) = trainers.items()

    def whole():
        kept = [w.detach().clone() for w in trainer.adapters.parameters()]
        for state in trainer.optimizer.state.values():
            kept += [v.clone() for v in state.values() if torch.is_tensor(v)]
        return kept

    def spoil(call, velocity):
        if call < 9:
            return velocity
        saved.append(whole())
        return velocity * math.nan

    trainer.expert.after_velocity = spoil
    with pytest.raises(UserError, match="nan"):
        train(plan, trainers, save=lambda step, t: saved.append(step), listen=lambda event: None)
    assert saved[-1] == 4
    assert all(torch.equal(a, b) for a, b in zip(saved[0], whole(), strict=True))
    assert all(each.isfinite().all() for each in saved[0])
    assert all(w.grad is None for w in trainer.adapters.parameters())


@pytest.mark.parametrize("name", AVAILABLE)
def test_the_largest_gradients_that_pass_leave_everything_finite(name):
    trained = weights(torch.float32, 1)
    rates = ExpertSettings(rate=1e-3, bump=1e-4, minimum=1e-4, maximum=1e-2)
    optimizer = build_optimizer(trained, OptimizerSettings(name=name, clip=math.inf), rates)
    for size in (1e16, 0.0, 1e-30, 1e16):
        sums = GradientSum(trained)
        sums.add([torch.full((64, 32), size)])
        assert math.isfinite(sums.clip(1.0 if name == "prodigy" else math.inf))
        optimizer.step()
        sums.clear()
    kept = [v for v in optimizer.state[trained[0]].values() if torch.is_tensor(v)]
    assert all(each.isfinite().all() for each in (*trained, *kept))


def test_weights_that_break_are_told_of_and_not_saved(toys):
    """The gradient is finite, and what the optimizer makes of it is not."""
    plan = toys.plan("adamw", steps=6, train="high")
    trainers, saved = toys.trainers(plan), []
    ((_, trainer),) = trainers.items()
    step, count = trainer.optimizer.step, iter(range(6))

    def broken() -> None:
        step()
        if next(count) == 3:
            with torch.no_grad():
                trainer.adapters.parameters()[1][0, 0] = math.inf

    trainer.optimizer.step = broken
    with pytest.raises(UserError, match="no numbers any more"):
        train(plan, trainers, save=lambda at, t: saved.append(at), listen=lambda event: None)
    assert saved == []
