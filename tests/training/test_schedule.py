"""Who takes which step and who sees what: a pure function of the plan and a counter."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.expert_turns import expert_steps, role_at, steps_before
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.schedule import (
    STRATA,
    BatchOrder,
    batch_indices,
    generator_for,
    sigmas_at,
    without_caption,
)
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.flow import share_above

TWO = TrainingPlan(family="wan 2.2 A14B", steps=3000, swap_every=10)


@given(
    boundary=st.sampled_from([0.875, 0.9]),
    shift=st.floats(1.0, 12.0),
    swap_every=st.integers(1, 20),
    steps=st.integers(1, 2000),
)
@settings(max_examples=50)
def test_counting_gives_the_share_within_one_turn(boundary, shift, swap_every, steps):
    plan = replace(TWO, boundary=boundary, shift=shift, swap_every=swap_every, steps=steps)
    high = [role_at(plan, step) for step in range(steps)].count("high_noise")
    assert abs(high - share_above(boundary, shift) * steps) <= swap_every


@pytest.mark.parametrize(
    ("boundary", "shift", "percent"),
    [(0.9, 3, 25.0), (0.9, 5, 35.7), (0.9, 8, 47.1), (0.875, 5, 41.7), (0.875, 12, 63.2)],
)
def test_a_long_run_gives_the_published_shares(boundary, shift, percent):
    plan = replace(TWO, boundary=boundary, shift=shift, steps=10_000)
    assert expert_steps(plan)["high_noise"] / 100 == pytest.approx(percent, abs=0.15)


@pytest.mark.parametrize("swap_every", [1, 3, 10])
@pytest.mark.parametrize("shift", [1.0, 5.0, 12.0])
def test_the_high_expert_begins_and_turns_are_whole(swap_every, shift):
    plan = replace(TWO, swap_every=swap_every, shift=shift)
    roles = [role_at(plan, step) for step in range(600)]
    assert roles[0] == "high_noise"
    for turn in range(600 // swap_every):
        assert len(set(roles[turn * swap_every : (turn + 1) * swap_every])) == 1
    assert set(roles) == {"high_noise", "low_noise"}


def test_a_single_model_takes_every_step():
    plan = replace(TWO, family="single model", steps=50)
    assert {role_at(plan, step) for step in range(50)} == {"single"}
    assert expert_steps(plan) == {"single": 50}


def test_steps_before_is_what_counting_gives():
    counts = Counter()
    for step in range(200):
        assert steps_before(TWO, step) == {r: counts[r] for r in ("high_noise", "low_noise")}
        counts[role_at(TWO, step)] += 1
    assert steps_before(TWO, TWO.steps) == expert_steps(TWO)


@given(
    boundary=st.floats(1e-9, 1, exclude_max=True),
    shift=st.floats(1e-12, 1e12),
    swap_every=st.integers(1, 40),
    step=st.integers(0, 500),
)
def test_whole_turns_are_summed_as_they_are_counted(boundary, shift, swap_every, step):
    plan = replace(TWO, boundary=boundary, shift=shift, swap_every=swap_every)
    roles = [role_at(plan, earlier) for earlier in range(step)]
    assert steps_before(plan, step) == {r: roles.count(r) for r in ("high_noise", "low_noise")}


SHAPES = {
    "one shape": [(16, 3, 4, 4)] * 7,
    "three shapes": [(16, 3, 4, 4)] * 5 + [(16, 1, 4, 4)] * 4 + [(16, 3, 8, 4)],
    "one clip": [(16, 3, 4, 4)],
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("role", ["high_noise", "low_noise"])
def test_every_clip_comes_once_an_epoch_beside_its_own_shape_only(shapes, batch, role):
    sizes = Counter(shapes).values()
    per_epoch = sum(math.ceil(count / batch) for count in sizes)
    for epoch in range(4):
        batches = [
            batch_indices(shapes, batch, epoch * per_epoch + i, seed=0, role=role)
            for i in range(per_epoch)
        ]
        assert sorted(clip for group in batches for clip in group) == list(range(len(shapes)))
        assert all(len({shapes[clip] for clip in group}) == 1 for group in batches)
        assert all(1 <= len(group) <= batch for group in batches)


def plain_indices(shapes, batch, index, *, seed, role):
    """Every clip once an epoch, with nothing remembered: the order that runs have had from the beginning."""

    def batches(epoch):
        generator = generator_for(seed, role, "order", epoch)
        buckets = {}
        for clip in torch.randperm(len(shapes), generator=generator).tolist():
            buckets.setdefault(shapes[clip], []).append(clip)
        groups = [
            clips[i : i + batch] for clips in buckets.values() for i in range(0, len(clips), batch)
        ]
        return [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]

    epoch, position = divmod(index, len(batches(0)))
    return batches(epoch)[position]


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_clips_shown_once_in_one_view_come_in_the_order_they_always_had(shapes, batch):
    order = BatchOrder(
        shapes, batch, seed=3, role="low_noise", repeats=[1.0] * len(shapes), views=[1] * len(shapes)
    )  # fmt: skip
    for index in range(60):
        expected = plain_indices(shapes, batch, index, seed=3, role="low_noise")
        assert [clip for clip, _ in order.at(index)] == expected
        assert {view for _, view in order.at(index)} == {0}
        assert batch_indices(shapes, batch, index, seed=3, role="low_noise") == expected


def test_the_order_of_a_known_run_is_what_it_was():
    shapes = [(16, 3, 4, 4)] * 4 + [(16, 1, 4, 4)] * 2
    found = [batch_indices(shapes, 2, index, seed=7, role="high_noise") for index in range(6)]
    assert found == [[3, 2], [5, 4], [1, 0], [4, 5], [1, 3], [2, 0]]


REPEATS = st.lists(
    st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 0.0]), min_size=1, max_size=12
).filter(lambda repeats: sum(repeats) > 0)


def epochs_of(order: BatchOrder, count: int) -> list[list]:
    """Everything that the first epochs show."""
    index, epochs = 0, []
    for epoch in range(count):
        batches = order._batches_in(epoch)
        epochs.append([s for i in range(index, index + batches) for s in order.at(i)])
        index += batches
    return epochs


@settings(max_examples=60)
@given(repeats=REPEATS, batch=st.integers(1, 3), kinds=st.integers(1, 3), views=st.integers(1, 3))
def test_clips_come_as_often_as_they_repeat_and_their_views_in_turn(repeats, batch, kinds, views):
    count, epochs = len(repeats), 24
    shapes = [(16, 1 + clip % kinds, 4, 4) for clip in range(count)]
    order = BatchOrder(shapes, batch, seed=1, role="single", repeats=repeats, views=[views] * count)
    shown = epochs_of(order, epochs)
    for clip, repeat in enumerate(repeats):
        times = [sum(s.clip == clip for s in epoch) for epoch in shown]
        assert all(math.floor(repeat) <= t <= math.ceil(repeat) for t in times)
        for first in range(epochs):
            for after in range(first + 1, epochs + 1):
                assert abs(sum(times[first:after]) - repeat * (after - first)) < 1 + 1e-9
        of_views = Counter(s.view for epoch in shown for s in epoch if s.clip == clip)
        counts = [of_views[view] for view in range(views)]
        assert max(counts) - min(counts) <= 1, "each view as often as the others"
    total = sum(order._batches_in(epoch) for epoch in range(epochs))
    for index in range(total):
        assert 1 <= len(order.at(index)) <= batch
        assert len({shapes[s.clip] for s in order.at(index)}) == 1


def test_a_repeat_of_a_half_shows_half_of_the_clips_in_each_epoch():
    order = BatchOrder([(1,)] * 100, 1, seed=0, role="single", repeats=[0.5] * 100)
    first, second, third = epochs_of(order, 3)
    assert abs(len(first) - 50) <= 2
    assert {s.clip for s in first}.isdisjoint(s.clip for s in second)
    assert {s.clip for s in first} == {s.clip for s in third}


def test_one_view_an_epoch_in_turn_and_neighbours_begin_with_different_ones():
    order = BatchOrder([(1,)] * 4, 1, seed=0, role="single", views=[1, 2, 2, 3])
    for epoch, shown in enumerate(epochs_of(order, 6)):
        assert sorted(shown) == [
            (0, 0), (1, (epoch + 1) % 2), (2, epoch % 2), (3, epoch % 3)
        ]  # fmt: skip


def test_asking_for_batches_out_of_order_gives_the_same_ones():
    def make():
        return BatchOrder(
            SHAPES["three shapes"], 2, seed=2, role="single", repeats=[0.3, 1, 2.5, 0.7, 1] * 2, views=[2] * 10
        )  # fmt: skip

    order = make()
    forwards = [order.at(index) for index in range(60)]
    assert [order.at(index) for index in reversed(range(60))] == forwards[::-1]
    assert [make().at(index) for index in range(60)] == forwards


def test_an_epoch_is_shuffled_once_however_large_it_is(monkeypatch):
    order, shuffled = BatchOrder([(1,)] * 1000, 1, seed=0, role="single"), []
    randperm = torch.randperm
    monkeypatch.setattr(
        torch, "randperm", lambda n, **more: shuffled.append(n) or randperm(n, **more)
    )
    seen = {order.at(index)[0].clip for index in range(1000)}
    assert len(seen) == 1000 and shuffled == [1000] * 2


@pytest.mark.parametrize("repeats", [[], [0.0, 0.0], [1.0, -1.0], [float("nan")], [float("inf")]])
def test_repeats_that_show_nothing_are_an_error(repeats):
    with pytest.raises(UserError, match="repeats above 0"):
        BatchOrder([(1,)] * len(repeats), 1, seed=0, role="single", repeats=repeats)


@pytest.mark.parametrize("repeats", [[1e-5], [1.0, 0.009], [1001.0], [1e19, 1.0], [1e300]])
def test_repeats_that_a_dataset_cannot_mean_are_an_error(repeats):
    with pytest.raises(UserError, match=r"0\.01 to 1000"):
        BatchOrder([(1,)] * len(repeats), 1, seed=0, role="single", repeats=repeats)


@settings(max_examples=60)
@given(
    repeats=st.lists(
        st.floats(0.01, 0.3) | st.sampled_from([0.0, 0.01, 0.1, 0.25, 1 / 3]),
        min_size=1,
        max_size=5,
    ).filter(any)
)
def test_epochs_that_show_nothing_are_passed_over(repeats):
    shapes = [(1,)] * len(repeats)
    order = BatchOrder(shapes, 1, seed=0, role="single", repeats=repeats)
    filled = [epoch for epoch in range(400) if order._batches_in(epoch)]
    expected = [batch for epoch in filled for batch in order._epoch(epoch)]
    assert [order.at(index) for index in range(len(expected))] == expected


def test_rare_showings_are_found_without_counting_the_epochs_between(monkeypatch):
    order, looked = BatchOrder([(1,)] * 2, 1, seed=0, role="single", repeats=[0.01] * 2), []
    count = order._batches_in
    monkeypatch.setattr(order, "_batches_in", lambda epoch: looked.append(epoch) or count(epoch))
    order.at(200)
    assert len(looked) < 6 * 201, "and 100 epochs lie between two showings of a clip"


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_so_many_samples_lose_their_caption_and_always_the_same_ones(share):
    plan = replace(TWO, caption_dropout=share)
    drawn = [without_caption(plan, "low_noise", index, 2) for index in range(2000)]
    assert drawn == [without_caption(plan, "low_noise", index, 2) for index in range(2000)]
    count = sum(map(sum, drawn))
    assert abs(count - 4000 * share) < 4 * math.sqrt(4000 * share * (1 - share))
    other = [without_caption(plan, "high_noise", index, 2) for index in range(2000)]
    assert other != drawn
    assert not any(without_caption(TWO, "low_noise", 0, 500))


def order(seed: int, role: str, epoch: int) -> list[int]:
    shapes = [(1,)] * 12
    return [batch_indices(shapes, 1, epoch * 12 + i, seed=seed, role=role)[0] for i in range(12)]


def test_the_order_is_another_in_each_epoch_for_each_expert_and_each_seed():
    orders = [order(0, "high_noise", 0), order(0, "high_noise", 1), order(0, "low_noise", 0)]
    orders.append(order(1, "high_noise", 0))
    assert len({tuple(o) for o in orders}) == 4
    assert order(0, "high_noise", 1) == orders[1]


def test_asking_out_of_order_gives_the_same_answers():
    shapes, indices = SHAPES["three shapes"], list(range(40))

    def answer(index):
        return (
            role_at(TWO, index),
            batch_indices(shapes, 2, index, seed=5, role="low_noise"),
            sigmas_at(TWO, "low_noise", index, 2).tolist(),
            generator_for(5, "noise", index).initial_seed(),
        )

    forwards = {index: answer(index) for index in indices}
    torch.manual_seed(123)
    backwards = {index: answer(index) for index in reversed(indices)}
    assert forwards == backwards


def test_a_batch_of_two_continues_where_batches_of_one_would():
    ones = [sigmas_at(TWO, "high_noise", i, 1).item() for i in range(40)]
    twos = [sigmas_at(TWO, "high_noise", i, 2).tolist() for i in range(20)]
    assert [sigma for pair in twos for sigma in pair] == ones


@pytest.mark.parametrize("role", ["high_noise", "low_noise"])
def test_each_group_of_sigmas_covers_the_experts_range_evenly(role):
    low, high = (
        sigma / (TWO.shift - (TWO.shift - 1) * sigma) for sigma in sigma_range(role, TWO.boundary)
    )
    for group in range(5):
        sigmas = torch.cat([sigmas_at(TWO, role, group * STRATA + i, 1) for i in range(STRATA)])
        u = sigmas.double() / (TWO.shift - (TWO.shift - 1) * sigmas.double())
        part = ((u - low) / (high - low) * STRATA).floor().int().tolist()
        assert sorted(part) == list(range(STRATA))


def test_noise_depends_on_every_word_of_its_name_and_on_nothing_else():
    names = [(0, "high_noise", "noise", 1), (0, "high_noise", "noise", 2)]
    names += [(0, "low_noise", "noise", 1), (1, "high_noise", "noise", 1), (0, "dropout", 1)]
    draws = [torch.randn(4, generator=generator_for(*name)) for name in names]
    again = [torch.randn(4, generator=generator_for(*name)) for name in reversed(names)]
    assert all(torch.equal(a, b) for a, b in zip(draws, reversed(again), strict=True))
    assert len({tuple(draw.tolist()) for draw in draws}) == len(names)
