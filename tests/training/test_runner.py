"""One run after the other in a thread of its own, and nothing of a run is left behind."""

import gc
import threading
import weakref

import pytest
from tandem_wan.training.events import StateChanged, StepDone
from tandem_wan.wan.errors import UserError

LIMIT_S = 20.0


def finished(run) -> str:
    """The state in which a run ended."""
    assert run.finished.wait(LIMIT_S), run.job.state
    return run.job.state


def weights_of(toys, job):
    trainers = toys.trainers(job.plan)
    assert job.store.resume(trainers) == job.plan.steps
    return toys.weights(trainers)


@pytest.fixture
def no_thread(runs):
    """`no_thread()`: every thread that the runner has started is over."""
    before = set(threading.enumerate())
    return lambda: set(threading.enumerate()) <= before


@pytest.fixture
def plain(toys, runs, tmp_path):
    """`plain(job)`: the weights after a run of the same plan that nobody disturbed."""

    def train_plain(job):
        alone = toys.runs(tmp_path / "plain")
        other = alone.job(steps=job.plan.steps, save_every=job.plan.save_every)
        assert finished(alone.start(other)) == "done"
        alone.end()
        return weights_of(toys, other)

    return train_plain


def test_a_run_is_done_in_the_background_and_says_how_it_got_on(toys, runs):
    job = runs.job()
    run = runs.start(job)
    assert finished(run) == "done"
    assert toys.states(job) == ["queued", "running", "done"]
    assert (job.step, job.store.steps(), run.error) == (6, [2, 4, 6], None)
    assert [step for points in run.watch.curves.values() for step, _ in points] != []
    assert run.watch.step == 6
    log = (job.folder / "run.log").read_text(encoding="utf-8")
    assert "mermaid is done at step 6 of 6" in log


def test_runs_wait_in_order_and_one_works_at_a_time(toys, runs, no_thread):
    first, hold = runs.held("first")
    others = [runs.start(runs.job(name)) for name in ("second", "third")]
    assert runs.runner.runs() == [first, *others]
    assert [run.job.state for run in runs.runner.runs()] == ["running", "queued", "queued"]
    assert runs.runner.find(others[1].job.id) is others[1]
    order = []
    for run in (first, *others):
        run.job.listeners.append(
            lambda event, run=run: order.append((run.job.name, getattr(event, "state", "step")))
        )
    hold.go.set()
    assert [finished(run) for run in (first, *others)] == ["done"] * 3
    for name, rest in (("first", []), ("second", ["running"]), ("third", ["running"])):
        at = [i for i, (who, _) in enumerate(order) if who == name]
        assert at == list(range(at[0], at[-1] + 1)), "nobody comes between"
        assert [what for who, what in order if who == name and what != "step"] == [*rest, "done"]
    toys.eventually(no_thread)
    assert runs.runner.runs() == [] and runs.runner.find(first.job.id) is None


def test_the_same_run_twice_is_the_same_run(runs):
    first, hold = runs.held("first")
    waiting = runs.start(runs.job("second"))
    assert runs.start(runs.job("first")) is first
    assert runs.start(runs.job("second")) is waiting
    assert runs.runner.runs() == [first, waiting]
    hold.go.set()
    assert finished(waiting) == "done"


def test_a_run_that_waits_is_taken_out_of_the_queue_at_once(toys, runs):
    first, hold = runs.held("first")
    second, third = (runs.start(runs.job(name)) for name in ("second", "third"))
    runs.runner.stop(second)
    assert finished(second) == "stopped"
    assert (second.work, runs.runner.runs()) == (None, [first, third])
    assert toys.states(second.job) == ["queued", "stopped"]
    again = runs.start(runs.job("second"))
    assert again is not second and runs.runner.runs() == [first, third, again]
    hold.go.set()
    assert finished(again) == "done"
    assert runs.runner.runs() == []


