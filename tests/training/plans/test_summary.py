"""The text of a plan: what comes first, what a clip and a picture are called, how often each is shown."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import Clip, Dataset
from tandem_wan.training.plans.budget import epochs_of, make_plan
from tandem_wan.training.plans.compare import compare_plans
from tandem_wan.training.plans.material import material_of, number_of
from tandem_wan.training.plans.presets import PRESETS
from tandem_wan.training.plans.summary import (
    full_summary,
    plan_alone_summary,
    plan_summary,
    settings_line,
)
from tandem_wan.training.schedule import BatchOrder
from tandem_wan.wan.shapes import ClipSize
from tandem_wan.wan.video import View


def clip(number: int, **more) -> Clip:
    values = {"path": Path(f"{number}.mp4"), "caption": "", "frames": 81, "digest": str(number)}
    return Clip(**(values | more))


def dataset(*clips: Clip) -> Dataset:
    return Dataset(folder=Path("clips"), clips=clips, size=ClipSize(832, 480, 81), fps=16)


SIXTEEN = dataset(*map(clip, range(16)))


def test_the_verdict_and_what_is_refused_stand_before_the_budget_the_estimate_and_the_reasons():
    plan = replace(make_plan(SIXTEEN, "video effect", epochs=250), shift=0.5)
    lines = full_summary(
        plan, SIXTEEN, fit=["fits here", "Remedy"], estimate=["Estimate"]
    ).splitlines()
    assert lines[0] == "Verdict: fits here; refused, the trainer does not start; 1 warning."
    starts = ["Refused: ", "Remedy", "video effect for", "Warning: ", "Estimate", "Why:"]
    found = [next(n for n, line in enumerate(lines) if line.startswith(start)) for start in starts]
    assert found == sorted(found)
    assert "below" not in lines[3], "the verdict has named them"


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("epochs", [0, 250])
def test_refusals_stand_before_the_budget_and_warnings_behind_it(name, epochs):
    plan = replace(make_plan(SIXTEEN, name, epochs=epochs), shift=0.5)
    lines = plan_summary(plan, SIXTEEN).splitlines()
    budget = next(n for n, line in enumerate(lines) if line.startswith(f"{name} for"))
    assert all(line.startswith("Refused: ") for line in lines[:budget])
    assert not any(line.startswith("Refused: ") for line in lines[budget:])
    warnings = [n for n, line in enumerate(lines) if line.startswith("Warning: ")]
    assert warnings and min(warnings) > budget
    assert f": {number_of(len(warnings), 'warning')} below; " in lines[budget]
    notes = [n for n, line in enumerate(lines) if line in plan.notes or line.startswith("Note: ")]
    assert min(notes) > max(warnings)


def test_without_a_dataset_what_is_unwise_in_the_plan_alone_is_told():
    plan = make_plan(SIXTEEN, "character")
    assert plan_alone_summary(plan).startswith("character: 800 steps at batch 1")
    assert "few" not in plan_alone_summary(plan)
    text = plan_alone_summary(replace(plan, shift=0.5))
    assert text.startswith("character: 1 warning below; 800 steps") and "shift is 0.5" in text
    broken = plan_alone_summary(replace(plan, lora=replace(plan.lora, targets=("(",))))
    assert broken.startswith("Refused: lora.targets has")


def test_a_good_plan_is_called_good():
    text = full_summary(make_plan(SIXTEEN, "video effect"), SIXTEEN)
    assert text.startswith("Verdict: nothing to object.\nvideo effect for 16 clips: 160 steps")


def test_a_run_that_does_not_fit_is_not_called_good():
    text = full_summary(make_plan(SIXTEEN, "video effect"), SIXTEEN, fit=["does not fit here"])
    assert text.startswith("Verdict: does not fit here.\n")


@pytest.mark.parametrize(
    ("frames", "preset", "words"),
    [
        ([81] * 6 + [1], "motion 4x", "motion 4x for 6 clips and 1 picture: "),
        ([1] * 12, "motion 4x", "motion 4x for 12 pictures: "),
        ([1] * 12, "image style", "image style for 12 images: "),
        ([81], "video effect", "video effect for 1 clip: "),
    ],
)
def test_clips_and_pictures_are_called_what_they_are(frames, preset, words):
    data = dataset(*(clip(n, frames=count) for n, count in enumerate(frames)))
    text = plan_summary(make_plan(data, preset), data)
    assert words in text
    if set(frames) == {1}:
        assert "each picture shown" in text and "each clip" not in text


def test_repeats_that_differ_are_told_with_their_range_as_the_loop_shows_them():
    repeats = [1.0, 1.0, 3.0, 5.0]
    data = dataset(*(clip(n, repeats=repeat) for n, repeat in enumerate(repeats)))
    plan = make_plan(data, "video effect", "single model")
    order = BatchOrder([(1,)] * 4, 1, seed=0, role="single", repeats=repeats)
    shown = [order.at(n)[0].clip for n in range(plan.steps * plan.accumulate)]
    counted = [shown.count(n) for n in range(4)]
    words = f"on average {sum(counted) / 4:.1f} times ({min(counted)} to {max(counted)})"
    assert words in plan_summary(plan, data) and words == "on average 50.0 times (20 to 100)"


@given(st.lists(st.floats(0.25, 8), min_size=1, max_size=12))
def test_the_mean_lies_in_the_range(repeats):
    data = dataset(*(clip(n, repeats=repeat) for n, repeat in enumerate(repeats)))
    plan = make_plan(data, "video effect")
    text = material_of(data, plan).times(plan)
    mean = epochs_of(plan, data.counts()) * sum(repeats) / len(repeats)
    assert f"{mean:.1f} times" in text
    assert text.startswith("on average") == (max(repeats) - min(repeats) >= 1e-6)


def test_flips_crops_and_captions_left_out_are_named_where_there_are_any():
    views = tuple(View(crop, flip) for flip in (False, True) for crop in (0.0, 0.5, 1.0))
    data = dataset(clip(0), clip(1, views=views))
    plan = replace(make_plan(data, "motion 4x"), caption_dropout=0.25)
    text = plan_summary(plan, data)
    assert "mirrored every other time (flips); up to 3 crops of each in turn (crops); " in text
    assert "0.25 of the samples without their caption (caption_dropout)" in text
    assert "0.25 of the samples" in settings_line(plan)
    plain = plan_summary(make_plan(SIXTEEN, "motion 4x"), SIXTEEN)
    assert not any(word in plain for word in ("flips", "crops", "caption_dropout"))


def test_a_comparison_of_two_plans_knows_the_pictures_and_one_value_differs():
    pictures = dataset(*(clip(n, frames=1) for n in range(12)))
    plan = make_plan(pictures, "motion 4x")
    text = compare_plans(plan, replace(plan, steps=2300), pictures)
    assert text.startswith("1 value differs.") and "motion 4x for 12 pictures" in text


def test_targets_of_two_plans_are_told_apart():
    ours, theirs = (make_plan(SIXTEEN, name) for name in ("character", "length extension"))
    assert "attention and feed-forward layers in a, attention layers in b" in compare_plans(
        ours, theirs
    )
    first, second = (replace(ours, lora=replace(ours.lora, targets=(name,))) for name in "xy")
    assert "lora.targets: x in a, y in b" in compare_plans(first, second)
