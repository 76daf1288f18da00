"""The recipes on the miniature: the runs are plans that can be made, and a verdict follows from the figures alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tandem_wan.benchmarks.miniature import recipe_lab
from tandem_wan.benchmarks.miniature.recipe_claims import (
    HOLDS,
    MISSING,
    NOT,
    UNTOLD,
    of_leading,
)
from tandem_wan.benchmarks.miniature.recipe_lab import figures
from tandem_wan.benchmarks.miniature.recipe_motion import of_motion
from tandem_wan.benchmarks.miniature.recipe_noise import mean_rate_on_noise
from tandem_wan.benchmarks.miniature.recipe_outcomes import (
    Outcomes,
    best_step,
    compare,
    held_out,
    progress,
    rise,
    told,
)
from tandem_wan.benchmarks.miniature.recipe_page import page, verdicts
from tandem_wan.benchmarks.miniature.recipe_pairs import of_the_others
from tandem_wan.benchmarks.miniature.recipe_runs import (
    CLIPS,
    EPOCHS,
    FACTOR,
    LED,
    RUNS,
    SEEDS,
    STEPS_AN_EPOCH,
    scaled_rates,
)
from tandem_wan.benchmarks.miniature.recipe_stages import of_effect, of_images
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.plans.budget import plan_for, steps_for_epochs
from tandem_wan.training.plans.changes import edited_plan
from tandem_wan.training.plans.presets import PRESETS

WITHOUT = {
    "effect": {
        "loop": {"kind": 0.0, "path": 0.0, "path_error_px": 12.0, "first_frame_db": 30.0},
        "striped": {"pattern": 0.03, "look": 0.0, "kind": 1.0},
        "pictures": {"pattern": 0.03, "look": 0.0, "colour": 1.0, "known": 0.75},
    },
    "known": {"kind": 1.0, "path": 1.0, "path_error_px": 1.0, "first_frame_db": 30.0},
}
NOISE = {"motion 4x": 4.9, "motion 3x": 3.9}


def outcome(run, error=4.0, pattern=0.1, *, losses=(4.0, 2.0, 1.9), rates=4.0, weights=1.6):
    """What a run might come to, the same at every checkpoint that is judged."""
    plan = planned(run)
    roles = ["single"] if run.pictures else ["high_noise", "low_noise"]
    found = {"kind": 1.0, "path_error_px": error, "pattern": pattern, "look": 0.9}
    found |= {"colour": 1.0, "known": 0.5} if run.pictures else {}
    if not run.pictures:
        del found["pattern" if run.lesson == "loop" else "path_error_px"]
    return {
        "date": "2026-11-21",
        "steps": {role: plan.steps // len(roles) for role in roles},
        "weight": dict.fromkeys(roles, 0.04),
        "weight_ratio": None if run.pictures else weights,
        "rate_ratio": None if run.pictures else rates,
        "rate_ratios": [None, rates, rates],
        "loss": {role: [3.0, 2.0, 1.5, 1.1, 1.0] for role in roles},
        "held_out": {role: [[s * 100, v, v] for s, v in enumerate(losses)] for role in roles},
        "effect": {str(step): found for step in (*run.looks, plan.steps)},
        "known": WITHOUT["known"],
    }


def planned(run):
    """The plan that a run trains by."""
    clips = run.pictures or CLIPS
    steps = 0
    if run.epochs:
        recipe = PRESETS[run.preset]
        steps = steps_for_epochs(run.epochs, clips, recipe.batch, recipe.accumulate)
    plan = plan_for(Counts(clips, float(clips), 0.0), run.preset, steps=steps)
    return edited_plan(plan, {**run.changes, "seed": run.seed})


def everything(**changes):
    """All runs; `changes` by name with _ for what is no letter: a function of the seed to what `outcome` is given."""
    by_name: dict[str, list] = {}
    for run in RUNS:
        key = "".join(c if c.isalnum() else "_" for c in run.name)
        more = changes[key](run.seed) if key in changes else {"error": 4.0 + 0.1 * run.seed}
        by_name.setdefault(run.name, []).append(outcome(run, **more))
    return Outcomes(by_name, WITHOUT)


def near(error, pattern=0.1):
    return lambda seed: {"error": error + 0.1 * seed, "pattern": pattern + 0.002 * seed}


def verdict_of(some, words):
    (found,) = [v.verdict for v in some if words in v.recipe]
    return found


def test_every_run_is_a_plan_and_every_checkpoint_that_is_judged_is_saved():
    for run in RUNS:
        plan = planned(run)
        assert all(step % plan.save_every == 0 and step < plan.steps for step in run.looks), run.key
        assert plan.held_out * 2 <= (run.pictures or CLIPS)


def test_every_run_has_a_name_of_its_own_and_all_seeds():
    assert len({run.key for run in RUNS}) == len(RUNS)
    assert all(c.isalnum() or c in "-_." for run in RUNS for c in run.key)
    for run in RUNS:
        assert [r.seed for r in RUNS if r.name == run.name] == list(SEEDS)


def test_what_trains_otherwise_is_another_run():
    run = RUNS[0]
    others = [
        replace(run, seed=5),
        replace(run, changes={**run.changes, "steps": 7}),
        replace(run, preset="general video"),
        replace(run, pictures=3),
    ]
    assert run.key not in {other.key for other in others} and len({o.key for o in others}) == 4


@pytest.mark.parametrize("preset", PRESETS)
def test_one_factor_scales_every_rate_of_a_preset(preset):
    scaled = scaled_rates(preset)
    for name, value in scaled.items():
        expert, inner = name.split(".")
        assert value == pytest.approx(FACTOR * getattr(getattr(PRESETS[preset], expert), inner))
    assert ("high.maximum" in scaled) == preset.startswith("motion")


def test_led_runs_share_one_sum_of_rates_and_the_epochs_are_those_of_the_preset():
    assert {round(high + low, 9) for high, low in LED.values()} == {4e-3}
    assert LED["high leads"] == LED["low leads"][::-1]
    (run,) = [r for r in RUNS if r.name == "video effect" and r.seed == 0]
    assert planned(run).steps == EPOCHS[-1] * STEPS_AN_EPOCH


def test_two_settings_that_do_not_differ_are_told_apart_in_one_of_nine_cases():
    drawn = random.Random(0)
    pairs = [[[drawn.gauss(0, 1) for _ in range(2)] for _ in range(2)] for _ in range(20_000)]
    apart = sum(compare(*pair) in ("below", "above") for pair in pairs) / len(pairs)
    assert apart == pytest.approx(1 / 9, abs=0.01)


def test_settings_are_compared_by_the_spread_of_their_seeds():
    assert compare([1.0, 1.2], [2.0, 2.1]) == "below"
    assert compare([2.0, 2.1], [1.0, 1.2]) == "above"
    assert compare([1.0, 1.8], [2.0, 2.1]) == "not apart"
    assert compare([1.0], [2.0, 2.0]) == "too few"


def test_a_figure_is_told_with_its_seeds():
    assert told([4.0, 4.2], ".1f") == "4.1 (4.0 to 4.2)"
    assert told([4.0], ".1f") == "4.0 (one seed)"
    assert told([1.0, 1.0]) == "1.00" and told([]) == "not run"


def test_held_out_losses_are_shares_of_the_one_without_the_lora():
    found = {"held_out": {"high_noise": [[0, 4.0, 4.0], [100, 2.0, 3.0], [200, 3.0, 1.0]]}}
    assert held_out("high_noise")(found) == 0.5
    assert held_out("high_noise", last=True)(found) == 0.75
    assert rise("high_noise")(found) == 0.5 and best_step("high_noise")(found) == 100


def test_progress_is_a_share_of_the_way_to_the_best_checkpoint():
    found = {
        "effect": {
            "1": {"path_error_px": 10.0},
            "2": {"path_error_px": 4.0},
            "3": {"path_error_px": 6.0},
        }
    }
    assert [progress(found, step, 12.0) for step in (1, 2, 3)] == [0.25, 1.0, 0.75]


def test_steps_that_were_made_twice_count_once():
    def step(number, role, loss):
        return {
            "step": number, "role": role, "loss": loss, "weight": 0.1, "rate": 1e-3,
            "weight_ratio": 2.0, "rate_ratio": 4.0,
        }  # fmt: skip

    steps = [step(n, "high_noise" if n % 2 else "low_noise", float(n)) for n in range(1, 21)]
    again = [*steps[:15], *steps[10:]]
    measured = [{"role": "high_noise", "step": 10, "loss": 1.0, "trained": 2.0}] * 2
    found = figures(again, measured)
    assert found["steps"] == {"high_noise": 10, "low_noise": 10}
    assert found["loss"]["high_noise"] == [2.0, 6.0, 10.0, 14.0, 18.0]
    assert found["held_out"]["high_noise"] == [[10, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [(near(4.0), near(8.0), HOLDS), (near(8.0), near(4.0), NOT), (near(4.0), near(4.1), UNTOLD)],
)
def test_who_leads_follows_from_the_path_error(high, low, expected):
    some = of_leading(everything(high_leads_loop=high, low_leads_loop=low))
    assert verdict_of(some, "For motion") == expected


@pytest.mark.parametrize(
    ("high", "low", "expected"), [(1.0, 2.0, HOLDS), (2.0, 1.0, NOT), (1.0, 1.0, NOT)]
)
def test_held_out_losses_decide_when_they_say_what_the_effect_says(high, low, expected):
    def run(error, loss):
        return lambda seed: {"error": error + 0.1 * seed, "losses": (4.0, loss, loss)}

    given = {"high_leads_loop": run(4.0, high), "low_leads_loop": run(8.0, low)}
    assert verdict_of(of_leading(everything(**given)), "held-out loss per expert") == expected


def test_a_look_that_is_stronger_where_low_leads_holds():
    some = of_leading(everything(low_leads_striped=near(0, 0.2), high_leads_striped=near(0, 0.1)))
    assert verdict_of(some, "For a look") == HOLDS


def test_one_seed_decides_nothing_and_no_seed_is_missing():
    whole = everything(high_leads_loop=near(4.0), low_leads_loop=near(8.0))
    one = {name: each[:1] for name, each in whole.by_name.items()}
    some = verdicts(Outcomes(one, WITHOUT), NOISE)
    decided = [v for each in some.values() for v in each if v.verdict in (HOLDS, NOT)]
    # The optimizer on noise needs no run, and its twin with exchanged bounds no second seed to contradict it.
    assert {v.recipe for v in decided} <= {
        "That ratio shows that motion needs the high-noise expert"
    }
    assert verdict_of(of_leading(Outcomes({})), "For motion") == MISSING


def test_the_motion_presets_are_judged_by_their_goals():
    def said(**given):
        some = of_motion(
            everything(motion_4x=lambda seed: given | {"rates": given["rates"][seed]}), NOISE
        )
        words = ("4x: the rate ratio", "4x: the weight ratio", "teach")
        return [verdict_of(some, each) for each in words]

    assert said(rates=(4.0, 4.1), weights=1.6, error=4.0) == [HOLDS, HOLDS, HOLDS]
    assert said(rates=(2.0, 2.1), weights=1.2, error=9.0) == [NOT, NOT, UNTOLD]
    assert said(rates=(4.0, 2.0), weights=1.2, error=9.0)[0] == UNTOLD


def test_a_ratio_that_follows_the_bounds_shows_nothing_about_motion():
    mirrored = {"motion_4x__bounds_exchanged": lambda _: {"rates": 0.25}}
    assert verdict_of(of_motion(everything(**mirrored), NOISE), "shows that motion") == NOT
    kept = {"motion_4x__bounds_exchanged": lambda _: {"rates": 4.0}}
    assert verdict_of(of_motion(everything(**kept), NOISE), "shows that motion") == UNTOLD


def test_equal_effects_are_equal_only_when_they_are_near():
    def said(error):
        return verdict_of(of_the_others(everything(**{"8_bit_kahan_loop": near(error)})), "Kahan")

    assert (said(4.05), said(8.0)) == (HOLDS, NOT)
    wide = everything(**{"8_bit_kahan_loop": lambda seed: {"error": 4.0 + 6 * seed}})
    assert verdict_of(of_the_others(wide), "Kahan") == UNTOLD


def test_an_effect_that_goes_on_growing_after_20_epochs_does_not_stop_there():
    found = everything()
    for seed, each in enumerate(found.by_name["video effect"]):
        errors = {100: 11.5, 200: 11.0, 300: 10.0, 400: 9.0, 1000: 4.0}
        each["effect"] = {str(s): {"path_error_px": e + 0.1 * seed} for s, e in errors.items()}
    some = of_effect(found)
    assert verdict_of(some, "stop at 20") == NOT
    assert verdict_of(some, "first signs") == NOT
    assert verdict_of(some, "settles") == HOLDS


def test_a_style_that_is_there_after_10_steps_per_image_does_not_need_40():
    assert verdict_of(of_images(everything()), "40 steps") == NOT


def test_the_page_has_every_recipe_and_no_figure_that_is_none():
    found = everything()
    text = page(found, ["2026-11-21"], NOISE)
    for some in verdicts(found, NOISE).values():
        for verdict in some:
            assert f"**{verdict.recipe}: {verdict.verdict}.** {verdict.why}" in text
    assert "None" not in text and "nan" not in text and "{" not in text
    assert f"{len(RUNS)} of {len(RUNS)} runs" in text
    assert "0 of" in page(Outcomes({}), [], NOISE)


def test_on_noise_automagic_ends_in_the_middle_of_its_bounds():
    rates = PRESETS["motion 4x"].low
    mean = mean_rate_on_noise(rates, 1500, side=16)
    assert mean == pytest.approx((rates.minimum + rates.maximum) / 2, rel=0.1)


def test_what_was_judged_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path))
    assert recipe_lab.kept(RUNS[0]) is None
    recipe_lab._keep(RUNS[0].key, {"a": 1})
    assert recipe_lab.kept(RUNS[0])["a"] == 1 and recipe_lab.kept(RUNS[1]) is None
