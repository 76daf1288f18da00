"""Values that a trainer has keys for stand in those keys: they come back without the comment."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from tandem_wan.dev.plan_strategies import plans
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.expert_turns import expert_steps
from tandem_wan.training.interop.documents import TRAINERS
from tandem_wan.training.interop.experts import run_settings
from tandem_wan.training.interop.plans import export_plan, import_plan
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import (
    ExpertSettings,
    LoraSettings,
    LossSettings,
    OptimizerSettings,
    PatternSettings,
    PhaseSettings,
    PruneSettings,
    TimestepSettings,
)
from tandem_wan.wan.lora.adapters import pick_layers

DIFFUSION_PIPE, AI_TOOLKIT, MUSUBI = TRAINERS
PLAN = TrainingPlan(steps=400, save_every=50, accumulate=2)
TWO_PHASES = (PhaseSettings(train="high", steps=1), PhaseSettings(train="low", steps=3))
LAYERS = [
    f"blocks.{n}.{layer}"
    for n in range(3)
    for layer in ("self_attn.q", "self_attn.o", "cross_attn.k", "ffn.0", "ffn.2")
]


def by_keys(text):
    """The plan that the keys alone say."""
    return import_plan([re.sub(r"^# tandem: .*$", "", text, flags=re.M)]).plan


def dotted(plan, name):
    for part in name.split("."):
        plan = getattr(plan, part)
    return plan


def of_run(plan, role):
    """What counts in an expert's run, with the number of restarts where there are some."""
    run = run_settings(plan, role)
    rates = run.rates
    cycles = rates.cycles if "restarts" in rates.schedule else None
    return *run[:-1], rates.rate, rates.schedule, rates.warmup, cycles


EVERYWHERE = {
    "checkpoint_blocks": False,
    "swap_blocks": 20,
    "lora": LoraSettings(rank=8, alpha=8.0, dropout=0.25),
}
NATIVE = {
    DIFFUSION_PIPE: {
        **EVERYWHERE,
        "offload_activations": True,
        "high_share": 0.5,
        "timesteps": TimestepSettings(distribution="logit-normal", std=1.5),
        "high": ExpertSettings(schedule="cosine", warmup=7),
        "low": ExpertSettings(schedule="linear", warmup=3, beta2=0.9, clip=0.5, dropout=0.25),
    },
    AI_TOOLKIT: {
        **EVERYWHERE,
        "optimizer": OptimizerSettings(ema=0.995),
        "loss": LossSettings(weighting="x0"),
        "prune": PruneSettings(last=3),
        "high_share": 0.5,
        "swap_every": 4,
        "timesteps": TimestepSettings(distribution="sigmoid"),
    },
    MUSUBI: {
        **EVERYWHERE,
        "offload_activations": True,
        "high_share": 0.5,
        "loss": LossSettings(weighting="cosmap"),
        "prune": PruneSettings(last=3),
        "timesteps": TimestepSettings(distribution="sigmoid", std=1.5),
        "high": ExpertSettings(schedule="cosine with restarts", cycles=2, warmup=7, rank=4),
        "low": ExpertSettings(warmup=3, beta2=0.9, clip=0.5, rank=8, alpha=8.0, dropout=0.25),
    },
}


@pytest.mark.parametrize(
    ("trainer", "name"), [(trainer, name) for trainer, values in NATIVE.items() for name in values]
)
def test_a_value_with_a_key_there_needs_no_comment(trainer, name):
    plan = replace(PLAN, **{name: NATIVE[trainer][name]})
    export = export_plan(plan, trainer)
    back = by_keys(export.text())
    if name in ("high", "low"):
        # Which of both experts has the common value is the reader's choice.
        assert [of_run(back, role) for role in plan.roles()] == [
            of_run(plan, role) for role in plan.roles()
        ]
    else:
        assert dotted(back, name) == NATIVE[trainer][name]
    assert not any(line.startswith((f"{name} ", f"{name}.")) for line in export.kept)