def test_a_run_that_works_is_stopped_after_its_micro_batch_and_saved(toys, runs, plain):
    run, hold = runs.held(at=3)
    runs.runner.stop(run, "stopped by hand")
    assert run.job.state == "stopping" and not run.finished.is_set()
    hold.go.set()
    assert finished(run) == "stopped"
    assert run.job.store.resumable_step() == run.job.step == 4
    record = (run.job.folder / "job.json").read_text(encoding="utf-8")
    assert '"message": "stopped by hand"' in record
    again = runs.start(runs.job())
    assert finished(again) == "done"
    assert toys.same(weights_of(toys, again.job), plain(again.job))


def test_a_parked_and_a_paused_run_go_on_to_the_same_weights(toys, runs, plain):
    run, hold = runs.held(at=2)
    runs.gate.set_open(False)
    hold.go.set()
    toys.eventually(lambda: run.job.state == "parked")
    assert not runs.gate.inside
    run.control.pause()
    toys.eventually(lambda: run.job.state == "paused")
    runs.gate.set_open(True)
    run.control.resume()
    assert finished(run) == "done"
    assert toys.states(run.job) == [
        "queued", "running", "parked", "paused", "parked", "running", "done"
    ]  # fmt: skip
    assert toys.same(weights_of(toys, run.job), plain(run.job))
    assert not runs.gate.inside


@pytest.mark.parametrize("first_in_line", [True, False])
def test_a_run_stopped_before_its_first_turn_has_never_worked(toys, runs, first_in_line):
    runs.gate.set_open(False)
    one, two = (runs.start(runs.job(name)) for name in ("one", "two"))
    run = one if first_in_line else two
    runs.runner.stop(run)
    assert finished(run) == "stopped"
    assert toys.states(run.job) == ["queued", "stopped"] and run.job.store.steps() == []
    runs.gate.set_open(True)
    assert finished(two if first_in_line else one) == "done"


class Odd(BaseException):
    """No Exception, as some hosts have."""


@pytest.mark.parametrize("error", [RuntimeError("it broke"), Odd("odd"), Odd(), SystemExit(3)])
def test_a_run_that_raises_has_failed_and_the_next_one_starts(toys, runs, error):
    def fail(call):
        raise error

    run = runs.start(runs.job("first"), fail)
    second = runs.start(runs.job("second"))
    assert finished(run) == "failed"
    assert run.error is error
    message = str(error) or "Odd"
    assert f'"message": "{message}"' in (run.job.folder / "job.json").read_text(encoding="utf-8")
    log = (run.job.folder / "run.log").read_text(encoding="utf-8")
    assert "Traceback" in log and "in fail" in log and message in log
    assert finished(second) == "done"
    assert finished(runs.start(runs.job("first"))) == "done", "and goes on"


def test_a_finished_run_takes_back_nothing(runs):
    run = runs.start(runs.job())
    finished(run)
    with pytest.raises(UserError, match="is done"):
        runs.runner.stop(run)


class Model:
    """Something large that a run holds."""


def chained():
    try:
        raise MemoryError("no memory left")
    except MemoryError as error:
        raise UserError("It was too large.", "It can be smaller.", "Make it smaller.") from error


def within():
    try:
        raise MemoryError("no memory left")
    except MemoryError:
        raise OSError("no disk either")  # noqa: B904 - as a failing save does


def plainly():
    raise ValueError("broken")


@pytest.mark.parametrize("ending", [lambda: None, plainly, chained, within])
def test_what_a_run_holds_is_dropped_when_it_is_over(runs, ending):
    job, alive = runs.job(), []
    # A test's own log keeps errors with their frames.
    job.logger.propagate = False

    def load():
        held = Model()
        alive.append(weakref.ref(held))

        def use(held):
            ending()
            return "done"

        return lambda turns: use(held)

    run = runs.runner.submit(job, load())
    finished(run)
    job.logger.propagate = True
    gc.collect()
    assert run.job.state == ("done" if run.error is None else "failed")
    assert alive[0]() is None


@pytest.mark.parametrize("which", ["queued", "paused"])
def test_what_a_stopped_run_holds_is_dropped_too(toys, runs, which):
    _, hold = runs.held("first")
    model = Model()
    alive = weakref.ref(model)
    run = runs.runner.submit(
        runs.job("second"), lambda turns, model=model: turns.pause() or turns.wait()
    )
    del model
    if which == "paused":
        hold.go.set()
    toys.eventually(lambda: run.job.state == which)
    assert alive() is not None
    runs.runner.stop(run)
    assert finished(run) == "stopped"
    gc.collect()
    assert alive() is None


