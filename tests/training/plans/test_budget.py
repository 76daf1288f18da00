"""From clips and a preset to steps, epochs and each expert's part of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import Clip, Counts, Dataset
from tandem_wan.training.expert_turns import role_at
from tandem_wan.training.plans.budget import (
    epochs_of,
    expert_budgets,
    exposures_per_clip,
    looks,
    make_plan,
    plan_for,
    plan_steps,
    steps_by_expert,
    steps_for_epochs,
)
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.presets import PRESETS
from tandem_wan.training.plans.summary import full_summary, plan_summary
from tandem_wan.training.schedule import BatchOrder
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize

GOLDEN = Path(__file__).parents[2] / "golden" / "plans.json"
SIZES = (1, 5, 8, 10, 16, 20, 43, 60, 100, 200)


def clips(num_clips: int, **more) -> tuple[Clip, ...]:
    return tuple(
        Clip(path=Path(f"{i}.mp4"), caption="", frames=81, digest=str(i), **more)
        for i in range(num_clips)
    )


def dataset(num_clips: int, *others: Clip, **more) -> Dataset:
    taken = (*clips(num_clips, **more), *others)
    return Dataset(folder=Path("clips"), clips=taken, size=ClipSize(832, 480, 81), fps=16)


def counts(num_clips: int) -> Counts:
    return Counts(num_clips, float(num_clips), 0.0)


IMAGE_STYLE = [
    (15, 600, 40, 100, [500, 600]),
    (30, 1200, 40, 250, [500, 1000, 1200]),
    (43, 1720, 40, 250, [500, 1000, 1500, 1720]),
    (60, 2400, 40, 500, [500, 1000, 1500, 2000, 2400]),
    (100, 3500, 35, 500, [500, 1000, 1500, 2000, 2500, 3000, 3500]),
]


@pytest.mark.parametrize(("images", "steps", "per_image", "save_every", "look_at"), IMAGE_STYLE)
def test_image_style_follows_its_table(images, steps, per_image, save_every, look_at):
    plan = make_plan(dataset(images), "image style")
    assert (plan.steps, plan.save_every) == (steps, save_every)
    assert plan.steps / images == per_image
    assert (plan.batch, plan.accumulate) == (2, 1)
    assert looks(plan) == look_at
    assert set(look_at[:-1]) <= set(range(0, steps, save_every)), "each has a checkpoint"


def slow_steps(preset: str, num_clips: int) -> int:
    """Shown clip by clip, epoch by epoch."""
    recipe = PRESETS[preset]
    if preset == "image style":
        return sorted((500, sum(40 for _ in range(num_clips)), 3500))[1]
    if recipe.steps is not None:
        return recipe.steps
    steps = micro_batches = in_batch = 0
    for _ in range(recipe.epochs * num_clips):
        in_batch += 1
        if in_batch == recipe.batch:
            in_batch, micro_batches = 0, micro_batches + 1
        if micro_batches == recipe.accumulate:
            micro_batches, steps = 0, steps + 1
    return steps + (1 if in_batch or micro_batches else 0)


def slow_row(preset: str, num_clips: int) -> dict:
    steps, recipe = slow_steps(preset, num_clips), PRESETS[preset]
    batch = recipe.batch if num_clips >= recipe.batch else num_clips
    plan = TrainingPlan(
        family="wan 2.2 A14B", steps=steps, swap_every=min(10, steps // 20) or 1, shift=5.0
    )
    high = sum(role_at(plan, step) == "high_noise" for step in range(steps))
    samples = steps * batch * recipe.accumulate
    return {
        "steps": steps,
        "iterations": steps * recipe.accumulate,
        "samples": samples,
        "high_noise": high,
        "low_noise": steps - high,
        "save_every": slow_save_every(preset, steps, num_clips),
    }


def slow_save_every(preset: str, steps: int, num_clips: int) -> int:
    recipe = PRESETS[preset]
    if recipe.save_every_epochs:
        every = recipe.save_every_epochs * num_clips
        return min(steps, -(-every // recipe.accumulate))
    if preset == "image style":
        return 100 if steps < 1000 else 250 if steps < 2000 else 500
    return recipe.save_every


def test_the_golden_table_is_what_the_slow_reference_counts():
    golden = json.loads(GOLDEN.read_text())
    assert golden["image style, 1 to 200 images"] == [
        [n, slow_steps("image style", n)] for n in range(1, 201)
    ]
    assert golden["presets"] == {
        name: {str(n): slow_row(name, n) for n in SIZES} for name in PRESETS
    }


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_follows_the_golden_table(name):
    for size, row in json.loads(GOLDEN.read_text())["presets"][name].items():
        data = dataset(int(size))
        plan = make_plan(data, name, "wan 2.2 A14B")
        parts = {part.role: part.steps for part in expert_budgets(plan, data.counts())}
        assert {
            "steps": plan.steps,
            "iterations": plan.steps * plan.accumulate,
            "samples": plan.steps * plan.accumulate * plan.batch,
            **parts,
            "save_every": plan.save_every,
        } == row, (name, size)


def test_image_style_follows_the_golden_table_from_1_to_200_images():
    for images, steps in json.loads(GOLDEN.read_text())["image style, 1 to 200 images"]:
        assert plan_steps("image style", counts(images)) == steps


@given(st.integers(1, 400), st.integers(1, 400))
def test_more_images_never_mean_fewer_steps_and_the_steps_stay_within_their_limits(few, many):
    few, many = sorted((few, many))
    for name in PRESETS:
        least, most = plan_steps(name, counts(few)), plan_steps(name, counts(many))
        assert least <= most
    assert 500 <= plan_steps("image style", counts(many)) <= 3500


@given(st.integers(1, 60), st.floats(0.25, 20), st.integers(0, 5))
def test_repeats_and_regularisation_never_multiply_the_steps_of_a_style(images, repeats, others):
    data = dataset(images, *clips(others, regularisation=True), repeats=repeats)
    assert make_plan(data, "image style").steps == plan_steps("image style", counts(images))


def test_43_images_at_10_repeats_are_explained():
    data = dataset(43, repeats=10.0)
    plan = make_plan(data, "image style")
    text = plan_summary(plan, data.counts())
    assert plan.steps == 1720
    assert "1,720 steps are 40 per image whatever the repeats are, and not 4 per repeated" in text
    assert "8.0 epochs, each clip shown 80.0 times" in text


def test_16_clips_and_20_epochs_are_320_iterations_and_160_steps_at_accumulate_2():
    plan = make_plan(dataset(16), "video effect")
    assert plan.accumulate == 2
    assert plan.steps == 160
    assert plan.steps * plan.accumulate == 320
    summary = plan_summary(plan, counts(16))
    assert "320 iterations at batch 1, accumulate 2; 20.0 epochs" in summary


@pytest.mark.parametrize("epochs", [1, 20, 250])
@pytest.mark.parametrize("num_clips", [1, 5, 16, 33])
@pytest.mark.parametrize(("batch", "accumulate"), [(1, 1), (1, 2), (2, 4), (3, 1)])
def test_epochs_become_the_least_steps_that_show_every_clip_so_often(
    epochs, num_clips, batch, accumulate
):
    steps = steps_for_epochs(epochs, num_clips, batch, accumulate)
    shown = batch * accumulate
    assert steps * shown >= epochs * num_clips
    assert (steps - 1) * shown < epochs * num_clips


def test_ten_clips_of_a_tenth_of_a_repeat_are_one_sample_an_epoch():
    shown = sum(0.1 for _ in range(10))
    assert shown != 1.0
    assert steps_for_epochs(20, shown, 1, 1) == 20
    shown = sum(0.7 for _ in range(3))
    assert steps_for_epochs(10, shown, 1, 1) == 21


def test_an_epoch_shows_what_the_loops_own_order_shows():
    """Repeats and regularisation as the loop takes them: 20 epochs of it, and the exposures of each clip."""
    data = dataset(4, *clips(2, repeats=0.5, regularisation=True), repeats=3.0)
    plan = make_plan(data, "video effect", "single model")
    order = BatchOrder(
        [(1,)] * 6, 1, seed=0, role="single", repeats=[clip.repeats for clip in data.clips]
    )
    shown = [order.at(i)[0].clip for i in range(plan.steps * plan.accumulate)]
    assert epochs_of(plan, data.counts()) == 20
    assert [shown.count(clip) for clip in range(6)] == [60] * 4 + [10] * 2
    assert exposures_per_clip(plan, data.counts()) == 60
    assert expert_budgets(plan, data.counts())[0].exposures == 60


def test_epochs_or_steps_go_before_the_presets_budget_but_not_both():
    assert make_plan(dataset(16), "video effect", epochs=18).steps == 144
    assert make_plan(dataset(16), "image style", epochs=2.5).steps == 20
    assert make_plan(dataset(16), "character", steps=77).steps == 77
    with pytest.raises(UserError, match="epochs is 3 and steps is 4"):
        make_plan(dataset(16), "character", steps=4, epochs=3)


def test_effects_are_saved_every_5_epochs():
    assert make_plan(dataset(16), "video effect").save_every == 40
    assert make_plan(dataset(20), "video effect").save_every == 50


def test_a_run_shorter_than_its_save_interval_is_saved_at_its_end():
    assert make_plan(dataset(16), "character", steps=30).save_every == 30


@pytest.mark.parametrize("name", PRESETS)
def test_the_plan_carries_its_preset(name):
    preset, plan = PRESETS[name], make_plan(dataset(20), name, allow_long=True, seed=3)
    assert (plan.preset, plan.lora, plan.optimizer) == (name, preset.lora, preset.optimizer)
    assert (plan.high, plan.low) == (preset.high, preset.low)
    assert plan.notes == (preset.evidence,)
    assert plan.allow_long and plan.seed == 3
    assert preset.evidence in plan_summary(plan, counts(20))


def test_a_batch_is_never_larger_than_what_an_epoch_shows():
    assert make_plan(dataset(1), "image style").batch == 1
    assert make_plan(dataset(1, repeats=2.0), "image style").batch == 2


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("num_clips", [1, 4, 16, 200])
def test_the_experts_parts_are_counted_from_the_loops_own_order(name, num_clips):
    plan = make_plan(dataset(num_clips), name, "wan 2.2 A14B")
    roles = [role_at(plan, step) for step in range(plan.steps)]
    summary = plan_summary(plan, counts(num_clips))
    for part in expert_budgets(plan, counts(num_clips)):
        assert part.steps == roles.count(part.role)
        shown = part.steps * plan.batch * plan.accumulate
        assert part.exposures == pytest.approx(shown / num_clips)
        assert part.epochs == pytest.approx(shown / num_clips)
        assert f"{part.role}: {part.steps} steps ({part.steps / plan.steps:.1%})" in summary


@given(
    st.integers(1, 400),
    st.integers(1, 25),
    st.floats(0.3, 0.99),
    st.floats(0.3, 15),
    st.sampled_from(["both", "high", "low"]),
)
def test_steps_by_expert_are_what_counting_every_step_gives(
    steps, swap_every, boundary, shift, train
):
    plan = TrainingPlan(
        family="wan 2.2 A14B",
        steps=steps,
        swap_every=swap_every,
        boundary=boundary,
        shift=shift,
        train=train,
    )
    roles = [role_at(plan, step) for step in range(steps)]
    assert steps_by_expert(plan) == {role: roles.count(role) for role in plan.roles()}


def test_a_plan_of_a_million_steps_is_summed_up_at_once():
    plan = replace(plan_for(counts(16), "character"), steps=10**6)
    assert sum(steps_by_expert(plan).values()) == 10**6


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("num_clips", [5, 16, 43])
def test_the_high_experts_part_is_near_its_share_of_the_schedule(name, num_clips):
    plan = make_plan(dataset(num_clips), name, "wan 2.2 A14B")
    high = expert_budgets(plan, counts(num_clips))[0]
    # At shift 5 and boundary 0.9; short runs take turns of few steps.
    assert high.steps / plan.steps == pytest.approx(0.357, abs=0.03)


def test_a_single_model_gets_every_step():
    plan = make_plan(dataset(16), "video effect", "single model")
    parts = expert_budgets(plan, counts(16))
    assert [(part.role, part.steps) for part in parts] == [("single", 160)]
    assert parts[0].exposures == 20.0


def test_a_dataset_of_regularisation_alone_has_a_budget_without_a_division_by_zero():
    data = dataset(0, *clips(3, regularisation=True))
    for name in PRESETS:
        assert "0 clips" in full_summary(make_plan(data, name), data).replace("images", "clips")