@pytest.mark.parametrize("trainer", [DIFFUSION_PIPE, MUSUBI])
def test_each_run_has_its_experts_steps_and_says_their_share(trainer):
    plan = replace(PLAN, high_share=0.25, swap_every=5)
    back = by_keys(export_plan(plan, trainer).text())
    assert expert_steps(replace(back, swap_every=5)) == expert_steps(plan)
    assert back.high_share == 0.25


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_sequential_plan_is_a_run_for_each_expert_with_its_own_settings(trainer):
    plan = replace(
        PLAN,
        order="sequential",
        phases=TWO_PHASES,
        high=ExpertSettings(rate=2e-4, rank=16, alpha=16.0),
        low=ExpertSettings(rate=5e-5, dropout=0.1),
    )
    export = export_plan(plan, trainer)
    assert sum("_high" in name or "_low" in name for name in export.files) == 2
    back = by_keys(export.text())
    assert back.phases == (
        PhaseSettings(train="high", steps=100),
        PhaseSettings(train="low", steps=300),
    )
    for role in plan.roles():
        there, here = (run_settings(each, role) for each in (back, plan))
        assert there._replace(rates=None) == here._replace(rates=None)
        assert there.rates.rate == here.rates.rate
    # Two commands say nothing of the order; two configs of ai-toolkit are one after the other.
    assert (back.order == "sequential") == (trainer == AI_TOOLKIT)
    assert import_plan([export.text()]).plan == plan


def test_taking_turns_of_a_step_each_is_a_switch_at_every_step_there():
    text = export_plan(replace(PLAN, order="joint"), AI_TOOLKIT).text()
    assert "switch_boundary_every: 2\n" in text
    edited = text.replace("switch_boundary_every: 2\n", "switch_boundary_every: 8\n")
    plan = import_plan([edited]).plan
    assert (plan.order, plan.swap_every) == ("interleaved", 4)


@pytest.mark.parametrize("trainer", [DIFFUSION_PIPE, MUSUBI])
@pytest.mark.parametrize(
    "targets",
    [
        (r"blocks\.0\..*", r".*\.ffn\.2"),
        (r"blocks\.\d+\.ffn\.(0|2)",),
        (r"blocks\.\d+\.self_attn\.(q|k|v|o)",),
    ],
)
def test_the_layers_of_any_patterns_are_those_of_the_keys(trainer, targets):
    plan = replace(PLAN, lora=LoraSettings(targets=targets))
    export = export_plan(plan, trainer)
    back = by_keys(export.text())
    assert pick_layers(LAYERS, back.lora.targets) == pick_layers(LAYERS, targets)
    assert not any(line.startswith("lora.targets") for line in export.kept)
    if trainer == DIFFUSION_PIPE:
        excluded = re.search(r'exclude_modules = "(.*)"', export.text())[1].replace("\\\\", "\\")
        left = [layer for layer in LAYERS if not re.fullmatch(excluded, layer)]
        assert left == pick_layers(LAYERS, targets)


@pytest.mark.parametrize("target", [r"blocks\.(?=0)\d+\..*", "*"])
def test_patterns_that_the_trainer_could_not_read_stay_in_the_comment(target):
    # An argument is cut at every = there.
    plan = replace(PLAN, lora=LoraSettings(targets=(target,)))
    export = export_plan(plan, MUSUBI)
    assert "--network_args" not in export.text()
    assert any(line.startswith("lora.targets") for line in export.kept)
    assert import_plan([export.text()]).plan == plan


def test_a_falling_rate_ends_with_the_epochs_where_the_dataset_is_known():
    plan = replace(PLAN, train="high", high=ExpertSettings(schedule="cosine"))
    text = export_plan(plan, DIFFUSION_PIPE, (), Counts(16, 16.0, 0.0)).text()
    # 400 steps of 2 samples are 50 epochs of 16.
    assert "epochs = 50 " in text and "max_steps = 400" in text
    assert "set as many as max_steps is" in export_plan(plan, DIFFUSION_PIPE).text()


