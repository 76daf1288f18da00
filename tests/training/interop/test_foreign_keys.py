"""Keys of other trainers that a plan has a value for, in configs of our own making."""

from __future__ import annotations

import math

import pytest
import torch
from tandem_wan.training.interop.noise import shift_with_mean
from tandem_wan.training.interop.plans import export_plan, import_plan
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import PruneSettings, TimestepSettings
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.families import SigmaRange
from tandem_wan.wan.lora.adapters import pick_layers
from tandem_wan.wan.timesteps import sigma_quantiles

PIPE = """
max_steps = 200
micro_batch_size_per_gpu = 1
{top}
[model]
type = 'wan'
ckpt_path = '/models/Wan2.1-T2V-14B'
{model}
[adapter]
type = 'lora'
rank = 16
{adapter}
[optimizer]
type = 'adamw'
lr = 3e-5
"""
TOOLKIT = """
config:
  process:
    - network: {{type: lora, linear: 16}}
      save: {{save_every: 50{save}}}
      train: {{steps: 200, lr: 1e-4{train}}}
      model: {{name_or_path: some/Wan2.2-T2V, arch: wan22_14b{model}}}
"""
COMMAND = "--task t2v-14B --dit x --network_dim 16 --max_train_steps 200 --learning_rate 1e-4 "


def pipe(top="", model="", adapter=""):
    return PIPE.format(top=top, model=model, adapter=adapter)


def toolkit(train="", save="", model=""):
    return TOOLKIT.format(train=train, save=save, model=model)


