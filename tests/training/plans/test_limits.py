"""What is refused, warned about and noted, and that a preset's own plan is none of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import Clip, Counts, Dataset
from tandem_wan.training.plans.budget import epochs_of, make_plan, plan_for, steps_for_epochs
from tandem_wan.training.plans.changes import edited_plan
from tandem_wan.training.plans.layer_limits import RANKS
from tandem_wan.training.plans.limits import (
    CHARACTER_CLIPS,
    FEW_CLIPS,
    GOOD_EPOCHS,
    MANY_IMAGES,
    MOST_EPOCHS,
    OPTIMUM_EPOCHS,
    PER_IMAGE,
    STEPS,
    dataset_findings,
    findings_text,
    plan_findings,
    require_allowed,
)
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.presets import PRESETS
from tandem_wan.training.plans.rate_limits import RATE_RATIO, RATES
from tandem_wan.training.plans.summary import plan_summary
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize


def counts(clips: int, repeats: float = 1.0, regularisation: float = 0.0) -> Counts:
    return Counts(clips, clips * repeats + regularisation, regularisation)


def dataset(*frames: int) -> Dataset:
    clips = tuple(
        Clip(path=Path(f"{n}.png"), caption="", frames=count, digest=str(n))
        for n, count in enumerate(frames)
    )
    return Dataset(folder=Path("x"), clips=clips, size=ClipSize(832, 480, 1), fps=16)


def plan(preset: str, clips: int, **changes: object) -> TrainingPlan:
    return edited_plan(plan_for(counts(clips), preset), changes)


def said(found, level: str | None = None) -> str:
    return "\n".join(f"{f.text} {f.fix}" for f in found if level in (None, f.level))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("clips", [10, 15, 20])
def test_a_presets_own_plan_has_neither_refusal_nor_warning(name, clips):
    found = plan_findings(plan_for(counts(clips), name), counts(clips))
    # General video's steps come from large datasets.
    grave = [f for f in found if f.level != "note" and "large datasets" not in f.text]
    assert grave == []


@given(st.sampled_from(sorted(PRESETS)), st.integers(0, 300), st.floats(0.1, 12))
def test_a_presets_own_plan_is_never_refused(name, clips, repeats):
    of = counts(clips, repeats, regularisation=0.5)
    require_allowed(plan_for(of, name), of)


def test_250_epochs_on_16_clips_are_refused_with_the_factor_and_the_number_of_steps():
    long = plan("video effect", 16, steps=2000)
    assert long.steps * long.accumulate == 4000, "where 320 iterations were right"
    with pytest.raises(UserError) as caught:
        require_allowed(long, counts(16))
    assert caught.value.came == "250 epochs are 12.5 times the optimum of 20."
    assert "15 to 25 are good, and more than 50 are refused" in caught.value.can_be
    assert (
        "Use 160 steps at accumulate 2" in caught.value.to_do and "allow_long" in caught.value.to_do
    )
    assert "Refused: 250 epochs are 12.5 times" in plan_summary(long, counts(16))


def test_allow_long_turns_the_refusal_into_a_warning():
    long = plan("video effect", 16, steps=2000, allow_long=True)
    require_allowed(long, counts(16))
    assert "250 epochs are 12.5 times" in said(plan_findings(long, counts(16)), "warning")


@given(
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(-3, 3),
    st.integers(1, 3000),
)
def test_an_effect_is_refused_exactly_when_the_steps_before_its_last_made_50_epochs(
    clips, quarters, batch, accumulate, near, far
):
    of = counts(clips, quarters / 4)
    limit = int(50 * of.shown / (batch * accumulate))
    for steps in (max(1, limit + near), far):
        edited = plan("video effect", 16, steps=steps, batch=batch, accumulate=accumulate)
        refused = any(f.level == "refusal" for f in plan_findings(edited, of))
        # A last step that only begins a 51st epoch is not refused, and neither is a run of one step.
        assert refused == (steps > 1 and (steps - 1) * batch * accumulate >= 50 * of.shown)


@pytest.mark.parametrize("epochs", [51, 75, 250])
@pytest.mark.parametrize("name", [n for n in PRESETS if n != "video effect"])
def test_no_other_preset_is_refused_for_its_epochs(name, epochs):
    steps = steps_for_epochs(epochs, 16, 1, 1)
    require_allowed(plan(name, 16, steps=steps), counts(16))


def test_length_extension_runs_100_epochs_without_a_word():
    own = plan_for(counts(16), "length extension")
    assert own.steps * own.accumulate * own.batch == 100 * 16
    assert plan_findings(own, counts(16)) == ()


@pytest.mark.parametrize(
    ("epochs", "word"),
    [(10, "too weak"), (14, "too weak"), (15, ""), (25, ""), (26, "overtrained"), (50, "overtr")],
)
def test_an_effect_outside_15_to_25_epochs_is_warned_about(epochs, word):
    edited = plan("video effect", 16, steps=steps_for_epochs(epochs, 16, 1, 2))
    warnings = said(plan_findings(edited, counts(16)), "warning")
    assert (word in warnings and "Use 160 steps" in warnings) if word else warnings == ""


def test_repeats_that_show_a_clip_200_times_in_20_epochs_are_warned_about():
    of = counts(16, 10.0)
    own = plan_for(of, "video effect")
    assert epochs_of(own, of) == 20
    warnings = said(plan_findings(own, of), "warning")
    assert "Repeats show each clip 200 times in 20 epochs" in warnings


@pytest.mark.parametrize(
    ("steps", "warned"), [(1720, False), (430, True), (4000, True), (200, True), (1290, False)]
)
def test_an_edited_number_of_steps_outside_30_to_60_per_image_is_warned_about(steps, warned):
    found = plan_findings(plan("image style", 43, steps=steps), counts(43))
    assert (f"{steps / 43:.1f} steps per image; 30-60 is the range" in said(found)) == warned


@pytest.mark.parametrize("images", [1, 3, 8, 12, 100, 200])
def test_the_limits_of_500_and_3500_steps_are_not_warned_about(images):
    found = plan_findings(plan_for(counts(images), "image style"), counts(images))
    assert "steps per image; 30-60" not in said(found)


def test_the_classic_mistake_of_1720_steps_for_430_images_is_explained():
    found = said(plan_findings(plan("image style", 430, steps=1720), counts(430)), "warning")
    assert "4.0 steps per image; 30-60 is the range" in found
    assert "The classic mistake is to divide by repeated images" in found
    assert "Use 3500 steps at batch 2, accumulate 1 for 430 images" in found


def test_1720_steps_at_10_repeats_are_40_per_image():
    found = plan_findings(plan("image style", 43), counts(43, 10.0))
    assert said(found, "warning") == ""
    note = said(found, "note")
    assert "An epoch shows 430 samples of 43 images (10 each)" in note
    assert "1,720 steps are 40 per image whatever the repeats are, and not 4 per repeated" in note


@pytest.mark.parametrize(("images", "warned"), [(60, False), (61, True), (200, True)])
def test_above_60_images_dilute_a_style(images, warned):
    found = said(plan_findings(plan_for(counts(images), "image style"), counts(images)), "warning")
    assert (f"{images} images may dilute the style" in found and "30-50" in found) == warned


@pytest.mark.parametrize(("clips", "warned"), [(7, True), (8, False)])
def test_few_clips_are_named_with_what_is_better(clips, warned):
    found = plan_findings(plan_for(counts(clips), "general video"), counts(clips))
    assert ("10-20 are better" in said(found, "warning")) == warned


def test_regularisation_does_not_count_as_clips():
    found = plan_findings(plan("general video", 40), counts(5, regularisation=35))
    assert "5 clips are few" in said(found, "warning")


# preset, clips, changes, what is said
UNUSUAL = [
    ("character", 9, {}, "9 clips for a character. 10-20"),
    ("character", 21, {}, "Keep the best 20"),
    ("character", 16, {"steps": 499}, "499 steps. For character 500 to 800"),
    ("character", 16, {"steps": 801}, "801 steps"),
    ("general video", 300, {"steps": 1999}, "2,000 to 4,000"),
    ("general video", 16, {"steps": 4001}, "4,001 steps"),
    ("motion 4x", 16, {"steps": 3070}, "3,070 steps"),
    ("general video", 16, {"high.rate": 0.99e-4}, "The rate of high_noise is 9.9e-05"),
    ("general video", 16, {"low.rate": 3.1e-4}, "The rate of low_noise is 0.00031"),
    ("image style", 16, {"low.rate": 1e-3}, "0.0001 to 0.0004 are usual"),
    ("motion 4x", 16, {"high.bump": 1e-5}, "learns 2 times as fast"),
    ("motion 3x", 16, {"high.bump": 2.6e-5}, "learns 5.2 times as fast"),
    ("motion 4x", 16, {"optimizer.name": "adamw", "low.rate": 2e-5}, "learns just as fast"),
    ("general video", 16, {"lora.rank": 8, "lora.alpha": 8.0}, "The rank is 8"),
    ("general video", 16, {"lora.rank": 256, "lora.alpha": 128.0}, "The rank is 256"),
    ("general video", 16, {"lora.alpha": 1.0}, "alpha is 1 at rank 64"),
    ("general video", 16, {"lora.alpha": 256.0}, "scaled by 4"),
    ("general video", 16, {"lora.dropout": 0.5}, "lora.dropout is 0.5"),
    ("general video", 16, {"caption_dropout": 0.9}, "caption_dropout is 0.9"),
    ("general video", 16, {"batch": 17}, "batch is 17, and an epoch shows 16"),
    ("general video", 16, {"batch": 8}, "A step takes 32 samples, and an epoch shows 16"),
    ("general video", 40, {"batch": 5}, "A step takes 20 samples (batch 5 x accumulate 4)"),
    ("general video", 16, {"shift": 0.5}, "shift is 0.5"),
    ("general video", 16, {"save_every": 3001}, "Set save_every to 750"),
]


@pytest.mark.parametrize(("preset", "clips", "changes", "words"), UNUSUAL)
def test_what_is_unusual_is_warned_about_and_what_is_usual_is_not(preset, clips, changes, words):
    edited = plan_findings(plan(preset, clips, **changes), counts(clips))
    assert words in said(edited, "warning")
    if changes:
        assert words not in said(plan_findings(plan(preset, clips), counts(clips)))


def test_a_pattern_that_is_none_is_refused_before_anything_is_loaded():
    wrong = plan("general video", 16, **{"lora.targets": ["blocks.(self"]})
    with pytest.raises(UserError, match=r"lora\.targets has 'blocks\.\(self'"):
        require_allowed(wrong, counts(16))


@pytest.mark.parametrize(
    ("steps", "epochs", "factor"), [(3000, "750", "37.5"), (1000, "250", "12.5")]
)
def test_general_video_on_few_clips_is_warned_about_first_and_more_steps_are_not_advised(
    steps, epochs, factor
):
    first, *others = plan_findings(plan("general video", 16, steps=steps), counts(16))
    assert first.level == "warning" and others == []
    assert f"{epochs} epochs are {factor} times the 20" in first.text
    assert "preset video effect, or epochs 20 (80 steps at accumulate 4)" in first.fix
    enough = int(first.fix.split(" clips or more")[0].split()[-1])
    edited = plan("general video", enough, steps=steps)
    assert "epochs are" not in said(plan_findings(edited, counts(enough)))
    assert "epochs are" in said(plan_findings(edited, counts(enough - 1)))


def test_the_advised_80_steps_of_general_video_are_not_called_too_few():
    advised = plan_for(counts(16), "general video", steps=80)
    assert plan_findings(advised, counts(16)) == ()


@given(st.sampled_from(sorted(PRESETS)), st.integers(1, 400), st.integers(1, 10_000))
def test_a_plan_is_never_called_too_long_and_too_short_at_once(name, clips, steps):
    found = said(plan_findings(plan(name, clips, steps=steps), counts(clips)))
    long = ("epochs are" in found and "too weak" not in found) or "The recipe of" in found
    assert not (long and (" or more, or keep it as a trial" in found or "too weak" in found))


def test_few_clips_shown_often_are_expected_of_the_recipe_of_a_motion():
    (found,) = plan_findings(plan_for(counts(16), "motion 4x"), counts(16))
    assert found.level == "note"
    assert "138 epochs. The recipe of motion 4x counts steps" in found.text


@given(st.sampled_from(sorted(PRESETS)), st.integers(0, 500), st.integers(1, 10**6))
def test_every_finding_says_what_is_what_can_be_and_what_to_do(name, clips, steps):
    found = plan_findings(plan(name, 16, steps=steps), counts(clips))
    levels = ["refusal", "warning", "note"]
    assert [f.level for f in found] == sorted((f.level for f in found), key=levels.index)
    for finding in found:
        assert finding.text.count(". ") >= 1 and finding.text.endswith(".")
        assert finding.fix.endswith(".")
    assert len(findings_text(found)) == len(found)


@pytest.mark.parametrize(
    ("preset", "warned"),
    [("motion 4x", True), ("video effect", True), ("image style", False), ("character", False)],
)
def test_pictures_alone_for_a_motion_are_warned_about_first(preset, warned):
    pictures, mixed = dataset(*[1] * 16), dataset(*[1] * 15, 81)
    own = make_plan(pictures, preset)
    assert ("pictures only" in said(dataset_findings(own, pictures))) == warned
    if warned:
        assert "cannot learn motion from pictures" in dataset_findings(own, pictures)[0].text
    assert "pictures only" not in said(dataset_findings(own, mixed))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ((81,), "1 clip is few"),
        ((1,), "1 picture is few"),
        ((81, 81, 1), "2 clips and 1 picture are few"),
    ],
)
def test_clips_and_pictures_are_called_what_they_are(frames, words):
    material = dataset(*frames)
    assert words in said(dataset_findings(make_plan(material, "motion 4x"), material))


def test_a_preset_that_is_not_known_is_judged_by_what_is_common():
    strange = replace(plan("general video", 16), preset="somebody's own", shift=0.1)
    assert "shift is 0.1" in said(plan_findings(strange, counts(4)))


def test_the_limits_are_those_that_were_received():
    assert (GOOD_EPOCHS, OPTIMUM_EPOCHS, MOST_EPOCHS) == ((15, 25), 20, 50)
    assert (PER_IMAGE, MANY_IMAGES, FEW_CLIPS) == ((30, 60), 60, 8)
    assert STEPS["general video"] == (2000, 4000) and STEPS["character"] == (500, 800)
    assert CHARACTER_CLIPS == (10, 20)
    assert RATES["general video"] == (1e-4, 3e-4) and RATES["image style"] == (1e-4, 4e-4)
    assert (RATE_RATIO, RANKS) == ((3.0, 5.0), (16, 128))