def test_busy_and_idle_frame_the_time_with_runs_and_the_thread_lives_in_it(toys, runs, no_thread):
    assert runs.frames == [] and no_thread()
    first, hold = runs.held("first")
    second = runs.start(runs.job("second"))
    assert runs.frames == ["busy"] and not no_thread()
    hold.go.set()
    finished(second)
    toys.eventually(no_thread)
    assert runs.frames == ["busy", "idle"]
    third = runs.start(runs.job("third"))
    assert finished(third) == "done"
    toys.eventually(no_thread)
    assert runs.frames == ["busy", "idle"] * 2
    assert first.job.state == "done"


def test_a_listener_hears_every_event_of_every_run_with_the_run(toys, tmp_path):
    heard = []
    runs = toys.runs(tmp_path, listen=lambda run, event: heard.append((run.job.name, event)))
    for name in ("first", "second"):
        assert finished(runs.start(runs.job(name))) == "done"
    runs.end()
    for name in ("first", "second"):
        events = [event for who, event in heard if who == name]
        states = [event.state for event in events if isinstance(event, StateChanged)]
        assert states == ["queued", "running", "done"]
        steps = [event.step for event in events if isinstance(event, StepDone)]
        assert steps == [1, 2, 3, 4, 5, 6]


def test_a_run_that_is_queued_again_is_heard_once(toys, tmp_path):
    heard = []
    runs = toys.runs(tmp_path, listen=lambda run, event: heard.append(event))
    hold = runs.hold(at=2)
    run = runs.start(runs.job(), hold)
    assert hold.reached.wait(LIMIT_S)
    run.control.stop()
    hold.go.set()
    assert finished(run) == "stopped"
    again = runs.start(run.job)
    assert again is not run and finished(again) == "done"
    runs.end()
    steps = [event.step for event in heard if isinstance(event, StepDone)]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert run.watch.step == 3 and again.watch.step == 6


def test_the_end_of_the_host_saves_what_works_and_cuts_it_off(toys, runs, plain, no_thread):
    run, hold = runs.held("mermaid", at=2)
    waiting = runs.start(runs.job("second"))
    runs.gate.set_open(False)
    hold.go.set()
    toys.eventually(lambda: run.job.state == "parked")
    runs.runner.shutdown(LIMIT_S)
    assert no_thread()
    assert (run.job.state, run.finished.is_set()) == ("cut off", True)
    assert run.job.store.resumable_step() == run.job.step > 0
    assert waiting.job.state == "queued" and not waiting.finished.is_set()
    waiting.job.release()
    later = toys.runs(runs.root)
    for name in ("mermaid", "second"):
        job = later.job(name)
        assert job.state == "cut off"
        assert finished(later.start(job)) == "done"
        assert toys.same(weights_of(toys, job), plain(job))
    later.end()


def test_a_shutdown_without_runs_is_nothing(runs):
    runs.runner.shutdown(LIMIT_S)
    assert runs.frames == []


def test_a_shutdown_waits_no_longer_than_it_was_told(runs):
    run, hold = runs.held()
    runs.runner.shutdown(0.01)
    assert not run.finished.is_set() and run.job.state == "stopping"
    hold.go.set()
    assert finished(run) == "cut off"


def test_interrupts_of_the_host_reach_the_gate_and_the_run_goes_on(toys, tmp_path):
    calls = []

    def interrupt_once(call):
        calls.append(call)
        if len(calls) == 3:
            raise Odd

    runs = toys.runs(tmp_path, interrupts=(Odd,))
    assert finished(runs.start(runs.job(), interrupt_once)) == "done"
    assert (runs.gate.interrupts, len(calls)) == (1, 7)
    runs.end()


def test_the_log_of_a_run_that_is_over_is_closed(runs):
    run, hold = runs.held()
    [log] = run.job.logger.handlers
    hold.go.set()
    assert finished(run) == "done"
    assert run.job.logger.handlers == [] and log.stream is None
