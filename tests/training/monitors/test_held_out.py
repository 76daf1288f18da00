"""The held-out loss: the same every time, and nothing of the run depends on it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.events import HeldOut
from tandem_wan.training.expert_trainer import build_trainers
from tandem_wan.training.loop import train
from tandem_wan.training.monitors.held_out import (
    HeldOutLoss,
    Part,
    advised_held_out,
    divided,
    pick_held_out,
    sigma_grid,
)
from tandem_wan.training.samples import ListedSamples
from tandem_wan.training.schedule import generator_for
from tandem_wan.training.seat import Seat
from tandem_wan.training.turns import Turns
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.flow import unwarp


class Loaded(ListedSamples):
    """Keeps a log of the clips that were asked for."""

    def __init__(self, clips, **given):
        super().__init__(clips, **given)
        self.log = []

    def load(self, index, view):
        self.log.append(index)
        return super().load(index, view)


def rig(toys, plan, held=(1, 4)):
    """Trainers on the clips that are left, and the measure on the others."""
    samples = Loaded(toys.clips(8))
    shown, kept = divided(samples, held)
    trainers = build_trainers(plan, toys.experts(plan), shown)
    return samples, trainers, HeldOutLoss(plan, kept, shown)


def evaluated(measure, trainers, step=0):
    heard = []
    for trainer in trainers.values():
        trainer.expert.attach(trainer.adapters)
    with Seat(trainers, Turns()) as seat:
        measure(step, trainers, seat, heard.append)
    for trainer in trainers.values():
        trainer.expert.detach()
    return {event.role: (event.loss, event.trained) for event in heard}


def trained(plan, trainers, measure=None):
    heard = []
    train(plan, trainers, save=lambda *a: None, listen=heard.append, held_out=measure)
    return [event for event in heard if isinstance(event, HeldOut)]


def test_two_evaluations_are_equal_to_the_last_bit_per_expert(toys):
    plan = toys.plan(dropout=0.3)
    _, trainers, measure = rig(toys, plan)
    trained(plan, trainers)
    torch.manual_seed(1)
    first = evaluated(measure, trainers)
    torch.manual_seed(2)
    assert evaluated(measure, trainers) == first
    assert first.keys() == {"high_noise", "low_noise"}
    assert len(set(first.values())) == 2


def test_the_loss_is_the_mean_over_clips_and_sigmas_of_the_plain_one(toys):
    plan = toys.plan(dropout=0.3)
    samples, trainers, measure = rig(toys, plan)
    trained(plan, trainers)
    ours = evaluated(measure, trainers)["high_noise"][0]
    seen = []
    expert = trainers["high_noise"].expert
    expert.after_velocity = lambda call, v: seen.append(v) or v
    expert.log.clear()
    assert evaluated(measure, trainers)["high_noise"][0] == ours
    sigmas = [entry[2].item() for entry in expert.log if entry[:2] == ("velocity", "high_noise")]
    # Noise follows from the velocity's own input: x_t = (1 - sigma) x0 + sigma noise; here it is drawn anew.
    grid = [sigma for one in sigma_grid(plan, "high_noise", 2) for sigma in one]
    assert sigmas[: len(grid)] == pytest.approx(grid)
    losses = []
    for number, velocity in enumerate(seen[: len(grid)]):
        clip, point = divmod(number, len(grid) // 2)
        x0 = samples[(1, 4)[clip]].x0[None]
        generator = generator_for(plan.seed, "held out noise", "high_noise", clip, point)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append((velocity - (noise - x0)).square().mean().item())
    assert ours == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_dropout_is_off_while_it_measures_and_on_again_afterwards(toys):
    plan = toys.plan(dropout=0.9)
    _, trainers, measure = rig(toys, plan)
    trained(plan, trainers)
    with_dropout = evaluated(measure, trainers)
    for trainer in trainers.values():
        assert all(adapter.training for adapter in trainer.adapters.values())
        for adapter in trainer.adapters.values():
            adapter.dropout = 0.0
    assert evaluated(measure, trainers) == with_dropout


@pytest.mark.parametrize("optimizer", ["adamw", "automagic"])
def test_a_run_that_is_measured_makes_the_same_weights(toys, optimizer):
    plan = toys.plan(optimizer, steps=12, save_every=3, dropout=0.3)
    _, plain, _ = rig(toys, plan)
    trained(plan, plain)
    _, measured, measure = rig(toys, plan)
    state = torch.get_rng_state()
    events = trained(plan, measured, measure)
    assert torch.equal(torch.get_rng_state(), state)
    assert toys.same(toys.weights(plain), toys.weights(measured))
    assert [e.step for e in events if e.role == "high_noise"] == [0, 3, 6, 9, 12]


def test_it_falls_while_clips_that_are_alike_are_learnt(toys):
    plan = toys.plan(steps=200, save_every=50)
    _, trainers, measure = rig(toys, plan)
    events = trained(plan, trainers, measure)
    for role in trainers:
        losses = [e.loss for e in events if e.role == role]
        assert losses[-1] < 0.7 * losses[0]


def test_clips_that_are_held_out_are_never_trained_on(toys):
    plan = toys.plan(steps=30, batch=2)
    samples, trainers, _ = rig(toys, plan)
    trained(plan, trainers)
    assert set(samples.log) == {0, 2, 3, 5, 6, 7}


def test_it_comes_before_its_checkpoint_and_after_its_step(toys):
    plan = toys.plan(steps=5, save_every=2)
    _, trainers, measure = rig(toys, plan)
    order = []
    train(
        plan,
        trainers,
        save=lambda step, t: order.append(f"saved {step}"),
        listen=lambda e: order.append(f"{type(e).__name__} {e.step}"),
        held_out=measure,
    )
    both = ["HeldOut {0}", "HeldOut {0}"]
    assert order == [
        *[text.format(0) for text in both], "StepDone 1",
        "StepDone 2", *[text.format(2) for text in both], "saved 2", "StepDone 3",
        "StepDone 4", *[text.format(4) for text in both], "saved 4",
        "StepDone 5", *[text.format(5) for text in both], "saved 5",
    ]  # fmt: skip


@given(
    st.sampled_from(["high_noise", "low_noise", "single"]),
    st.integers(1, 20),
    st.floats(1.0, 12.0),
)
def test_the_sigmas_of_all_clips_are_the_middles_of_equal_parts(toys, role, clips, shift):
    plan = toys.plan(shift=shift)
    grid = sigma_grid(plan, role, clips)
    within = sigma_range(role, plan.boundary)
    low, high = unwarp(within.low, shift), unwarp(within.high, shift)
    flat = sorted((unwarp(s, shift) - low) / (high - low) for one in grid for s in one)
    count = len(flat)
    assert count >= 8 and all(len(one) >= 2 for one in grid)
    assert flat == pytest.approx((np.arange(count) + 0.5) / count, abs=1e-9)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.integers(0, 3), st.data())
def test_equal_seeds_pick_equal_clips_and_those_alone_in_their_file_first(files, seed, data):
    count = data.draw(st.integers(0, len(files) // 2))
    picked = pick_held_out(files, count, seed)
    assert picked == pick_held_out(files, count, seed)
    assert len(set(picked)) == count == len(picked)
    alone = [place for place, file in enumerate(files) if files.count(file) == 1]
    assert sum(place in alone for place in picked) == min(count, len(alone))


def test_another_seed_picks_other_clips():
    assert len({pick_held_out(range(40), 4, seed) for seed in range(5)}) == 5


@pytest.mark.parametrize(("clips", "count"), [(5, 3), (1, 1), (10, 6)])
def test_more_than_half_cannot_be_held_out(clips, count):
    with pytest.raises(UserError, match=f"holds out {count} of {clips} clips"):
        pick_held_out(range(clips), count, 0)


@pytest.mark.parametrize(("clips", "count"), [(1, 0), (9, 0), (10, 1), (19, 1), (20, 2), (100, 10)])
def test_one_in_ten_is_advised_from_ten_on(clips, count):
    assert advised_held_out(clips) == count


def test_a_part_is_the_same_clips_under_other_numbers(toys):
    clips = toys.clips(4)
    samples = ListedSamples(clips, repeats=[1.0, 2.0, 3.0, 4.0], empty_context=clips[0].context)
    part = Part(samples, [3, 1])
    assert len(part) == 2 and part.repeats == [4.0, 2.0] and part.views == [1, 1]
    assert part[0] is clips[3] and part.load(1, 0) is clips[1]
    assert part.shapes == [tuple(clips[3].x0.shape), tuple(clips[1].x0.shape)]
    assert part.empty_context is clips[0].context
