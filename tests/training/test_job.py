"""A run on disk is found again as what it was; another run under its name is told apart."""

import json
import os
from dataclasses import replace

import pytest
from tandem_wan.training.events import CheckpointSaved, StateChanged, StepDone
from tandem_wan.training.job import Identity, Job, _what_is_trained, checked_name, open_job
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.reading import read_plan
from tandem_wan.training.plans.settings import ExpertSettings, PatternSettings, PruneSettings
from tandem_wan.wan.errors import UserError

IDENTITY = Identity(
    name="mermaid",
    plan=TrainingPlan(steps=40, family="wan 2.2 A14B"),
    dataset="d1",
    base=(("high_noise", "b1"), ("low_noise", "b2")),
    vae="v1",
    text_encoder="t1",
)


def done(step: int, loss: float, role: str = "high_noise") -> StepDone:
    return StepDone(
        step=step, steps=40, role=role, loss=loss, grad_norm=1.0, rate=1e-4, seconds=0.1
    )


def finish(job: Job) -> Job:
    job.set_state("running")
    job.set_state("done")
    return job


def with_checkpoint(job: Job, step: int) -> None:
    (job.folder / f"step_{step:06d}").mkdir()


def test_a_new_run_has_a_folder_with_its_plan(tmp_path):
    job = open_job(tmp_path, IDENTITY)
    assert (job.state, job.step) == ("queued", 0)
    assert job.folder == tmp_path / "mermaid"
    plan = read_plan((job.folder / "plan.json").read_text(encoding="utf-8"))
    assert plan == IDENTITY.plan


def test_a_finished_run_is_found_done_at_its_last_step(tmp_path):
    job = open_job(tmp_path, IDENTITY)
    job.set_state("running")
    with_checkpoint(job, 40)
    job.listen(done(40, 0.1))
    job.set_state("done")
    again = open_job(tmp_path, IDENTITY)
    assert (again.state, again.step) == ("done", 40)


def test_a_finished_run_without_its_checkpoints_is_not_done(tmp_path):
    job = open_job(tmp_path, IDENTITY)
    job.listen(done(40, 0.1))
    finish(job)
    assert open_job(tmp_path, IDENTITY).state != "done"


def test_a_killed_run_is_found_cut_off(tmp_path):
    job = open_job(tmp_path, IDENTITY)
    job.set_state("running")
    job.listen(done(7, 0.1))
    assert open_job(tmp_path, IDENTITY).state == "cut off"


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_run_that_ended_early_is_found_as_it_ended(tmp_path, state):
    job = open_job(tmp_path, IDENTITY)
    job.listen(done(7, 0.1))
    job.set_state(state, "why")
    again = open_job(tmp_path, IDENTITY)
    assert (again.state, again.step) == (state, 7)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dataset": "d2"}, "another dataset"),
        ({"base": (("high_noise", "b1"), ("low_noise", "b3"))}, "another base"),
        ({"vae": "v2"}, "another vae"),
        ({"text_encoder": "t2"}, "another text encoder"),
        ({"plan": replace(IDENTITY.plan, steps=50)}, "steps: 50 now, 40 before"),
        ({"plan": replace(IDENTITY.plan, shift=3.0)}, "shift: 3.0 now, 5.0 before"),
        ({"plan": replace(IDENTITY.plan, high=ExpertSettings(rate=3e-4))}, "high.rate: "),
    ],
)
def test_another_run_under_the_name_is_refused_with_what_differs(tmp_path, changes, named):
    finish(open_job(tmp_path, IDENTITY))
    with pytest.raises(UserError) as caught:
        open_job(tmp_path, replace(IDENTITY, **changes))
    assert named in caught.value.came
    assert caught.value.came.count("another ") == 1 + named.startswith("another "), "and no more"
    assert "Choose another name" in caught.value.to_do


def test_all_differences_are_named_at_once(tmp_path):
    finish(open_job(tmp_path, IDENTITY))
    other = replace(IDENTITY, dataset="d2", vae="v2", plan=replace(IDENTITY.plan, seed=1))
    with pytest.raises(UserError, match="another dataset; another vae; seed: 1 now, 0 before"):
        open_job(tmp_path, other)


