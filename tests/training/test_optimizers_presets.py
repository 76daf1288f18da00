"""Every preset's optimizer as it is built, and the layers whose rate a plan's patterns change."""

from dataclasses import replace

import pytest
import torch
from tandem_wan.training.optimizers.adamw import CompactAdamW
from tandem_wan.training.optimizers.automagic import Automagic
from tandem_wan.training.optimizers.build import (
    build_optimizer,
    mean_rate,
    norm_limit,
    optimizer_notes,
    set_rate,
)
from tandem_wan.training.optimizers.names import AVAILABLE
from tandem_wan.training.plans.presets import PRESET_NAMES, PRESETS
from tandem_wan.training.plans.settings import (
    ExpertSettings,
    OptimizerSettings,
    PatternSettings,
)
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.adapters import new_adapters

ADAMW = {"betas": (0.9, 0.999), "weight_decay": 0.01}
EIGHT = (CompactAdamW, True, False)


def magic(least: float, most: float) -> dict:
    """The rate starts at the least one, and a bump is as large."""
    own = {"rate": least, "bump": least, "minimum": least, "maximum": most}
    return own | {"beta2": 0.999, "weight_decay": 1e-4, "clip": 1.0}


# (class, moments in 8 bits, Kahan summation), high's numbers, low's numbers
TABLE = {
    "motion 4x": ((Automagic,), magic(2e-5, 5e-4), magic(5e-6, 1e-4)),
    "motion 3x": ((Automagic,), magic(1.5e-5, 4e-4), magic(5e-6, 1e-4)),
    "character": ((torch.optim.AdamW,), {"lr": 5e-5, **ADAMW}, {"lr": 1e-4, **ADAMW}),
    "image style": (EIGHT, {"lr": 1e-4, **ADAMW}, {"lr": 1e-4, **ADAMW}),
    "video effect": (
        (CompactAdamW, True, True),
        {"lr": 3e-5, **ADAMW},
        {"lr": 3e-5, **ADAMW},
    ),
    "general video": (EIGHT, {"lr": 1e-4, **ADAMW}, {"lr": 1e-4, **ADAMW}),
    "length extension": ((torch.optim.AdamW,), {"lr": 1e-4, **ADAMW}, {"lr": 1e-4, **ADAMW}),
}


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_the_optimizer_of_a_preset_has_exactly_its_numbers(name):
    (kind, *forms), *numbers = TABLE[name]
    preset = PRESETS[name]
    rank, dtype = preset.lora.rank, getattr(torch, preset.lora.dtype)
    for rates, expected in zip((preset.high, preset.low), numbers, strict=True):
        adapters = new_adapters(
            {"layer": (256, 256)}, rank=rank, alpha=preset.lora.alpha, seed=0, dtype=dtype
        )
        weights = adapters.parameters()
        built = build_optimizer(weights, preset.optimizer, rates)
        assert type(built) is kind
        assert [getattr(built, form) for form in ("eight_bit", "kahan") if forms] == forms
        ((group,), first) = built.param_groups, mean_rate(built)
        assert {key: group[key] for key in expected} == expected
        assert first == pytest.approx(expected.get("rate", expected.get("lr")), rel=1e-12)
        limit = norm_limit(built, preset.optimizer, rates)
        assert limit == (float("inf") if kind is Automagic else 1.0)
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        built.step()
        state = built.state[weights[0]]
        assert ("exp_avg_codes" in state) == (forms[:1] == [True])
        assert ("remainder" in state) == (forms[1:] == [True])


def grouped(name: str, factors: list[float], rates: ExpertSettings) -> tuple:
    weights = [torch.nn.Parameter(torch.full((4, 4), 0.1)) for _ in factors]
    settings = OptimizerSettings(name=name, weight_decay=0.1)
    return weights, build_optimizer(weights, settings, rates, factors)


RATES = ExpertSettings(
    rate=1e-3, bump=1e-4, minimum=1e-4, maximum=1.5e-3, schedule="linear", warmup=2
)
NAMES = ("adamw", "automagic", "adamw 8-bit", "library:Lion")


