"""The list of runs tells the truth about runs that live, that ended, and that were cut off."""

import json
import threading
import time
from dataclasses import asdict

import pytest
from filelock import FileLock
from tandem_wan.training import listing
from tandem_wan.training.events import Finding, StepDone
from tandem_wan.training.job import Job
from tandem_wan.training.listing import job_details, list_jobs, run_folders, summary_of
from tandem_wan.training.states import LIVE, STATES
from tandem_wan.training.watch import loss_line, stored_curves

LIMIT_S = 20.0


@pytest.fixture
def listed(runs):
    """`listed()`: the list of runs by name, in its order."""
    return lambda: {s.name: s for s in list_jobs(runs.runner, runs.root)}


@pytest.fixture
def left(runs):
    """`left(name, state)`: a run as a process that ended in this state has left it, 3 steps done of 6."""

    def leave(name: str, state: str, message: str = "why") -> Job:
        fresh = runs.job(name)
        job = Job(fresh.folder, fresh.identity, state, 3)
        told = {"steps": 6, "role": "high_noise", "grad_norm": 1.0, "rate": 1e-3, "seconds": 0.5}
        for step in (1, 2, 3):
            job.listen(StepDone(step=step, loss=step / 8, **told))
        job.set_state(state, message)
        return job

    yield leave
    # These runs jump into their states, which is no history.
    runs.jobs.clear()


def done_run(runs, name="mermaid"):
    run = runs.start(runs.job(name))
    assert run.finished.wait(LIMIT_S)
    return run


def test_a_live_run_is_told_as_it_is(runs, listed):
    run, _ = runs.held("first", at=3)
    runs.start(runs.job("second"))
    first, second = listed().values()
    assert (first.id, first.state, first.step, first.steps) == (run.job.id, "running", 3, 6)
    assert (first.position, second.position) == (0, 1)
    assert (second.state, second.step, second.text) == ("queued", 0, "queued, step 0 of 6")
    assert first.changed == run.job.changed > 0
    assert first.role == run.watch.role and first.loss.keys() == run.watch.curves.keys()
    assert first.seconds_left == pytest.approx(3 * first.seconds_per_step)
    assert first.text == run.watch.text("running")
    assert (second.role, second.loss, second.seconds_per_step) == (None, {}, None)


@pytest.mark.parametrize("wish", ["pause", "stop"])
def test_a_wish_is_told_until_it_is_so(toys, runs, listed, wish):
    run, hold = runs.held()
    assert listed()["mermaid"].wish == ""
    run.control.pause() if wish == "pause" else runs.runner.stop(run, "enough")
    summary = listed()["mermaid"]
    assert summary.wish == wish
    assert (summary.state, summary.message) == (
        ("running", "") if wish == "pause" else ("stopping", "enough")
    )
    assert summary.text.splitlines()[1:] == ([] if wish == "pause" else ["enough"])
    hold.go.set()
    toys.eventually(lambda: run.job.state in ("paused", "stopped"))
    assert listed()["mermaid"].wish == ""


def test_a_run_that_is_done_is_told_from_disk_as_it_was_alive(runs, listed):
    run = done_run(runs)
    summary = listed()["mermaid"]
    assert (summary.id, summary.state, summary.step, summary.steps) == (run.job.id, "done", 6, 6)
    assert (summary.position, summary.wish, summary.seconds_left) == (None, "", None)
    assert summary.loss == pytest.approx(
        {
            role: sum(loss for _, loss in points[-5:]) / len(points[-5:])
            for role, points in run.watch.curves.items()
        }
    )
    assert summary.text == f"done, step 6 of 6\n{loss_line(run.watch.curves)}"
    assert summary.changed == run.job.changed


def test_a_stopped_and_a_failed_run_say_why(runs, listed):
    run, hold = runs.held("first", at=3)
    runs.runner.stop(run, "stopped by hand")

    def fail(call):
        raise RuntimeError("it broke")

    failed = runs.start(runs.job("second"), fail)
    hold.go.set()
    assert failed.finished.wait(LIMIT_S)
    stopped, failed = listed()["first"], listed()["second"]
    assert (stopped.state, stopped.step, stopped.message) == ("stopped", 4, "stopped by hand")
    assert (failed.state, failed.step, failed.message) == ("failed", 0, "it broke")
    assert failed.text == "failed, step 0 of 6\nit broke"


@pytest.mark.parametrize("state", STATES)
def test_a_run_that_nobody_holds_is_cut_off_if_its_record_needs_a_process(left, listed, state):
    left("mermaid", state)
    summary = listed()["mermaid"]
    if state in LIVE:
        assert (summary.state, summary.step) == ("cut off", 3)
        assert summary.text.splitlines()[0] == "cut off after step 3 of 6, goes on from step 0"
        assert "it goes on where it was" in summary.message
    else:
        assert (summary.state, summary.message) == (state, "why")
    assert summary.text.splitlines()[1:] == [summary.message, "loss: high 0.2500"]


@pytest.mark.parametrize("state", LIVE)
def test_a_run_that_somebody_else_holds_is_in_another_process(left, listed, state):
    job = left("mermaid", state)
    job.claim()
    summary = listed()["mermaid"]
    assert (summary.state, summary.message, summary.position) == (
        state, "In another process.", None
    )  # fmt: skip
    job.release()
    assert listed()["mermaid"].state == "cut off"