def test_a_refused_run_leaves_the_old_one_untouched(tmp_path):
    job = finish(open_job(tmp_path, IDENTITY))
    before = {path.name: path.read_bytes() for path in job.folder.iterdir()}
    with pytest.raises(UserError):
        open_job(tmp_path, replace(IDENTITY, dataset="d2"))
    assert before == {path.name: path.read_bytes() for path in job.folder.iterdir()}


def test_the_id_is_equal_for_equal_runs_and_another_for_every_change():
    changes = [
        {},
        {"name": "siren"},
        {"dataset": "d2"},
        {"base": (("high_noise", "b2"), ("low_noise", "b1"))},
        {"vae": "v2"},
        {"text_encoder": "t2"},
        {"plan": replace(IDENTITY.plan, seed=1)},
    ]
    ids = {replace(IDENTITY, **change).job_id() for change in changes}
    assert len(ids) == len(changes)
    assert replace(IDENTITY).job_id() == IDENTITY.job_id()
    assert all(len(i) == 16 and int(i, 16) >= 0 for i in ids)


def test_a_list_of_settings_counts_by_what_is_not_as_usual():
    """A later version may know more values of a pattern or a phase."""
    plan = replace(IDENTITY.plan, patterns=(PatternSettings(pattern="a", rank=4),))
    told = _what_is_trained(plan)["patterns"]
    assert told == [{"pattern": "a", "rank": 4}]
    other = replace(plan, patterns=(PatternSettings(pattern="a", rank=5),))
    assert replace(IDENTITY, plan=plan).job_id() != replace(IDENTITY, plan=other).job_id()


def test_a_run_that_goes_on_otherwise_kept_says_so_in_its_plan(tmp_path):
    open_job(tmp_path, IDENTITY).set_state("running")
    plan = replace(IDENTITY.plan, prune=PruneSettings(last=3))
    job = open_job(tmp_path, replace(IDENTITY, plan=plan))
    job.claim()
    job.release()
    assert read_plan((job.folder / "plan.json").read_text(encoding="utf-8")) == plan


def test_what_trains_nothing_is_not_named_as_a_difference(tmp_path):
    finish(open_job(tmp_path, IDENTITY))
    plan = replace(IDENTITY.plan, seed=1, notes=("x",), prune=PruneSettings(last=3))
    with pytest.raises(UserError, match="seed: 1 now, 0 before") as refused:
        open_job(tmp_path, replace(IDENTITY, plan=plan))
    assert "notes" not in str(refused.value) and "prune" not in str(refused.value)


@pytest.mark.parametrize("changes", [{"notes": ("reworded",)}, {"allow_long": True}])
def test_what_does_not_change_the_training_makes_no_other_run(tmp_path, changes):
    finish(open_job(tmp_path, IDENTITY))
    other = replace(IDENTITY, plan=replace(IDENTITY.plan, **changes))
    assert other.job_id() == IDENTITY.job_id()
    assert open_job(tmp_path, other).id == IDENTITY.job_id()


def test_losses_are_told_by_expert_and_a_repeated_step_counts_as_done_last(tmp_path):
    job = open_job(tmp_path, IDENTITY)
    for event in (
        StateChanged(state="running", step=0),
        done(1, 0.5),
        done(2, 0.4, "low_noise"),
        CheckpointSaved(step=2, files={"high_noise": "x"}),
        done(3, 0.3),
        done(2, 0.35, "low_noise"),
        done(3, 0.25),
    ):
        job.listen(event)
    assert job.losses() == {"high_noise": [(1, 0.5), (3, 0.25)], "low_noise": [(2, 0.35)]}
    assert job.step == 3


def test_a_checkpoint_says_how_far_a_run_came_before_the_event_of_its_step(tmp_path):
    job = open_job(tmp_path, IDENTITY)
    job.listen(CheckpointSaved(step=7, files={}))
    job.set_state("stopped")
    assert (job.step, open_job(tmp_path, IDENTITY).step) == (7, 7)


