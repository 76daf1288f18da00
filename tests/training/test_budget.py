"""From clips and a preset to steps, epochs and each expert's part of them."""

from dataclasses import replace
from pathlib import Path

import pytest
from tandem_wan.training.budget import (
    expert_budgets,
    make_plan,
    plan_steps,
    plan_summary,
    plan_warnings,
    steps_for_epochs,
)
from tandem_wan.training.dataset import Clip, Dataset
from tandem_wan.training.presets import PRESETS
from tandem_wan.training.schedule import role_at
from tandem_wan.wan.shapes import ClipSize


def dataset(num_clips: int) -> Dataset:
    clips = tuple(
        Clip(path=Path(f"{i}.mp4"), caption="", frames=81, digest=str(i)) for i in range(num_clips)
    )
    return Dataset(folder=Path("clips"), clips=clips, size=ClipSize(832, 480, 81), fps=16)


IMAGE_STYLE = [
    (15, 600, 40, 100),
    (30, 1200, 40, 250),
    (43, 1720, 40, 250),
    (60, 2400, 40, 500),
    (100, 3500, 35, 500),
]


@pytest.mark.parametrize(("images", "steps", "per_image", "save_every"), IMAGE_STYLE)
def test_image_style_follows_its_table(images, steps, per_image, save_every):
    plan = make_plan(dataset(images), "image style")
    assert (plan.steps, plan.save_every) == (steps, save_every)
    assert plan.steps / images == per_image
    assert (plan.batch, plan.accumulate) == (2, 1)
    assert not [w for w in plan_warnings(plan, images) if "steps per image" in w]


@pytest.mark.parametrize("images", range(1, 201))
def test_image_style_is_40_steps_per_image_within_500_and_3500(images):
    assert plan_steps("image style", images) == min(max(40 * images, 500), 3500)


@pytest.mark.parametrize(
    ("steps", "warned"), [(1720, False), (430, True), (4000, True), (200, True)]
)
def test_an_edited_number_of_steps_outside_30_to_60_per_image_is_warned_about(steps, warned):
    plan = replace(make_plan(dataset(43), "image style"), steps=steps)
    found = [w for w in plan_warnings(plan, 43) if f"{steps / 43:.1f} steps per image" in w]
    assert bool(found) == warned


def test_the_classic_mistake_of_1720_steps_for_430_images_is_warned_about():
    plan = replace(make_plan(dataset(430), "image style"), steps=1720)
    assert any("4.0 steps per image; 30-60 is the range" in w for w in plan_warnings(plan, 430))


@pytest.mark.parametrize(("images", "warned"), [(60, False), (61, True)])
def test_above_60_images_dilute_a_style(images, warned):
    warnings = plan_warnings(make_plan(dataset(images), "image style"), images)
    assert any("dilute" in w and "30-50" in w for w in warnings) == warned


def test_16_clips_and_20_epochs_are_320_iterations_and_160_steps_at_accumulate_2():
    plan = make_plan(dataset(16), "video effect")
    assert plan.accumulate == 2
    assert plan.steps == 160
    assert plan.steps * plan.accumulate == 320
    assert "320 iterations at batch 1, accumulate 2; 20.0 epochs" in plan_summary(plan, 16)


@pytest.mark.parametrize("epochs", [1, 20, 250])
@pytest.mark.parametrize("num_clips", [1, 5, 16, 33])
@pytest.mark.parametrize(("batch", "accumulate"), [(1, 1), (1, 2), (2, 4), (3, 1)])
def test_epochs_become_the_least_steps_that_show_every_clip_so_often(
    epochs, num_clips, batch, accumulate
):
    steps = steps_for_epochs(epochs, num_clips, batch, accumulate)
    shown = batch * accumulate
    assert steps * shown >= epochs * num_clips
    assert (steps - 1) * shown < epochs * num_clips + batch - 1 + (accumulate - 1) * batch


def test_250_epochs_are_called_12_and_a_half_times_the_optimum():
    steps = steps_for_epochs(250, 16, 1, 2)
    plan = replace(make_plan(dataset(16), "video effect"), steps=steps)
    assert steps * plan.accumulate == 4000
    assert any("250 epochs is 12.5 times the optimum of 20" in w for w in plan_warnings(plan, 16))
    assert "12.5 times" in plan_summary(plan, 16)


@pytest.mark.parametrize(("epochs", "warned"), [(15, False), (25, False), (50, False), (51, True)])
def test_an_effect_is_warned_above_50_epochs(epochs, warned):
    plan = replace(make_plan(dataset(16), "video effect"), steps=steps_for_epochs(epochs, 16, 1, 2))
    assert any("times the optimum" in w for w in plan_warnings(plan, 16)) == warned


def test_length_extension_runs_100_epochs_without_a_warning():
    plan = make_plan(dataset(16), "length extension")
    assert plan.steps * plan.accumulate * plan.batch == 100 * 16
    assert plan_warnings(plan, 16) == []


def test_effects_are_saved_every_5_epochs():
    assert make_plan(dataset(16), "video effect").save_every == 40
    assert make_plan(dataset(20), "video effect").save_every == 50


@pytest.mark.parametrize("name", PRESETS)
def test_the_plan_carries_its_preset(name):
    preset, plan = PRESETS[name], make_plan(dataset(20), name)
    assert (plan.preset, plan.lora, plan.optimizer) == (name, preset.lora, preset.optimizer)
    assert (plan.high, plan.low) == (preset.high, preset.low)
    assert plan.notes == (preset.evidence,)
    assert preset.evidence in plan_summary(plan, 20)


def test_a_batch_is_never_larger_than_the_dataset():
    assert make_plan(dataset(1), "image style").batch == 1


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("num_clips", [1, 4, 16, 200])
def test_the_experts_parts_are_counted_from_the_loops_own_order(name, num_clips):
    plan = make_plan(dataset(num_clips), name, "wan 2.2 A14B")
    roles = [role_at(plan, step) for step in range(plan.steps)]
    for part in expert_budgets(plan, num_clips):
        assert part.steps == roles.count(part.role)
        shown = part.steps * plan.batch * plan.accumulate
        assert part.exposures == pytest.approx(shown / num_clips)
        line = f"{part.role}: {part.steps} steps ({part.steps / plan.steps:.1%})"
        assert line in plan_summary(plan, num_clips)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("num_clips", [5, 16, 43])
def test_the_high_experts_part_is_near_its_share_of_the_schedule(name, num_clips):
    plan = make_plan(dataset(num_clips), name, "wan 2.2 A14B")
    high = expert_budgets(plan, num_clips)[0]
    # At shift 5 and boundary 0.9; short runs take turns of few steps.
    assert high.steps / plan.steps == pytest.approx(0.357, abs=0.03)


def test_a_single_model_gets_every_step():
    plan = make_plan(dataset(16), "video effect", "single model")
    assert [(part.role, part.steps) for part in expert_budgets(plan, 16)] == [("single", 160)]
    assert expert_budgets(plan, 16)[0].exposures == 20.0


@pytest.mark.parametrize(("num_clips", "warned"), [(7, True), (8, False)])
def test_few_clips_are_named_with_what_is_better(num_clips, warned):
    warnings = plan_warnings(make_plan(dataset(num_clips), "general video"), num_clips)
    assert any("10-20 are better" in w for w in warnings) == warned