@pytest.mark.parametrize("name", NAMES)
def test_a_weights_factor_is_as_if_its_expert_had_another_rate(name):
    """Rate, bump and bounds: against an optimizer of its own."""
    factors = [1.0, 0.5, 1.0, 2.0]
    weights, together = grouped(name, factors, RATES)
    apart = []
    for factor in factors:
        values = {n: getattr(RATES, n) * factor for n in ("rate", "bump", "minimum", "maximum")}
        own = replace(RATES, **values)
        ((weight,), optimizer) = grouped(name, [1.0], own)
        apart.append((weight, optimizer, own))
    random = torch.Generator().manual_seed(0)
    for step in range(20):
        set_rate(together, RATES, step, 20)
        for weight, (other, optimizer, own) in zip(weights, apart, strict=True):
            weight.grad = torch.randn(4, 4, generator=random) + 0.5
            other.grad = weight.grad.clone()
            set_rate(optimizer, own, step, 20)
            optimizer.step()
        together.step()
    for weight, (other, _, _) in zip(weights, apart, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-5, atol=1e-8)
    slow = sum(mean_rate(optimizer) for _, optimizer, _ in apart) / len(apart)
    assert mean_rate(together) == pytest.approx(slow, rel=1e-5)


def test_an_optimizer_that_finds_its_rate_has_one_for_all_and_says_so(toys):
    _, optimizer = grouped("prodigy", [1.0, 0.5], ExpertSettings(rate=1.0))
    assert len(optimizer.param_groups) == 1
    plan = replace(toys.plan("prodigy"), patterns=(PatternSettings(pattern=".*", rate=0.5),))
    assert "one rate for all layers" in optimizer_notes(plan)[0]


@pytest.mark.parametrize("name", ["adamw", "automagic"])
def test_a_plans_pattern_changes_the_rate_of_its_layers_and_resumes(toys, tmp_path, name):
    from tandem_wan.training.checkpoints import CheckpointStore
    from tandem_wan.training.loop import train

    pattern = PatternSettings(pattern=r"blocks\.0\.ffn\..*", rate=0.25)
    plan = replace(toys.plan(name, steps=8, train="high"), patterns=(pattern,))
    ((_, trainer),) = toys.trainers(plan).items()
    rates = {}
    for group in trainer.optimizer.param_groups:
        value = group["rate" if name == "automagic" else "lr"]
        rates |= dict.fromkeys(map(id, group["params"]), value)
    for layer, adapter in trainer.adapters.items():
        factor = 0.25 if "ffn" in layer else 1.0
        assert rates[id(adapter.down)] == rates[id(adapter.up)] == factor * plan.high.rate

    whole = toys.trainers(plan)
    train(plan, whole, save=lambda step, t: None, listen=lambda event: None)
    store, seen = CheckpointStore(tmp_path, "x"), []
    for stop in (3, None):
        trainers = toys.trainers(plan)
        first = store.resume(trainers)
        train(
            plan,
            trainers,
            save=lambda step, t: store.save(step, t, {"name": "x"}),
            listen=seen.append,
            first_step=first,
            turns=toys.stop_when(lambda stop=stop: stop is not None and len(seen) >= stop),
        )
    assert toys.same(toys.weights(trainers), toys.weights(whole))


@pytest.mark.parametrize("decay", [-0.01, float("nan"), float("inf")])
def test_a_weight_decay_that_would_break_the_weights_is_refused_in_the_plan(toys, decay):
    with pytest.raises(UserError, match="weight_decay"):
        replace(toys.plan(), optimizer=OptimizerSettings(weight_decay=decay))


@pytest.mark.parametrize("name", AVAILABLE)
def test_without_weight_decay_a_weight_whose_gradient_is_zero_stays(name):
    weight = torch.nn.Parameter(torch.full((4, 4), 0.1))
    for decay, stays in ((0.0, True), (0.1, False)):
        settings = OptimizerSettings(name=name, weight_decay=decay)
        optimizer = build_optimizer([weight], settings, ExpertSettings(rate=1e-2))
        for _ in range(3):
            weight.grad = torch.zeros(4, 4)
            optimizer.step()
        moves = name != "prodigy"  # whose rate is nothing before the first gradient
        assert torch.equal(weight.detach(), torch.full((4, 4), 0.1)) == (stays or not moves)