READ = [
    (pipe("lr_scheduler = 'cosine'\nwarmup_steps = 9"), "high.schedule", "cosine"),
    (pipe("lr_scheduler = 'cosine'\nwarmup_steps = 9"), "low.warmup", 9),
    (pipe("lr_scheduler = 'cosine'\nforce_constant_lr = 1e-5"), "high.schedule", "constant"),
    (pipe("blocks_to_swap = 12\nactivation_checkpointing = true"), "swap_blocks", 12),
    (pipe("blocks_to_swap = 12"), "checkpoint_blocks", True),
    (pipe("activation_checkpointing = 'unsloth'"), "offload_activations", True),
    (pipe(model="sigmoid_scale = 1.5\nshift = 3"), "timesteps.std", 1.5),
    (pipe(model="sigmoid_scale = 1.5\nshift = 3"), "timesteps.distribution", "logit-normal"),
    (pipe(model="sigmoid_scale = 40"), "timesteps.std", 10.0),
    (pipe(model="timestep_sample_method = 'uniform'"), "timesteps.distribution", "uniform"),
    (toolkit(", ema_config: {use_ema: true, ema_decay: 0.99}"), "optimizer.ema", 0.99),
    (toolkit(", ema_config: {use_ema: false, ema_decay: 0.99}"), "optimizer.ema", 0.0),
    (toolkit(), "high_share", 0.5),
    (toolkit(), "timesteps.distribution", "sigmoid"),
    (toolkit(", timestep_type: shift"), "shift", 5.0),
    (toolkit(", t0_loss_target: true"), "loss.weighting", "x0"),
    (toolkit(", t0_loss_target: true, t0_velocity_equiv_weight: true"), "loss.weighting", "none"),
    (toolkit(", lr_scheduler: cosine"), "low.schedule", "cosine"),
    (toolkit(", lr_scheduler: cosine_with_restarts"), "low.schedule", "cosine"),
    (toolkit(", lr_scheduler: linear"), "low.schedule", "constant"),
    (toolkit(", lr_scheduler: linear, lr_scheduler_params: {start_factor: 1, end_factor: 0}"), "low.schedule",
     "linear"),
    (toolkit(", lr_scheduler: constant_with_warmup, lr_scheduler_params: {num_warmup_steps: 30}"), "high.warmup", 15),
    (toolkit(save=", max_step_saves_to_keep: 2"), "prune.last", 2),
    (toolkit(save=", max_step_saves_to_keep: 4"), "prune.last", 0),
    (toolkit(model=", layer_offloading: true, layer_offloading_transformer_percent: 0.7"), "swap_blocks", 28),
    (COMMAND + "--lr_scheduler cosine_with_restarts --lr_scheduler_num_cycles 4", "high.cycles", 4),
    (COMMAND + "--lr_scheduler polynomial", "high.schedule", "linear"),
    (COMMAND + "--lr_scheduler rex --lr_warmup_steps 5", "high.schedule", "constant"),
    (COMMAND + "--lr_warmup_steps 0.1", "high.warmup", 20),
    (COMMAND + "--lr_warmup_steps 10%", "low.warmup", 20),
    (COMMAND + "--blocks_to_swap 20 --gradient_checkpointing", "swap_blocks", 20),
    (COMMAND + "--gradient_checkpointing --gradient_checkpointing_cpu_offload", "offload_activations", True),
    (COMMAND + "--gradient_checkpointing_cpu_offload", "offload_activations", False),
    (COMMAND + "--save_every_n_epochs 2 --save_last_n_epochs 3", "prune.last", 3),
    (COMMAND + "--weighting_scheme cosmap", "loss.weighting", "cosmap"),
    (COMMAND, "timesteps.distribution", "uniform"),
    (COMMAND + "--discrete_flow_shift 5", "shift", 5.0),
    (COMMAND + "--timestep_sampling shift --discrete_flow_shift 5", "timesteps.distribution", "sigmoid"),
    (COMMAND + "--timestep_sampling sigmoid --sigmoid_scale 2 --discrete_flow_shift 5", "shift", 1.0),
    (COMMAND + "--timestep_sampling sigmoid --sigmoid_scale 2", "timesteps.std", 2.0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name", "value"), READ)
def test_a_key_is_read_as_the_plans_value(text, name, value):
    found = import_plan([text])
    plan = found.plan
    for part in name.split("."):
        plan = getattr(plan, part)
    assert plan == value
    assert not any(key in line for line in found.ignored for key in ("lr_scheduler =", "warmup"))
    assert not found.unknown


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (pipe("blocks_to_swap = 12"), "checkpoint_blocks is set for it"),
        (pipe(model="sigmoid_scale = 40"), "10 is taken"),
        (pipe("lr_scheduler = 'cosine'"), "over all epochs there"),
        (toolkit(", timestep_type: weighted"), "weights by timestep have no match"),
        (toolkit(", content_or_style: style"), "content_or_style style has no match"),
        (toolkit(", lr_scheduler: linear"), "linear rate rises"),
        (COMMAND + "--lr_scheduler rex", "the rate stays constant"),
        (COMMAND + "--lr_scheduler cosine_with_min_lr", "it ends above 0 there"),
        (COMMAND + "--weighting_scheme mode", "mode has no match"),
        (COMMAND + "--timestep_sampling flux_shift", "flux_shift has no match"),
        (COMMAND + "--max_timestep 875 --timestep_sampling shift", "squeezed into each expert's"),
    ],
)
def test_what_differs_is_said(text, note):
    assert any(note in line for line in import_plan([text]).notes)


WHOLE = SigmaRange(0.0, 1.0)
QUANTILES = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
NORMAL = torch.special.ndtri(QUANTILES)


def drawn(plan, shift=None):
    settings = plan.timesteps
    return sigma_quantiles(
        WHOLE,
        QUANTILES,
        shift=shift or plan.shift,
        distribution=settings.distribution,
        mean=settings.mean,
        std=settings.std,
    )


@pytest.mark.parametrize(("mean", "std", "shift"), [(0.5, 1.0, 5.0), (-2.0, 0.4, 3.0), (3, 2, 0.5)])
def test_a_mean_is_a_shift_times_e_to_it(mean, std, shift):
    settings = TimestepSettings(distribution="logit-normal", mean=mean, std=std)
    plan = TrainingPlan(shift=shift, timesteps=settings)
    centred = TimestepSettings(distribution="logit-normal", std=std)
    there = drawn(TrainingPlan(timesteps=centred), shift_with_mean(plan))
    torch.testing.assert_close(drawn(plan), there, rtol=1e-5, atol=1e-6)
    assert shift_with_mean(plan) == pytest.approx(shift * math.exp(mean))


