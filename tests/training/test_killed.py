"""A process that is killed takes no run with it: each is found cut off and goes on to the same weights."""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tandem_wan.training.job import open_job
from tandem_wan.training.listing import job_details, list_jobs
from tandem_wan.wan.errors import UserError

LIMIT_S = 20.0
# State when killed: the step of its newest checkpoint, and the last step it had told.
KILLED = {
    "queued": (0, 0),
    "running": (2, 3),
    "parked": (2, 3),
    "paused": (2, 3),
    "stopping": (2, 3),
    "saving": (2, 3),
}
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")


def mermaid(toys, root: Path, state: str):
    """The runner and the summary of the run that was in a state."""
    runs = toys.runs(root / state)
    [summary] = [s for s in list_jobs(runs.runner, runs.root) if s.name == "mermaid"]
    return runs, summary


def job_of(runs, state: str):
    return runs.job(**({"seed": 9} if state == "saving" else {}))


def refusal(runs, state: str) -> UserError:
    """What a second process is told that wants to train the run."""
    with pytest.raises(UserError) as caught:
        runs.start(job_of(runs, state))
    return caught.value


@pytest.fixture(scope="module")
def killed(toys, tmp_path_factory):
    """The folder that a killed process left, and what was to be seen while it lived."""
    root = tmp_path_factory.mktemp("killed")
    child = Path(__file__).with_name("killed_child.py")
    process = subprocess.Popen(
        [sys.executable, str(child), str(root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "6 ready\n"
        alive = {state: mermaid(toys, root, state) for state in KILLED}
        summaries = {state: summary for state, (_, summary) in alive.items()}
        refusals = {state: refusal(runs, state) for state, (runs, _) in alive.items()}
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
        process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    return SimpleNamespace(root=root, summaries=summaries, refusals=refusals)


@pytest.mark.parametrize("state", KILLED)
def test_while_the_process_lives_its_runs_are_listed_as_in_another_process(killed, state):
    summary = killed.summaries[state]
    assert summary.state == ("stopping" if state == "saving" else state)
    assert (summary.message, summary.position) == ("In another process.", None)
    assert summary.step == KILLED[state][1]


@pytest.mark.parametrize("state", KILLED)
def test_while_the_process_lives_nobody_else_trains_its_runs(killed, state):
    error = killed.refusals[state]
    assert error.came == "mermaid is being trained by another process."
    assert error.can_be and error.to_do


@pytest.mark.parametrize("state", KILLED)
def test_a_killed_run_is_cut_off_and_goes_on_to_the_weights_of_an_undisturbed_one(
    toys, killed, tmp_path, state
):
    runs, summary = mermaid(toys, killed.root, state)
    resumes_at, told = KILLED[state]
    assert (summary.state, summary.step) == ("cut off", told)
    assert f"after step {told} of 6, goes on from step {resumes_at}" in summary.text
    assert job_details(runs.runner, runs.root, summary.id).resumes_at == resumes_at
    job = job_of(runs, state)
    assert job.state == "cut off"
    run = runs.start(job)
    assert run.finished.wait(LIMIT_S) and job.state == "done"
    assert sorted(s for points in run.watch.curves.values() for s, _ in points) == list(range(1, 7))
    assert list(job.folder.glob(".step_*")) == []
    again = open_job(runs.root, job.identity)
    trainers, plain = toys.trainers(job.plan), toys.trainers(job.plan)
    assert again.store.resume(trainers) == 6
    alone = toys.runs(tmp_path)
    other = job_of(alone, state)
    assert alone.start(other).finished.wait(LIMIT_S)
    assert other.store.resume(plain) == 6
    assert toys.same(toys.weights(trainers), toys.weights(plain))
    assert other.losses() == again.losses()
    alone.end()
    runs.runner.shutdown(LIMIT_S)
