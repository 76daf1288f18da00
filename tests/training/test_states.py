"""Which state may follow which, and that a change the table does not have leaves a run as it is."""

import json
from itertools import product

import pytest
from tandem_wan.training.job import Job, open_job
from tandem_wan.training.states import LIVE, STATES, TRANSITIONS, require_transition

OVER = ("stopped", "failed", "cut off", "done")
# One row for each state: the states that may follow it, in the order of `STATES`.
TABLE = {
    #            queued running parked paused stopping stopped done failed cut off
    "queued": "    .      x       .      .       .        x      .     x      x    ",
    "running": "   .      .       x      x       x        .      x     x      x    ",
    "parked": "    .      x       .      x       x        .      .     x      x    ",
    "paused": "    .      x       x      .       x        .      .     x      x    ",
    "stopping": "  .      .       .      .       .        x      x     x      x    ",
    "stopped": "   x      .       .      .       .        .      .     .      .    ",
    "done": "      x      .       .      .       .        .      .     .      .    ",
    "failed": "    x      .       .      .       .        .      .     .      .    ",
    "cut off": "   x      .       .      .       .        .      .     .      .    ",
}
PAIRS = list(product(TABLE, TABLE))


def may_follow(before: str, after: str) -> bool:
    return TABLE[before].split()[list(TABLE).index(after)] == "x"


def files_of(job: Job) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in job.folder.iterdir() if path.is_file()}


@pytest.fixture
def job_in(runs):
    """`job_in(state)`: a run in that state, with files that say so."""

    def build(state: str) -> Job:
        fresh = runs.job()
        job = Job(fresh.folder, fresh.identity, state, 3)
        job.set_state(state, "as it was")
        return job

    yield build
    # These runs jump into their states, which is no history.
    runs.jobs.clear()


def test_the_table_knows_every_state():
    assert set(TRANSITIONS) == set(STATES) == set(TABLE)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_table_allows_these_changes_and_no_other(before, after):
    if may_follow(before, after):
        require_transition(before, after)
    else:
        with pytest.raises(ValueError, match=f"that is {before} cannot become {after}$"):
            require_transition(before, after)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_run_takes_the_changes_of_the_table_and_refuses_all_others_untouched(
    job_in, before, after
):
    job = job_in(before)
    files, changed = files_of(job), job.changed
    if may_follow(before, after) or before == after:
        job.set_state(after, "why")
        record = json.loads(files_of(job)["job.json"])
        assert (record["state"], record["message"], record["step"]) == (after, "why", 3)
        event = json.loads(files_of(job)["events.jsonl"].splitlines()[-1])
        assert (event["event"], event["state"], event["message"]) == ("StateChanged", after, "why")
        assert job.state == after
    else:
        with pytest.raises(ValueError, match="cannot become"):
            job.set_state(after, "why")
        assert (job.state, job.changed) == (before, changed)
        assert files_of(job) == files


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_needs_a_process_is_found_cut_off_and_any_other_as_it_was(job_in, state):
    job = job_in(state)
    (job.folder / "step_000003").mkdir()
    found = open_job(job.folder.parent, job.identity)
    assert found.state == (state if state in OVER else "cut off")
    assert found.step == 3


def test_the_live_states_are_those_that_can_be_cut_off_or_fail():
    assert set(LIVE) == set(STATES) - set(OVER)
    for state in STATES:
        assert ("cut off" in TRANSITIONS[state]) == ("failed" in TRANSITIONS[state])
        assert ("cut off" in TRANSITIONS[state]) == (state in LIVE)


def test_what_is_over_can_only_be_queued_again_and_only_that_can_be_queued():
    assert {state for state in STATES if "queued" in TRANSITIONS[state]} == set(OVER)
    assert all(TRANSITIONS[state] == ("queued",) for state in OVER)


def test_every_state_can_be_reached_from_a_queued_run():
    found = {"queued"}
    for _ in STATES:
        found |= {after for before in found for after in TRANSITIONS[before]}
    assert found == set(STATES)


def test_a_new_run_says_queued_although_it_is_so_already(runs):
    job = runs.job()
    assert job.state == "queued" and not (job.folder / "job.json").exists()
    job.set_state("queued")
    assert json.loads(files_of(job)["job.json"])["state"] == "queued"
