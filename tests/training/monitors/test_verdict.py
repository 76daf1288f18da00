"""What a run says of itself: which checkpoint of each expert, and why."""

import json

import pytest
from tandem_wan.training.events import CheckpointSaved, Finding, HeldOut, StateChanged, VerdictGiven
from tandem_wan.training.monitors.monitor import Monitor
from tandem_wan.training.monitors.verdict import verdict_of, verdict_text, write_verdict
from tandem_wan.training.plans.settings import PhaseSettings
from tandem_wan.training.watch import RunWatch

ONE_BY_ONE = (PhaseSettings(train="high", steps=1), PhaseSettings(train="low", steps=1))


def told(replays, plan, events, held=(), every=100):
    """The run's events as they are written, with a checkpoint every so often."""
    held = list(held)
    lines = []
    for event in replays.told(Monitor(plan), events):
        lines.append(event)
        if type(event).__name__ == "StepDone" and (
            event.step % every == 0 or event.step == plan.steps
        ):
            lines += [h for h in held if h.step == event.step]
            lines.append(CheckpointSaved(step=event.step, files={}))
    return replays.lines([*(h for h in held if h.step == 0), *lines])


def test_the_real_run_is_kept_where_low_noise_began_to_outgrow_high_noise(replays):
    plan, events = replays.real()
    verdict = verdict_of(plan, told(replays, plan, events))
    # People found 2,000 to 2,400 best.
    assert {role: kept.step for role, kept in verdict.keep.items()} == {
        "high_noise": 2400, "low_noise": 2400
    }  # fmt: skip
    assert verdict.text() == (
        "keep step 2,400: after it low noise grew 1.3 times faster than high noise"
    )
    assert [text.split(" (")[0] for text in verdict.findings] == [
        "Low noise is overpowering motion", "High noise is too weak for motion",
        "Low noise is overpowering motion",
    ]  # fmt: skip


def test_a_healthy_run_of_motion_is_kept_where_others_found_theirs_best(replays):
    plan, events = replays.healthy()
    verdict = verdict_of(plan, told(replays, plan, events))
    assert verdict.keep["high_noise"].step == verdict.keep["low_noise"].step == 2000
    assert "1,800-2,000" in verdict.text() and "nothing was held out" in verdict.text()
    assert verdict.findings == ()


def held(role, losses, every=100):
    return [
        HeldOut(
            step=every * i,
            role=role,
            loss=loss,
            trained=loss if i == 0 else 0.04 if role == "high_noise" else 0.1,
        )
        for i, loss in enumerate(losses)
    ]


def test_where_it_was_measured_each_expert_is_kept_at_its_own_lowest_held_out_loss(replays):
    plan, events = replays.healthy(500)
    losses = [
        *held("high_noise", [0.10, 0.08, 0.05, 0.06, 0.07, 0.08]),
        *held("low_noise", [0.20, 0.18, 0.17, 0.16, 0.15, 0.14]),
    ]
    verdict = verdict_of(plan, told(replays, plan, events, losses))
    assert {role: (kept.step, kept.loss) for role, kept in verdict.keep.items()} == {
        "high_noise": (200, 0.05), "low_noise": (500, 0.14)
    }  # fmt: skip
    assert verdict.measured and verdict.steps() == {"high_noise": 200, "low_noise": 500}
    assert verdict.keep["high_noise"].gap == pytest.approx(0.25)
    assert verdict.keep["high_noise"].gap_before == 0
    high, low = verdict.text().splitlines()
    assert high == (
        "high noise: keep step 200: lowest held-out loss, 0.0500 (0.1000 without the LoRA, 0.0800 at step 500); "
        "gap to trained clips +25% (was +0%)"
    )
    assert low == (
        "low noise: keep step 500: lowest held-out loss, 0.1400 (0.2000 without the LoRA); "
        "gap to trained clips +40% (was +0%)"
    )


def test_a_run_that_made_everything_worse_says_so(replays):
    plan, events = replays.healthy(300)
    losses = held("high_noise", [0.1, 0.2, 0.3, 0.4]) + held("low_noise", [0.1, 0.2, 0.3, 0.4])
    text = verdict_of(plan, told(replays, plan, events, losses)).text()
    assert "keep step 100" in text and "no checkpoint is better there than the model alone" in text


@pytest.mark.parametrize(
    ("preset", "words"),
    [("video effect", "strong at epoch 15"), ("general video", "compare the earlier ones")],
)
def test_other_presets_keep_the_last_and_say_what_is_missing(replays, preset, words):
    plan, (_, events) = replays.plan(300, preset=preset), replays.healthy(300)
    verdict = verdict_of(plan, told(replays, plan, events))
    assert verdict.keep["high_noise"].step == 300
    assert words in verdict.text() and "nothing was held out" in verdict.text()


def test_a_run_without_a_checkpoint_has_no_verdict(replays):
    plan, events = replays.healthy(90)
    assert verdict_of(plan, replays.lines(events)) is None


