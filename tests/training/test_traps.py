"""Traps into which trainers of Wan have fallen: a test for each that needs no host. tests/README.md lists all 16."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from tandem_wan.training.checkpoints import CheckpointStore
from tandem_wan.training.data.dataset import DatasetSettings
from tandem_wan.training.data.reader import load_dataset
from tandem_wan.training.expert_turns import role_at
from tandem_wan.training.loop import train
from tandem_wan.training.optimizers.automagic import Automagic
from tandem_wan.training.optimizers.build import build_optimizer
from tandem_wan.training.optimizers.memory import packed, restore
from tandem_wan.training.plans.plan import ExpertSettings, OptimizerSettings
from tandem_wan.training.preview import Preview, schedule
from tandem_wan.training.samples import ListedSamples
from tandem_wan.training.schedule import sigmas_at
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.adapters import LoraAdapter
from tandem_wan.wan.lora.combine import Source, combine
from tandem_wan.wan.lora.files import read_tensors
from tandem_wan.wan.shapes import checked_clip_size, latent_size

PAIR = ("high_noise", "low_noise")
SMALL = 2e-8
"""Nothing in float16, whose least number is 6e-8."""


def nothing(*args) -> None:
    pass


@pytest.mark.parametrize("shift", [3.0, 5.0, 8.0])
def test_trap_02_the_schedule_is_shifted_first_and_then_cut_at_the_boundary(toys, shift):
    """Against draws of the whole schedule, of which the other expert's are thrown away."""
    plan = toys.plan(shift=shift)
    whole = np.random.default_rng(0).random(200_000)
    whole = shift * whole / (1 + (shift - 1) * whole)
    for role, own in zip(PAIR, (whole[whole >= 0.9], whole[whole < 0.9]), strict=True):
        drawn = np.sort([s for i in range(1600) for s in sigmas_at(plan, role, i, 1).tolist()])
        expected = np.quantile(own, [0.02, 0.25, 0.5, 0.75, 0.98])
        found = np.quantile(drawn, [0.02, 0.25, 0.5, 0.75, 0.98])
        assert np.abs(found - expected).max() < 0.02 * (own.max() - own.min()), role
    # Cut first, the high expert would never see what lies just above its boundary.
    cut_first = shift * 0.9 / (1 + (shift - 1) * 0.9)
    seen = torch.cat([sigmas_at(plan, "high_noise", i, 1) for i in range(160)])
    assert (seen < cut_first).float().mean() > 0.5


def test_trap_07_clips_have_4k_plus_1_frames_and_lose_at_most_3(film, tmp_path):
    for frames in range(5, 42, 4):
        assert latent_size(checked_clip_size(64, 48, frames)).frames == (frames + 3) // 4
    for frames in (4, 6, 7, 8, 16, 80):
        with pytest.raises(UserError, match="4k\\+1"):
            checked_clip_size(64, 48, frames)
    for frames in (45, 53, 61, 64):  # 8k+1 would make 41, 49, 57 and 57 of them
        film(tmp_path / f"{frames}.mp4", frames=frames, seed=frames)
    settings = DatasetSettings(folder=tmp_path, media="video", width=48, height=32, frames=81)
    clips = load_dataset(settings).clips
    assert [clip.frames for clip in clips] == [45, 53, 61, 61]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trap_09_weights_too_small_for_float16_reach_the_file(toys, tmp_path, dtype):
    plan = toys.plan()
    plan = replace(plan, lora=replace(plan.lora, dtype=dtype))
    trainers = toys.trainers(plan)
    with torch.no_grad():
        for trainer in trainers.values():
            for adapter in trainer.adapters.values():
                adapter.up.fill_(SMALL)
    store = CheckpointStore(tmp_path, "small")
    store.save(1, trainers, {})
    for role in PAIR:
        ups = [t for key, t in read_tensors(store.file(1, role)).items() if "lora_B" in key]
        assert ups and all(up.dtype == getattr(torch, dtype) for up in ups)
        assert all((up.double() / SMALL - 1).abs().max() < 4e-3 for up in ups)
        assert all((up.half() == 0).all() for up in ups), "float16 would have lost them"
    with pytest.raises(UserError, match="float16"):
        replace(plan, lora=replace(plan.lora, dtype="float16"))