def test_live_runs_come_in_their_order_and_the_others_newest_first(runs, listed, left):
    for name, changed in (("a", 30.0), ("b", 50.0), ("c", 10.0), ("old", None)):
        path = left(name, "stopped").folder / "job.json"
        record = json.loads(path.read_text(encoding="utf-8")) | {"changed": changed}
        if changed is None:  # as an earlier version wrote it
            del record["changed"]
        path.write_text(json.dumps(record), encoding="utf-8")
    runs.held("z")
    runs.start(runs.job("y"))
    assert list(listed()) == ["z", "y", "b", "a", "c", "old"]


@pytest.mark.parametrize("content", [b"", b"{", b"\0\0\0", b"\xff\xfe\xfd", b"[]", b"{}"])
def test_a_broken_record_is_named_and_hides_no_other_run(runs, listed, left, content):
    (left("broken", "done").folder / "job.json").write_bytes(content)
    done_run(runs)
    summaries = listed()
    assert set(summaries) == {"broken", "mermaid"}
    assert (summaries["broken"].state, summaries["broken"].id) == ("failed", "")
    assert "job.json" in summaries["broken"].text
    assert "Move the folder away" in summaries["broken"].text
    assert job_details(runs.runner, runs.root, summaries["mermaid"].id).step == 6
    json.dumps([asdict(s) for s in summaries.values()])


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\n", b"{\n", b"\0\0\n"])
def test_rubbish_among_the_events_costs_its_line_alone(listed, left, rubbish):
    events = left("mermaid", "stopped").folder / "events.jsonl"
    events.write_bytes(rubbish + events.read_bytes())
    assert listed()["mermaid"].step == 3


def test_folders_without_a_run_and_a_root_without_folders_are_no_runs(runs, listed):
    assert listed() == {}
    (runs.root / "stranger").mkdir(parents=True)
    (runs.root / "loose.json").touch()
    assert run_folders(runs.root) == [] and listed() == {}


def test_a_run_that_has_just_left_the_queue_is_told_without_a_position(runs):
    run = done_run(runs)
    summary = summary_of(run, runs.runner.runs())
    assert (summary.state, summary.position, summary.seconds_left) == ("done", None, 0.0)


def test_details_of_a_stored_run_are_what_it_left(runs):
    run = done_run(runs)
    run.job.listen(Finding(step=6, kind="note", text="the light was good"))
    details = job_details(runs.runner, runs.root, run.job.id)
    assert details.curves == run.watch.curves == stored_curves(run.job.folder)
    assert (details.checkpoints, details.resumes_at) == ([2, 4, 6], 6)
    assert details.findings == ["the light was good"]
    assert details.plan == json.loads(json.dumps(asdict(run.job.plan)))
    assert (details.state, details.name) == ("done", "mermaid")
    assert job_details(runs.runner, runs.root, "0" * 16) is None


def test_details_of_a_live_run_are_its_own(runs):
    run, _ = runs.held(at=5)
    details = job_details(runs.runner, runs.root, run.job.id)
    assert (details.state, details.position, details.checkpoints) == ("running", 0, [2, 4])
    assert (details.step, details.resumes_at) == (5, 4)
    assert details.curves == run.watch.curves
    assert sorted(step for points in details.curves.values() for step, _ in points) == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_a_run_resumes_at_its_newest_checkpoint_that_can_be_resumed(runs, listed):
    run = done_run(runs)
    folder = run.job.folder

    def resumes_at():
        return job_details(runs.runner, runs.root, run.job.id).resumes_at

    assert resumes_at() == 6
    (folder / "step_000006" / "resume.state").unlink()
    assert resumes_at() == 4
    (folder / "step_000004" / "resume.state").unlink()
    assert resumes_at() == 0
    assert listed()["mermaid"].step == 6


def test_everything_listed_is_plain_json(runs, left, listed):
    left("cut", "running")
    left("stopped", "stopped")
    run, _ = runs.held("live", at=2)
    summaries = [asdict(summary) for summary in listed().values()]
    assert json.loads(json.dumps(summaries, allow_nan=False)) == summaries
    details = job_details(runs.runner, runs.root, run.job.id)
    assert json.loads(json.dumps(asdict(details), allow_nan=False))["id"] == run.job.id


def test_looking_at_the_list_changes_nothing_on_disk(runs, left, listed):
    left("cut", "running")
    files = {p: p.read_bytes() for p in runs.root.rglob("*") if p.is_file()}
    listed()
    now = {p: p.read_bytes() for p in runs.root.rglob("*") if p.is_file()}
    assert {p: b for p, b in now.items() if p.name != "run.lock"} == files


def test_looking_at_the_list_never_keeps_a_run_from_starting(left, listed, monkeypatch):
    """A page asks for the list just when a run that was cut off is queued again."""
    job, looking = left("mermaid", "running"), threading.Event()

    class SlowLock(FileLock):
        def acquire(self, *args, **kwargs):
            held = super().acquire(*args, **kwargs)
            looking.set()
            time.sleep(0.1)
            return held

    monkeypatch.setattr(listing, "FileLock", SlowLock, raising=False)
    thread = threading.Thread(target=listed, daemon=True)
    thread.start()
    looking.wait(1.0)
    job.claim()
    thread.join(LIMIT_S)
    job.release()
