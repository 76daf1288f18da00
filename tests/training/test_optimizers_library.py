"""Prodigy, and the classes of the library by name: which of them train here, and what is said of the others."""

import pytest
import torch
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.optimizers import library
from tandem_wan.training.optimizers.build import build_optimizer, mean_rate, require_optimizer
from tandem_wan.training.optimizers.memory import packed, restore
from tandem_wan.training.plans.limits import plan_findings, require_allowed
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import ExpertSettings, OptimizerSettings
from tandem_wan.wan.errors import UserError

COUNTS = Counts(16, 16.0, 0.0)


def plan(name: str, rate: float = 1e-4) -> TrainingPlan:
    rates = ExpertSettings(rate=rate)
    return TrainingPlan(optimizer=OptimizerSettings(name=name), high=rates, low=rates)


def descend(optimizer, w, goal, steps) -> None:
    for _ in range(steps):
        w.grad = 2 * (w.detach() - goal)
        optimizer.step()


def test_prodigy_finds_a_rate_that_leads_to_the_goal_from_far_too_small_a_guess():
    goal, w = torch.full((4, 8), 0.5), torch.nn.Parameter(torch.zeros(4, 8))
    optimizer = build_optimizer([w], OptimizerSettings(name="prodigy"), ExpertSettings(rate=1.0))
    first = mean_rate(optimizer)
    descend(optimizer, w, goal, 300)
    assert first == 1e-6
    assert mean_rate(optimizer) > 1e-3
    assert (w - goal).abs().max() < 0.05


def test_a_small_factor_on_prodigy_is_most_likely_a_rate_and_said():
    told = [f.text for f in plan_findings(plan("prodigy"), COUNTS) if "multiplies it" in f.text]
    assert len(told) == 2
    levels = {f.level for f in plan_findings(plan("prodigy", 1.0), COUNTS)}
    assert not any("multiplies" in f.text for f in plan_findings(plan("prodigy", 1.0), COUNTS))
    assert "refusal" not in levels


def test_every_class_is_either_refused_by_name_or_passes_its_trial_or_says_why_not():
    passed, told = [], {}
    for name in library.usable_names():
        try:
            library.require_class(name)
            passed.append(name)
        except UserError as error:
            told[name] = error.can_be
    assert {"Lion", "AdaBelief", "CAME", "SOAP", "Prodigy", "AdEMAMix", "StableAdamW"} <= set(
        passed
    )
    assert len(passed) > 80
    # Whatever draws random numbers, or keeps memory beside its weights, fails the trial.
    assert {"MADGRAD", "EmoNavi"} <= set(told)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("SAM", "twice a step"),
        ("LBFGS", "twice"),
        ("SophiaH", "second derivatives"),
        ("Lookahead", "wraps"),
    ],
)
def test_what_cannot_train_here_is_refused_with_its_reason(name, why):
    with pytest.raises(UserError, match=why):
        require_optimizer(f"library:{name}")
    with pytest.raises(UserError, match=why):
        require_allowed(plan(f"library:{name}"), COUNTS)


def test_the_refused_names_are_the_librarys_own():
    import pytorch_optimizer

    assert [name for name in library.REFUSED if not hasattr(pytorch_optimizer, name)] == []


def test_an_unknown_class_is_refused_before_a_run_with_near_names():
    with pytest.raises(UserError, match="AdaBelief"):
        require_allowed(plan("library:AdaBeleif"), COUNTS)
    with pytest.raises(UserError, match="no such optimizer"):
        require_optimizer("library:BaseOptimizerz")


@pytest.mark.parametrize("name", ["adamv", "library:", "library:no name", "Lion", ""])
def test_a_name_that_cannot_be_is_refused_when_the_plan_is_made(name):
    with pytest.raises(UserError, match="library:Lion"):
        plan(name)


@pytest.mark.parametrize("name", ["prodigy", "library:Lion"])
def test_without_the_library_the_message_says_what_to_install(monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, "pytorch_optimizer", None)
    with pytest.raises(UserError, match="pip install pytorch_optimizer") as caught:
        require_optimizer(name)
    assert repr(name) in caught.value.came
    # The plan itself can be read and shown.
    assert plan(name).optimizer.name == name


def test_the_librarys_own_defaults_hold_but_for_rate_decay_and_an_experts_beta2():
    w = torch.nn.Parameter(torch.zeros(2, 2))
    settings = OptimizerSettings(name="library:Lion", weight_decay=0.3, beta2=0.5)
    group = build_optimizer([w], settings, ExpertSettings(rate=2e-4)).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (2e-4, 0.3, (0.9, 0.99))
    group = build_optimizer([w], settings, ExpertSettings(beta2=0.95)).param_groups[0]
    assert group["betas"] == (0.9, 0.95)


def test_memory_that_belongs_to_no_weight_is_not_passed_over():
    w = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.SGD([w], lr=0.1)
    optimizer.state["all"] = {"count": 1}
    with pytest.raises(TypeError, match="no weight"):
        packed(optimizer)


def test_nested_memory_comes_back_as_it_was():
    w = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.SGD([w], lr=0.1)
    parts = [
        torch.arange(3),
        (1.5, None, float("inf")),
        {0.9: torch.ones(2, 2, dtype=torch.bfloat16)},
        "x",
        True,
    ]
    optimizer.state[w]["parts"] = parts
    again = torch.optim.SGD([w], lr=0.5)
    restore(again, *packed(optimizer))
    found = again.state[w]["parts"]
    assert found[1:2] + found[3:] == parts[1:2] + parts[3:]
    assert torch.equal(found[0], parts[0]) and torch.equal(found[2][0.9], parts[2][0.9])
    assert found[2][0.9].dtype == torch.bfloat16
    assert again.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("name", "dtype", "why"),
    [
        ("Adai", "bfloat16", "not finite"),
        ("ROSE", "bfloat16", "cannot be saved whole"),
        ("DASH", "float32", "cannot be saved whole"),
    ],
)
def test_a_class_is_tried_in_the_adapters_dtype_from_a_start_like_a_runs(name, dtype, why):
    """From a factor of zeros, over more steps than memory of five or ten steps back hides in."""
    with pytest.raises(UserError, match=why):
        require_optimizer(f"library:{name}", dtype)
    with pytest.raises(UserError, match=why):
        w = torch.nn.Parameter(torch.zeros(2, 2, dtype=getattr(torch, dtype)))
        build_optimizer([w], OptimizerSettings(name=f"library:{name}"), ExpertSettings())
    if dtype == "bfloat16":
        require_optimizer(f"library:{name}")