def test_trap_09_a_stack_that_is_saved_in_float16_keeps_small_changes_too():
    """Strength and alpha / rank of its rows are in the factors; here they bring every number below 6e-8."""
    generator = torch.Generator().manual_seed(0)
    down, up = (torch.randn(shape, generator=generator) for shape in ((4, 32), (64, 4)))
    adapter = LoraAdapter(down, 1e-6 * up, alpha=0.5)
    source = Source("x", {"q.weight": adapter}, strength=0.02)
    saved = combine(
        [source], lambda name: torch.empty(64, 32), expert="single", dtype=torch.float16
    )
    assert saved.whole == ()
    [name] = {key.removesuffix(".alpha") for key in saved.tensors if key.endswith(".alpha")}
    a, b, alpha = (
        saved.tensors[f"{name}.{k}"] for k in ("lora_A.weight", "lora_B.weight", "alpha")
    )
    assert a.dtype == b.dtype == torch.float16
    expected = 0.02 * 0.5 / 4 * (1e-6 * up @ down)
    found = alpha / 4 * (b.float() @ a.float())
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_trap_12_rates_far_apart_in_one_tensor_keep_every_bump_also_over_a_resume():
    """With 8 bits and one scale a tensor, a rate 254 bumps below the largest one could not move."""
    settings = {"rate": 1e-4, "bump": 1e-6, "minimum": 1e-6, "maximum": 1e-1, "clip": 1e9}
    weight = torch.nn.Parameter(torch.ones(8, 8))
    optimizer = Automagic([weight], **settings)
    for step in range(501):  # the first has no sign to agree with
        if step == 1:
            optimizer.state[weight]["rate"][0, 0] = 5e-2
        if step == 250:
            kept = packed(optimizer)
            optimizer = Automagic([weight], **settings)
            restore(optimizer, *kept)
        weight.grad = torch.ones(8, 8)
        optimizer.step()
    rate = optimizer.state[weight]["rate"].flatten()
    assert rate[1:].tolist() == pytest.approx([6e-4] * 63, rel=1e-2)
    assert rate[0].item() == pytest.approx(5e-2 + 5e-4, rel=1e-4)


