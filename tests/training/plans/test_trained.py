"""What is held out is not trained on: the budget, its warnings and the estimate count the rest, as the loop does."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import Clip, Counts, Dataset
from tandem_wan.training.monitors.held_out import divided
from tandem_wan.training.plans.budget import expert_budgets, make_plan
from tandem_wan.training.plans.compare import compare_plans
from tandem_wan.training.plans.estimate import run_flops
from tandem_wan.training.plans.limits import findings_of, require_allowed
from tandem_wan.training.plans.network_sizes import WAN_14B
from tandem_wan.training.plans.summary import full_summary, plan_summary, settings_line
from tandem_wan.training.plans.trained import held_out_places, trained_counts, trained_dataset
from tandem_wan.training.schedule import BatchOrder
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize


def clips(num: int, first: int = 0, **more) -> tuple[Clip, ...]:
    return tuple(
        Clip(path=Path(f"{i}.mp4"), caption="", frames=81, digest=str(i), **more)
        for i in range(first, first + num)
    )


def dataset(*taken: Clip) -> Dataset:
    return Dataset(folder=Path("clips"), clips=taken, size=ClipSize(832, 480, 81), fps=16)


MIXED = dataset(*clips(28), *clips(12, 100, regularisation=True))


def plan(data: Dataset = MIXED, preset: str = "video effect", **changes):
    return replace(make_plan(data, preset, "single model"), **changes)


class Encoded:
    """As much of the samples as `divided` asks for."""

    empty_context = None

    def __init__(self, data: Dataset):
        self.shapes = [(1,)] * len(data.clips)
        self.repeats = [clip.repeats for clip in data.clips]
        self.views = [1] * len(data.clips)

    def __len__(self):
        return len(self.shapes)


@pytest.mark.parametrize("shown", [MIXED, MIXED.counts()], ids=["dataset", "counts"])
def test_18_of_28_clips_and_12_of_regularisation_are_30_samples_an_epoch(shown):
    held = plan(held_out=10, steps=60, accumulate=1)
    text = plan_summary(held, shown)
    assert "for 18 clips (10 held out), 30 samples an epoch (12 of them regularisation): " in text
    assert "2.0 epochs, each clip shown 2.0 times" in text
    assert "10 clips held out" in settings_line(held) and "10 clips held out" in text
    assert trained_counts(held, shown) == Counts(18, 30.0, 12.0)


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=4, max_size=12), st.integers(0, 9))
def test_exposures_are_what_the_loops_own_order_shows_of_what_is_left(repeats, seed):
    teaching = (replace(c, repeats=r) for c, r in zip(clips(len(repeats)), repeats, strict=True))
    data = dataset(*teaching, *clips(2, 100, regularisation=True))
    held = plan(data, held_out=2, seed=seed, accumulate=1, batch=1)
    trained = trained_counts(held, data)
    held = replace(held, steps=round(20 * trained.shown))
    shown, _ = divided(Encoded(data), held_out_places(held, data))
    order = BatchOrder(shown.shapes, 1, seed=seed, role="single", repeats=shown.repeats)
    taken = [order.at(i)[0].clip for i in range(held.steps)]
    times = [taken.count(clip) for clip in range(len(shown) - 2)]
    budget = expert_budgets(held, trained)[0]
    assert sum(times) / len(times) == pytest.approx(budget.exposures, abs=0.5)


def test_none_of_regularisation_is_held_out_and_the_rest_is_the_dataset():
    held = plan(held_out=10)
    assert all(place < 28 for place in held_out_places(held, MIXED))
    assert len(trained_dataset(held, MIXED).clips) == 30
    assert trained_dataset(plan(), MIXED) is MIXED
    assert trained_counts(plan(), MIXED.counts()) == MIXED.counts()


def test_repeats_count_by_their_mean_where_only_numbers_are_known():
    counts = Counts(10, 10 * 3.0 + 5.0, 5.0)
    assert trained_counts(plan(held_out=4), counts) == Counts(6, 6 * 3.0 + 5.0, 5.0)


def test_more_held_out_than_trained_on_is_refused_with_all_clips_and_still_summed_up():
    wrong = plan(held_out=15)
    with pytest.raises(UserError, match="holds out 15 of 28 clips"):
        require_allowed(wrong, MIXED)
    assert "for 28 clips, 40 samples an epoch" in plan_summary(wrong, MIXED)


@pytest.mark.parametrize("shown", [MIXED, MIXED.counts()], ids=["dataset", "counts"])
def test_the_limit_of_50_epochs_counts_what_is_trained_on(shown):
    """50 epochs of all 40 samples are 66.7 of the 30."""
    assert make_plan(MIXED, "video effect", epochs=50).steps == 1000
    require_allowed(plan(steps=1000), shown)
    with pytest.raises(UserError, match=r"66\.7 epochs are 3\.3 times the optimum") as refused:
        require_allowed(plan(steps=1000, held_out=10), shown)
    assert "Use 300 steps at accumulate 2" in refused.value.to_do


def test_few_clips_and_images_are_those_that_are_trained_on():
    ten = dataset(*clips(10))
    few = [found for found in findings_of(plan(ten, held_out=4), ten) if "few" in found.text]
    assert few[0].text.startswith("6 clips are few") and "hold out fewer than 4" in few[0].fix
    assert not [found for found in findings_of(plan(ten), ten) if "few" in found.text]
    images = dataset(*clips(60))
    style = plan(images, "image style", held_out=30, steps=2400)
    assert "80.0 steps per image" in plan_summary(style, images)


def test_comparison_and_full_summary_tell_what_each_plan_trains_on():
    text = compare_plans(plan(), plan(held_out=10), MIXED)
    assert "for 28 clips, 40 samples" in text and "for 18 clips (10 held out), 30" in text
    assert "18 clips (10 held out)" in full_summary(plan(held_out=10), MIXED)


def test_the_time_is_that_of_the_clips_that_are_trained_on():
    """One large clip that is held out costs nothing; the mean sample is a small one."""
    small = clips(9, size=(256, 256))
    data = dataset(*small, *clips(1, 9))
    seeds = [s for s in range(50) if 9 in held_out_places(plan(data, held_out=5, seed=s), data)]
    held = plan(data, held_out=5, seed=seeds[0])
    alone = replace(data, clips=small)
    assert run_flops(WAN_14B, held, data) == pytest.approx(
        run_flops(WAN_14B, replace(held, held_out=0), alone)
    )