def test_what_was_made_after_a_checkpoint_and_lost_does_not_count(replays):
    plan, events = replays.healthy(500)
    lines = told(replays, plan, events, held("high_noise", [0.1, 0.09, 0.08, 0.07, 0.06, 0.01]))
    lines += replays.lines([StateChanged(state="queued", step=300)])
    verdict = verdict_of(plan, lines)
    assert (verdict.step, verdict.keep["high_noise"].step) == (300, 300)


def test_the_verdict_is_written_and_read_back(replays, tmp_path):
    assert verdict_text(tmp_path) == ""
    plan, events = replays.real()
    verdict = verdict_of(plan, told(replays, plan, events))
    write_verdict(tmp_path, verdict)
    stored = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    assert stored["keep"]["low_noise"]["step"] == 2400 and stored["version"] == 1
    assert verdict_text(tmp_path) == stored["text"] == verdict.text()
    (tmp_path / "verdict.json").write_text("[]", encoding="utf-8")
    assert verdict_text(tmp_path) == ""


def test_a_watch_tells_the_verdict_when_the_run_has_ended():
    watch = RunWatch(6, {"high_noise": [(6, 0.5)]})
    watch(VerdictGiven(step=6, keep={"high_noise": 4}, text="keep step 4: why"))
    watch(
        Finding(
            step=5, kind="warning", text="Low noise is strong (step 5): much. Do this.", rule="r"
        )
    )
    watch(Finding(step=5, kind="note", text="the light was good"))
    assert watch.text("done", "message").splitlines() == [
        "done, step 6 of 6",
        "message",
        "loss: high 0.5000",
        "keep step 4: why",
        "found: Low noise is strong (step 5)",
    ]


def test_low_noise_may_grow_faster_in_the_first_half(replays):
    """The rules are armed after half the run: so is the verdict."""
    plan = replays.plan(2200)
    high = replays.between((0, 0.0080), (1000, 0.0088), (2200, 0.0098))
    low = replays.between((0, 0.0030), (1000, 0.0045), (2200, 0.0048))
    rates = {"high_noise": lambda step: 2e-4, "low_noise": lambda step: 5e-5}
    events = replays.run(plan, {"high_noise": high, "low_noise": low}, rates)
    assert verdict_of(plan, told(replays, plan, events)).keep["low_noise"].step == 2000


def test_only_checkpoints_that_are_still_there_are_kept(replays):
    plan, events = replays.healthy(500)
    lines = told(replays, plan, events, held("high_noise", [0.10, 0.09, 0.05, 0.07, 0.06, 0.08]))
    assert verdict_of(plan, lines).keep["high_noise"].step == 200
    # Step 600 was saved before the run went on from an earlier one.
    left = verdict_of(plan, lines, saved=[100, 400, 500, 600])
    assert left.steps() == {"high_noise": 400, "low_noise": 500}
    assert verdict_of(plan, lines, saved=[]) is None


def test_a_held_out_loss_that_is_no_number_keeps_nothing(replays):
    plan, events = replays.healthy(300)
    nan = float("nan")
    lines = told(replays, plan, events, held("high_noise", [0.1, nan, 0.06, nan]))
    assert verdict_of(plan, lines).keep["high_noise"].step == 200


def test_experts_that_are_trained_one_after_the_other_are_not_compared_by_growth(replays):
    plan, events = replays.real()
    lines = told(replays, plan, events)
    one_by_one = verdict_of(replays.plan(order="sequential"), lines)
    assert one_by_one.steps() == {"high_noise": 3070, "low_noise": 3070}


def test_an_expert_that_waits_for_its_phase_is_kept_at_no_checkpoint_of_before(replays):
    """Its LoRA does nothing until then, and its held-out loss is that of the model alone at every checkpoint."""
    plan = replays.plan(400, order="sequential", phases=ONE_BY_ONE, held_out=1)
    curves = {role: lambda step: 0.005 for role in ("high_noise", "low_noise")}
    events = replays.run(plan, curves, curves)
    low = held("low_noise", [0.2, 0.2, 0.2, 0.3, 0.25])
    lines = told(replays, plan, events, held("high_noise", [0.1, 0.08, 0.07, 0.07, 0.07]) + low)
    assert verdict_of(plan, lines).steps() == {"high_noise": 200, "low_noise": 400}
    early = [line for line in lines if line["step"] <= 200]
    verdict = verdict_of(plan, early)
    assert verdict.keep["high_noise"].step == 200 and verdict.measured
    assert verdict.text().endswith("low noise: keep step 200: it has not been trained yet")


@pytest.mark.parametrize("preset", ["video effect", "general video", "motion 4x"])
def test_what_was_held_out_and_never_measured_is_not_said_to_be_missing(replays, preset):
    """As in a run that is stopped before its first checkpoint."""
    _, events = replays.healthy(40)
    plan = replays.plan(300, preset=preset, held_out=2)
    lines = told(replays, plan, events, held("high_noise", [0.1]) + held("low_noise", [0.1]))
    text = verdict_of(plan, lines, saved=[37]).text()
    assert "no checkpoint was measured on the clips held out" in text and "nothing was" not in text