EDITS = [
    # (trainer, plan, file, pattern, new, expert, expected settings)
    (MUSUBI, ExpertSettings(rank=16), "high", r"--network_dim \d+", "--network_dim 4", (4, 32)),
    (MUSUBI, ExpertSettings(rank=16), "low", r"--network_dim \d+", "--network_dim 4", (16, 4)),
    (DIFFUSION_PIPE, ExpertSettings(rank=16), "high", r"rank = \d+", "rank = 4", (4, 32)),
    (DIFFUSION_PIPE, ExpertSettings(rank=16), "low", r"rank = \d+", "rank = 4", (16, 4)),
]


@pytest.mark.parametrize(("trainer", "high", "which", "pattern", "new", "ranks"), EDITS)
def test_a_rank_that_was_edited_in_one_run_leaves_the_other_as_it_was(
    trainer, high, which, pattern, new, ranks
):
    files = dict(export_plan(replace(PLAN, high=high), trainer).files)
    name = next(name for name in files if f"_{which}" in name)
    files[name], edits = re.subn(pattern, new, files[name])
    assert edits == 1
    plan = import_plan(["\n".join(f"# file: {n}\n{text}" for n, text in files.items())]).plan
    assert tuple(run_settings(plan, role).rank for role in plan.roles()) == ranks


WITH_MEAN = replace(PLAN, timesteps=TimestepSettings(distribution="logit-normal", mean=0.5))


@pytest.mark.parametrize(
    ("trainer", "pattern", "new", "expected"),
    [
        (DIFFUSION_PIPE, r"shift = \S+", "shift = 3.0", ("logit-normal", 3.0, 0.0)),
        (
            DIFFUSION_PIPE,
            r'"logit_normal"\n.*',
            '"uniform"',
            ("uniform", pytest.approx(8.2436, rel=1e-4), None),
        ),
        (MUSUBI, r"discrete_flow_shift \S+", "discrete_flow_shift 3", ("sigmoid", 3.0, None)),
    ],
)
def test_an_edited_curve_is_not_moved_by_the_mean_a_second_time(trainer, pattern, new, expected):
    text, edits = re.subn(pattern, new, export_plan(WITH_MEAN, trainer).text())
    assert edits == 2
    plan = import_plan([text]).plan
    distribution, shift, mean = expected
    assert (plan.timesteps.distribution, plan.shift) == (distribution, shift)
    assert mean is None or plan.timesteps.mean == mean


def test_checkpointing_that_was_turned_off_takes_what_needs_it_along():
    plan = replace(PLAN, offload_activations=True)
    text = export_plan(plan, AI_TOOLKIT).text()
    assert import_plan([text]).plan == plan
    found = import_plan([text.replace("checkpointing: true", "checkpointing: false")])
    assert (found.plan.checkpoint_blocks, found.plan.offload_activations) == (False, False)
    assert any("offload_activations is left out" in note for note in found.notes)


@pytest.mark.parametrize("trainer", TRAINERS)
@settings(max_examples=60)
@given(plan=plans(400))
def test_every_value_in_the_comment_has_a_reason_of_its_own(trainer, plan):
    export = export_plan(plan, trainer)
    without = [line for line in export.kept if line.endswith(": it has no such value")]
    assert not [line for line in without if not line.startswith("boundary")]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_settings_of_some_layers_are_kept_and_said(trainer):
    plan = replace(PLAN, patterns=(PatternSettings(pattern=r".*\.ffn\..*", rank=8),))
    export = export_plan(plan, trainer, [])
    assert import_plan([export.text()]).plan == plan
    assert any(
        line.startswith(r"patterns = pattern .*\.ffn\..* expert both") for line in export.kept
    )


def test_nothing_is_said_of_values_that_do_nothing():
    for trainer in TRAINERS:
        names = {line.split(" = ")[0] for line in export_plan(PLAN, trainer).kept}
        idle = {"phases", "loss.gamma", "timesteps.std", "timesteps.mean", "high.cycles"}
        assert not names & idle
        assert not any(name.startswith("alpha_phases") for name in names)


def test_a_file_of_one_expert_is_a_plan_for_it():
    files = export_plan(replace(PLAN, order="sequential"), AI_TOOLKIT).files
    plan = import_plan([files["config_low.yaml"]]).plan
    assert (plan.train, plan.roles()) == ("low", ("low_noise",))
