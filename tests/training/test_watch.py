"""How a run gets on, in numbers and in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.events import CheckpointSaved, ClipEncoded, StepDone
from tandem_wan.training.job import Identity, open_job
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.watch import (
    PACE_STEPS,
    RunWatch,
    clock,
    loss_line,
    mean_losses,
    stored_curves,
)


def done(step, loss=0.5, role="high_noise", seconds=2.0, steps=100):
    return StepDone(
        step=step, steps=steps, role=role, loss=loss, grad_norm=1.0, rate=1e-4, seconds=seconds
    )


def watched(*events, steps=100, curves=None):
    watch = RunWatch(steps, curves or {})
    for event in events:
        watch(event)
    return watch


@pytest.fixture
def job(tmp_path):
    plan = TrainingPlan(steps=100, family="wan 2.2 A14B")
    base = (("high_noise", "b1"), ("low_noise", "b2"))
    identity = Identity(
        name="mermaid", plan=plan, dataset="d1", base=base, vae="v1", text_encoder="t1"
    )
    return open_job(tmp_path, identity)


def test_before_its_first_step_a_run_has_no_pace_and_no_time_left():
    watch = watched()
    assert (watch.seconds_per_step(), watch.seconds_left(), watch.step, watch.role) == (
        None, None, 0, None
    )  # fmt: skip
    assert watch.text("running") == "running, step 0 of 100"


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=3 * PACE_STEPS))
def test_the_pace_is_the_mean_of_the_last_steps_and_the_time_left_goes_by_it(seconds):
    watch = watched(*(done(i + 1, seconds=s, steps=500) for i, s in enumerate(seconds)), steps=500)
    recent = seconds[-50:]
    assert watch.seconds_per_step() == pytest.approx(sum(recent) / len(recent))
    left = sum(recent) / len(recent) * (500 - len(seconds))
    assert watch.seconds_left() == pytest.approx(left)


def test_the_pace_forgets_all_but_the_last_50_steps():
    watch = watched(*(done(step, seconds=float(step)) for step in range(1, 91)))
    assert watch.seconds_per_step() == sum(range(41, 91)) / 50


@pytest.mark.parametrize(
    ("count", "last"), [(1, 1), (4, 4), (5, 5), (30, 5), (59, 5), (60, 6), (200, 20), (209, 20)]
)
def test_a_mean_loss_is_over_this_many_steps(count, last):
    points = [(step, float(step * step)) for step in range(1, count + 1)]
    expected = sum(loss for _, loss in points[count - last :]) / last
    assert mean_losses({"single": points}) == {"single": pytest.approx(expected)}


def test_a_finished_run_has_no_time_left():
    assert watched(done(100)).seconds_left() == 0.0


def test_a_run_that_goes_on_stands_where_it_was_and_has_no_pace_yet():
    watch = watched(curves={"high_noise": [(1, 0.5), (4, 0.4)], "low_noise": [(2, 0.3), (3, 0.2)]})
    assert (watch.step, watch.seconds_per_step()) == (4, None)
    assert watch.text("queued") == "queued, step 4 of 100\nloss: high 0.4500, low 0.2500"
    watch(done(5, seconds=3.0))
    assert watch.seconds_left() == 3.0 * 95


@pytest.mark.parametrize("state", ["running", "parked", "paused"])
def test_a_run_that_goes_on_by_and_by_says_its_pace(state):
    text = watched(done(1, 0.25), done(2, 0.5, "low_noise", seconds=3.0)).text(state)
    assert text == (
        f"{state}, step 2 of 100, 2.50 s a step, 4:05 left\nloss: high 0.2500, low 0.5000"
    )


@pytest.mark.parametrize(
    "state", ["queued", "stopping", "stopped", "done", "failed", "cut off"]
)  # fmt: skip
def test_a_run_that_does_not_go_on_says_no_pace_and_why(state):
    text = watched(done(2, 0.25, "single")).text(state, "because of you")
    assert text == f"{state}, step 2 of 100\nbecause of you\nloss: 0.2500"


def test_clips_are_counted_until_the_first_step():
    watch = watched(ClipEncoded(name="a", done=3, total=8))
    assert watch.encoded == (3, 8)
    assert watch.text("running") == "running, encoding clip 3 of 8"
    watch(done(1))
    assert watch.encoded is None and "encoding" not in watch.text("running")
    assert watch.role == "high_noise"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"done": 3, "total": 40, "seconds_left": 80.0}, "encoding clip 3 of 40, 1:20 left"),
        (
            {"done": 12, "total": 40, "cached": 10, "seconds_left": 5.4},
            "encoding clip 12 of 40 (10 from the cache), 0:05 left",
        ),
        ({"done": 40, "total": 40, "cached": 40}, "40 of 40 clips from the cache"),
    ],
)
def test_encoding_says_how_long_it_takes_and_what_was_there(event, text):
    assert watched(ClipEncoded(name="a", **event)).text("running") == f"running, {text}"


def test_other_events_change_nothing():
    watch = watched(done(1), CheckpointSaved(step=50, files={}))
    assert (watch.step, watch.curves) == (1, {"high_noise": [(1, 0.5)]})


@given(
    st.lists(st.floats(0.0, 10.0), max_size=120),
    st.lists(st.floats(0.0, 10.0), max_size=120),
)
def test_a_mean_loss_is_that_of_the_last_tenth_and_of_5_steps_at_least(high, low):
    curves = {"high_noise": list(enumerate(high, 1)), "low_noise": list(enumerate(low, 1))}
    means = mean_losses(curves)
    for role, losses in (("high_noise", high), ("low_noise", low)):
        count = len(losses) // 10 if len(losses) >= 60 else 5
        recent = list(reversed(losses))[:count]
        assert (role in means) == bool(losses)
        if losses:
            assert means[role] == pytest.approx(sum(recent) / len(recent))


def test_losses_are_told_in_one_line():
    assert loss_line({}) == loss_line({"high_noise": []}) == ""
    assert loss_line({"high_noise": [(1, 0.12344)], "low_noise": [(2, 1.0)]}) == (
        "loss: high 0.1234, low 1.0000"
    )
    assert loss_line({"single": [(1, 0.5)]}) == "loss: 0.5000"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (0.4, "0:00"), (65, "1:05"), (599.7, "10:00"), (3599, "59:59"),
     (3599.6, "1:00:00"), (7389, "2:03:09"), (360000, "100:00:00")],
)  # fmt: skip
def test_times_are_read_as_on_a_clock(seconds, text):
    assert clock(seconds) == text


HISTORY = [
    done(1, 0.5),
    done(2, 0.4, "low_noise"),
    done(3, 0.3),
    done(2, 0.35, "low_noise"),
    done(3, 0.25),
]


def test_a_step_that_was_done_twice_counts_as_done_last(job):
    for event in HISTORY:
        job.listen(event)
    assert stored_curves(job.folder) == {
        "high_noise": [(1, 0.5), (3, 0.25)],
        "low_noise": [(2, 0.35)],
    }


@pytest.mark.parametrize("up_to", range(4))
def test_steps_after_the_one_a_run_goes_on_from_are_left_out(job, up_to):
    for event in HISTORY:
        job.listen(event)
    points = {(1, 0.5), (2, 0.35), (3, 0.25)}
    found = stored_curves(job.folder, up_to)
    assert {p for curve in found.values() for p in curve} == {p for p in points if p[0] <= up_to}


def test_a_run_without_events_has_no_curves(tmp_path):
    assert stored_curves(tmp_path) == {}


@given(cut=st.integers(1, 8), again=st.integers(0, 8), rest=st.integers(0, 8))
def test_the_curves_of_a_live_run_are_those_it_writes_down(tmp_path_factory, cut, again, rest):
    """Also of one that goes on from a step before the newest checkpoint, which could not be read."""
    plan = TrainingPlan(steps=100, family="wan 2.2 A14B")
    identity = Identity(name="x", plan=plan, dataset="", base=(), vae="", text_encoder="")
    job = open_job(tmp_path_factory.mktemp("runs"), identity)
    for step in range(1, cut + 1):
        job.listen(done(step, step / 10, "low_noise" if step % 3 else "high_noise"))
    watch = RunWatch(plan.steps, stored_curves(job.folder))
    job.listeners.append(watch)
    first = min(again, cut)
    for step in range(first + 1, first + rest + 1):
        job.listen(done(step, step / 20, "low_noise" if step % 3 else "high_noise"))
    if first + rest >= cut:  # no old step is left to be done again
        assert watch.curves == stored_curves(job.folder)
        assert watch.step == max(step for points in watch.curves.values() for step, _ in points)