def test_logsnr_draws_the_sigmas_of_its_formula():
    text = COMMAND + "--timestep_sampling logsnr --logit_mean 1.5 --logit_std 2"
    # sigma = sigmoid(-x / 2) of a normal x falls with x.
    expected = torch.sigmoid(-(1.5 + 2 * NORMAL) / 2).flip(0)
    torch.testing.assert_close(
        drawn(import_plan([text]).plan).double(), expected, rtol=1e-5, atol=0
    )


def test_places_in_the_schedule_draw_the_sigmas_that_stand_there():
    text = COMMAND + (
        "--timestep_sampling sigma --weighting_scheme logit_normal --logit_mean 0.7 --logit_std 1.2 "
        "--discrete_flow_shift 3"
    )
    # The schedule falls: a place u has the unshifted sigma 1 - u.
    u = 1 - torch.sigmoid(0.7 + 1.2 * NORMAL)
    expected = (3 * u / (1 + 2 * u)).flip(0)
    torch.testing.assert_close(
        drawn(import_plan([text]).plan).double(), expected, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("last", [1, 2, 5])
@pytest.mark.parametrize("every", [7, 10])
def test_as_many_checkpoints_stay_there_as_the_plan_says(last, every):
    plan = TrainingPlan(steps=200, save_every=every, train="high", prune=PruneSettings(last=last))
    (line,) = [
        line
        for line in export_plan(plan, "musubi-tuner").text().splitlines()
        if "save_last_n_steps" in line
    ]
    window = int(line.split()[1])
    kept = set()
    for step in range(every, 201, every):
        kept.add(step)
        oldest = step - window - 1
        kept.discard(oldest - oldest % every)
    saved = range(every, 201, every)
    assert kept == set(saved[-last:])


def one(expert, rate, steps=100):
    trained = {name: str(name == expert).lower() for name in ("high", "low")}
    kwargs = ", ".join(f"train_{name}_noise: {on}" for name, on in trained.items())
    text = toolkit(model=f", model_kwargs: {{{kwargs}}}")
    return text.replace("1e-4", rate).replace("steps: 200", f"steps: {steps}")


def both(*texts):
    return "\n".join(f"# file: {n}.yaml\n{text}" for n, text in enumerate(texts))


def test_two_configs_of_one_expert_each_are_a_sequential_plan():
    plan = import_plan([both(one("low", "1e-5", 300), one("high", "2e-4"))]).plan
    assert (plan.order, plan.train, plan.steps) == ("sequential", "both", 400)
    assert (plan.high.rate, plan.low.rate, plan.high_share) == (2e-4, 1e-5, 0.25)
    assert [(phase.train, phase.steps) for phase in plan.phases] == [("high", 100), ("low", 300)]


@pytest.mark.parametrize(
    ("text", "came"),
    [
        (both(one("low", "1e-4"), one("low", "1e-4")), "2 ai-toolkit runs of the same kind"),
        (both(one("low", "1e-4"), toolkit()), "not of one expert alone"),
    ],
)
def test_other_pairs_of_configs_are_no_plan(text, came):
    with pytest.raises(UserError, match=came):
        import_plan([text])


def names(text):
    """What the adapter would train of these."""
    layers = ["blocks.0.self_attn.q", "blocks.0.cross_attn.k", "blocks.7.ffn.0", "head.head"]
    return pick_layers(layers, import_plan([text]).plan.lora.targets)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (pipe(adapter=r"exclude_modules = '.*cross_attn.*'"), [0, 2]),
        (pipe(adapter="exclude_modules = ['k', 'ffn.0']"), [0]),
        (COMMAND + "--network_args \"exclude_patterns=[r'.*cross.*', '.*ffn\\.0']\"", [0]),
        (
            COMMAND
            + "--network_args \"exclude_patterns=['.*']\" \"include_patterns=[r'.*ffn.*']\"",
            [2],
        ),
    ],
)
def test_excluded_layers_are_not_trained(text, left):
    assert names(text) == [names(COMMAND)[n] for n in left]