@pytest.mark.parametrize("name", ["adamw", "adamw 8-bit", "adamw 8-bit kahan"])
def test_trap_12_no_state_is_rounded_to_a_zero_that_is_divided_by(name):
    """AdamW moves a weight by 3.2 rates at most, (1 - beta1) / sqrt(1 - beta2), however its moments are kept."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(16, 256))
    rates = ExpertSettings(rate=1e-3)
    optimizer = build_optimizer([weight], OptimizerSettings(name=name, weight_decay=0.0), rates)
    # Four decades within each block of 256 that shares a scale; of squares, eight.
    spread = 10 ** (4 * torch.rand(16, 256, generator=generator) - 4)
    for step in range(120):
        before = weight.detach().clone()
        noise = torch.randn(16, 256, generator=generator) if step < 100 else 0.0
        weight.grad = spread * noise
        optimizer.step()
        assert (weight.detach() - before).abs().max().item() < 3.2 * rates.rate, step


@pytest.mark.parametrize("cut", [1, 7, 10, 13])
def test_trap_13_no_step_is_done_twice_or_left_out_where_a_run_goes_on(toys, tmp_path, cut):
    """What each micro-batch was shown, in order: a run that counts from N instead of N + 1 shows something twice."""
    plan = toys.plan(steps=16, accumulate=2, batch=2, caption_dropout=0.3)

    def run(trainers, log, store, first_step=0, until=None):
        steps = []
        turns = toys.stop_when(lambda: until is not None and first_step + len(steps) >= until)
        train(
            plan,
            trainers,
            save=lambda step, t: store.save(step, t, {}),
            listen=steps.append,
            first_step=first_step,
            turns=turns,
        )
        seen = [(role, tuple(sigma.tolist())) for what, role, *sigma in log if what == "velocity"
                for sigma in sigma]  # fmt: skip
        return [event.step for event in steps], [event.rate for event in steps], seen

    plan = replace(plan, high=replace(plan.high, schedule="linear", warmup=3))
    whole_log: list = []
    whole = run(bare(toys, plan, whole_log), whole_log, CheckpointStore(tmp_path / "a", "x"))
    store, parts = CheckpointStore(tmp_path / "b", "x"), []
    for until in (cut, None):
        log: list = []
        trainers = bare(toys, plan, log)
        first = store.resume(trainers)
        parts.append(run(trainers, log, store, first, until))
    joined = [[*early, *late] for early, late in zip(*parts, strict=True)]
    assert joined == [list(part) for part in whole]
    assert joined[0] == list(range(1, 17))


def bare(toys, plan, log):
    """Trainers that can leave captions away."""
    return toys.trainers(plan, ListedSamples(toys.clips(), empty_context=torch.zeros(5, 6)), log)


@pytest.mark.parametrize("order", ["interleaved", "joint", "sequential"])
def test_trap_14_a_preview_is_sampled_by_both_experts_whichever_trained_last(toys, order):
    """Each step by the expert of its noise, with that expert's LoRA in."""
    plan, log = toys.plan(steps=6, order=order, swap_every=3), []
    trainers = toys.trainers(plan, log=log)
    shown = []
    preview = Preview(
        every=1,
        clips=toys.clips()[:1],
        negative=torch.zeros(5, 6),
        show=lambda step, number, latent: shown.append((step, latent)),
        steps=10,
        cfg=1.0,
    )

    def listen(event):
        log.append(("step", event.step))

    train(plan, trainers, save=nothing, listen=listen, preview=preview)
    assert len(shown) == 6
    expected = [
        ("high_noise" if sigma >= plan.boundary else "low_noise", pytest.approx(sigma, rel=1e-6))
        for sigma in schedule(10, plan.shift)[:-1]
    ]
    assert {role for role, _ in expected} == set(PAIR)
    for step in range(1, 7):
        began = log.index(("step", step))
        calls = [e for e in log[began:] if e[0] == "velocity"][:10]
        assert [(role, sigma.item()) for _, role, sigma in calls] == expected
    # The clip changes with either expert's step: its LoRA was in.
    for (_, before), (step, after) in pairwise(shown):
        assert not torch.equal(before, after), (step, role_at(plan, step - 1))


@pytest.mark.parametrize("order", ["interleaved", "joint", "sequential"])
@pytest.mark.parametrize("accumulate", [2, 5])
def test_trap_16_an_optimizer_step_never_mixes_the_experts_micro_batches(toys, order, accumulate):
    """Turns are counted in optimizer steps: each moves one expert's weights, by that expert's micro-batches alone."""
    plan = toys.plan(steps=9, order=order, swap_every=1, accumulate=accumulate)
    log: list = []
    trainers = toys.trainers(plan, log=log)
    weights = [toys.weights(trainers)]
    calls: list[list[str]] = []

    def listen(event):
        calls.append([role for what, role, *_ in log if what == "velocity"])
        log.clear()
        weights.append(toys.weights(trainers))

    train(plan, trainers, save=nothing, listen=listen)
    for step, (before, after) in enumerate(pairwise(weights)):
        own = role_at(plan, step)
        (other,) = set(PAIR) - {own}
        assert calls[step] == [own] * accumulate
        assert not toys.same({own: before[own]}, {own: after[own]})
        assert toys.same({other: before[other]}, {other: after[other]})
    assert {role for each in calls for role in each} == set(PAIR)