def test_the_log_tells_a_run_and_leaves_out_how_it_took_turns(tmp_path):
    job = open_job(tmp_path, IDENTITY)
    job.claim()
    for state in ("queued", "running", "parked", "running", "stopping", "stopped"):
        job.set_state(state, "so it is")
    job.release()
    lines = (job.folder / "run.log").read_text(encoding="utf-8").splitlines()
    told = [line.split("mermaid is ")[1] for line in lines]
    words = "at step 0 of 40. so it is"
    assert told == [f"{state} {words}" for state in ("queued", "stopping", "stopped")]
    events = (job.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(events) == 6


def test_a_new_run_has_no_losses(tmp_path):
    assert open_job(tmp_path, IDENTITY).losses() == {"high_noise": [], "low_noise": []}


@pytest.mark.parametrize("kept", [1, 20, -2, -1])
def test_a_half_written_last_line_costs_that_line_alone(tmp_path, kept):
    job = open_job(tmp_path, IDENTITY)
    log = job.folder / "events.jsonl"
    job.listen(done(1, 0.5))
    whole = log.read_bytes()
    job.listen(done(2, 0.4))
    log.write_bytes(whole + log.read_bytes()[len(whole) :][:kept])
    resumed = open_job(tmp_path, IDENTITY)
    resumed.listen(done(2, 0.45))
    resumed.listen(done(3, 0.3))
    assert resumed.losses()["high_noise"] == [(1, 0.5), (2, 0.45), (3, 0.3)]


def test_each_event_is_one_line_of_json_with_its_name(tmp_path):
    job = open_job(tmp_path, IDENTITY)
    job.listen(done(1, 0.5))
    job.set_state("stopped", "because\nof you")
    lines = (job.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = map(json.loads, lines)
    assert (first["event"], first["step"], first["loss"]) == ("StepDone", 1, 0.5)
    assert (second["event"], second["state"]) == ("StateChanged", "stopped")
    assert second["message"] == "because\nof you"


def test_a_crash_while_the_record_is_written_leaves_the_old_record(tmp_path, monkeypatch):
    job = open_job(tmp_path, IDENTITY)
    job.set_state("stopped")

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space"):
            job.set_state("queued")
    assert open_job(tmp_path, IDENTITY).state == "stopped"
    assert not list(job.folder.glob(".*"))


def test_a_record_that_is_no_json_is_named(tmp_path):
    job = open_job(tmp_path, IDENTITY)
    (job.folder / "job.json").write_text("{", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"job\.json cannot be read: it is not JSON.*Move the folder away"
    ):
        open_job(tmp_path, IDENTITY)


def test_metadata_says_which_run_it_was_and_is_json(tmp_path):
    metadata = open_job(tmp_path, IDENTITY).metadata("MERMAID")
    assert metadata["name"] == "mermaid"
    assert metadata["trigger"] == "MERMAID"
    assert metadata["pair_id"] == IDENTITY.job_id()
    assert metadata["base"] == {"high_noise": "b1", "low_noise": "b2"}
    assert (metadata["dataset"], metadata["boundary"], metadata["shift"]) == ("d1", 0.9, 5.0)
    assert read_plan(json.dumps(metadata["plan"])) == IDENTITY.plan


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", "..", ".", "", " ", ".hidden", "x.", "x ", "-x", "_x", "C:x", "a\nb",
     "a\x00b", "/etc/x", "~x", "x" * 101, "a*b", "Zürich"],
)  # fmt: skip
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"for example mermaid_v1") as caught:
        checked_name(name)
    assert repr(name) in caught.value.came
    with pytest.raises(UserError):
        open_job(tmp_path / "jobs", replace(IDENTITY, name=name))
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("name", ["mermaid_v1", "A", "0", "a.b-c d_e", "x" * 100, "a..b"])
def test_a_plain_name_is_kept_as_it_is(tmp_path, name):
    assert checked_name(name) == name
    assert open_job(tmp_path, replace(IDENTITY, name=name)).folder.parent == tmp_path
