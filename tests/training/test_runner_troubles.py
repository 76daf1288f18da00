"""A full disk, a broken listener or two threads at once: the runner goes on, and nobody waits for ever."""

import os
import threading

import pytest
from tandem_wan.training import records
from tandem_wan.training.events import StateChanged
from tandem_wan.training.loop import train
from tandem_wan.training.preview import Preview
from tandem_wan.training.turns import RunStopped
from tandem_wan.wan.errors import UserError

LIMIT_S = 20.0


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing can be renamed below folders that are in the list."""
    folders, replace = [], os.replace

    def full(source, target):
        if target.parent in folders:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(records.os, "replace", full)
    return folders


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_whose_end_cannot_be_written_ends_and_the_next_one_starts(toys, runs, full_disk):
    first, hold = runs.held("first")
    second = runs.start(runs.job("second"))
    full_disk.append(first.job.folder)
    hold.go.set()
    assert first.finished.wait(LIMIT_S)
    assert second.finished.wait(2.0), "the thread goes on"
    assert second.job.state == "done"
    toys.eventually(lambda: runs.frames == ["busy", "idle"])


def test_who_looks_on_hears_of_an_end_that_could_not_be_written(toys, tmp_path, full_disk):
    heard = []
    runs = toys.runs(tmp_path, listen=lambda run, event: heard.append(event))
    run, hold = runs.held("first", at=3)
    full_disk.append(run.job.folder)
    hold.go.set()
    assert run.finished.wait(LIMIT_S)
    runs.end()
    assert isinstance(run.error, UserError) and "the disk is full" in run.error.came
    last = StateChanged(state="failed", step=run.job.step, message=str(run.error))
    assert heard[-1] == last and run.control.why == last.message
    assert "goes on from step 2." in run.error.to_do, "the checkpoint before"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_listener_that_breaks_at_a_runs_end_does_not_end_the_runner(toys, tmp_path):
    def listen(run, event):
        if isinstance(event, StateChanged) and event.state == "done" and run.job.name == "first":
            raise RuntimeError("the page is gone")

    runs = toys.runs(tmp_path, listen=listen)
    first, second = (runs.start(runs.job(name)) for name in ("first", "second"))
    assert first.finished.wait(LIMIT_S)
    ended = second.finished.wait(2.0)
    runs.end()
    assert ended and runs.frames == ["busy", "idle"]


def refuse_to_get_ready():
    raise RuntimeError("the host is not ready")


@pytest.mark.parametrize("trouble", ["full disk", "host"])
def test_a_run_that_could_not_be_queued_is_not_in_the_queue_and_can_be_later(
    toys, tmp_path, full_disk, trouble
):
    runs = toys.runs(tmp_path, **({"busy": refuse_to_get_ready} if trouble == "host" else {}))
    job = runs.job()
    if trouble == "full disk":
        full_disk.append(job.folder)
    with pytest.raises((OSError, RuntimeError)):
        runs.start(job)
    full_disk.clear()
    assert runs.runner.runs() == []
    later = toys.runs(tmp_path)
    run = later.start(later.job())
    assert run.finished.wait(LIMIT_S) and run.job.state == "done"
    later.end()


def test_a_state_said_while_the_host_ends_does_not_lock_both_up(toys, tmp_path):
    """A listener looks at the list of runs, as a page does, just when the runner is shut down."""
    said, ends = threading.Event(), threading.Event()

    def listen(run, event):
        if isinstance(event, StateChanged) and event.state == "running":
            said.set()
            ends.wait(0.2)
            runs.runner.runs()

    runs = toys.runs(tmp_path, listen=listen)
    runs.gate.set_open(False)
    run = runs.start(runs.job())
    runs.gate.set_open(True)
    assert said.wait(LIMIT_S)
    ending = threading.Thread(target=runs.runner.shutdown, args=(LIMIT_S,), daemon=True)
    ending.start()
    assert run.finished.wait(3.0), "each waits for what the other holds"
    ending.join(LIMIT_S)
    runs.end()


def test_a_stop_that_comes_as_the_run_ends_is_no_mistake_of_the_program(toys, runs):
    """The run ends between a look at its state and the change to stopping."""
    job = runs.job(steps=1)
    set_state = job.set_state

    def slowly(state, message=""):
        if state == "stopping":
            hold.go.set()
            run.finished.wait(0.5)
        set_state(state, message)

    job.set_state = slowly
    hold = runs.hold()
    run = runs.start(job, hold)
    assert hold.reached.wait(LIMIT_S)
    try:
        runs.runner.stop(run)
    except UserError as error:
        assert "is done" in error.came
    assert run.finished.wait(LIMIT_S)
    assert job.state in ("done", "stopped")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stop_that_comes_as_the_run_is_let_in_and_has_nothing_left_to_do(runs):
    enter = runs.gate.enter

    def enter_and_stop(give_up):
        let_in = enter(give_up)
        runs.runner.runs()[0].control.stop()
        return let_in

    runs.gate.enter = enter_and_stop
    run = runs.runner.submit(runs.job(), lambda turns: "done")
    assert run.finished.wait(LIMIT_S)
    assert run.job.state in ("done", "stopped")


def test_a_run_that_was_stopped_within_its_previews_makes_the_rest_when_it_goes_on(toys):
    plan, clips, shown = toys.plan(steps=6), toys.clips(), []
    stops = [(3, 2)]

    def show(step, number, latent):
        if (step, number) in stops:
            stops.clear()
            raise RunStopped
        shown.append((step, number))

    preview = Preview(
        every=3,
        clips=clips[:2],
        negative=clips[0].context,
        show=show,
        made=lambda *which: which in shown,
        steps=2,
    )
    trainers = toys.trainers(plan)
    saved = []
    wishes = {"save": lambda step, _: saved.append(step), "preview": preview}
    assert train(plan, trainers, listen=lambda event: None, **wishes) == "stopped"
    assert (shown, saved) == ([(3, 1)], [3])
    assert train(plan, trainers, listen=lambda event: None, first_step=3, **wishes) == "done"
    assert shown == [(3, 1), (3, 2), (6, 1), (6, 2)]
