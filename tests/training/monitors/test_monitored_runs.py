"""Runs that are watched, from the first step to the verdict: stopped, killed, gone on with."""

import json
from dataclasses import replace

import pytest
from tandem_wan.training.events import CheckpointSaved, Finding, HeldOut, StepDone
from tandem_wan.training.expert_trainer import build_trainers
from tandem_wan.training.listing import job_details, list_jobs
from tandem_wan.training.loop import train
from tandem_wan.training.monitors.curves import measured
from tandem_wan.training.monitors.held_out import HeldOutLoss, divided
from tandem_wan.training.monitors.monitor import Monitor, monitor_of
from tandem_wan.training.monitors.verdict import verdict_of, write_verdict
from tandem_wan.training.records import event_lines
from tandem_wan.training.samples import ListedSamples
from tandem_wan.training.turns import Turns

LIMIT_S = 20.0
PLAN = {"preset": "motion 4x", "steps": 12, "save_every": 4, "swap_every": 2, "dropout": 0.2}


@pytest.fixture
def watched(toys):
    """work(job) as the host does it: resumed, monitored, two clips held out. `pieces` are counted in `seen`."""

    def work_of(job, condition=lambda pieces: False, seen=None):
        seen = [0] if seen is None else seen

        def before(call):
            seen[0] += 1

        def work(turns=None):
            shown, held = divided(ListedSamples(toys.clips(6)), (1, 4))
            trainers = build_trainers(job.plan, toys.experts(job.plan), shown)
            for trainer in trainers.values():
                trainer.expert.before_velocity = before
            job.step = job.store.resume(trainers)

            def save(step, trainers):
                if step > 0:
                    job.store.save(step, trainers, job.metadata("T"))
                    job.listen(CheckpointSaved(step=step, files={}))

            return train(
                job.plan,
                trainers,
                save=save,
                listen=job.listen,
                first_step=job.step,
                turns=turns or toys.stop_when(lambda: condition(seen[0])),
                monitor=monitor_of(job.plan, event_lines(job.folder), job.step),
                held_out=HeldOutLoss(job.plan, held, shown),
            )

        return work

    return work_of


def told(job):
    """What the run has measured and found, without how long it took."""
    lines = list(event_lines(job.folder))
    events = [replace(e, seconds=0.0) if isinstance(e, StepDone) else e for e in measured(lines)]
    return events, [(e["step"], e["text"]) for e in lines if e["event"] == "Finding"]


def test_a_run_that_is_stopped_anywhere_measures_and_finds_the_same(runs, watched):
    """Before each of its pieces of work in turn: micro-batches, and evaluations of held-out clips."""
    whole, pieces = runs.job("whole", **PLAN), [0]
    assert watched(whole, seen=pieces)() == "done"
    expected = told(whole)
    assert len([e for e in expected[0] if isinstance(e, HeldOut)]) == 8
    assert {text.split(" (")[0] for _, text in expected[1]} >= {"Low noise is overpowering motion"}
    for at in range(3, pieces[0], 7):
        job = runs.job(f"stopped at {at}", **PLAN)
        assert watched(job, lambda made, at=at: made >= at)() == "stopped"
        assert watched(job)() == "done"
        assert told(job) == expected, f"stopped before piece {at + 1}"


def test_a_run_that_was_killed_measures_and_finds_the_same(runs, watched, toys):
    class Killed(BaseException):
        pass

    whole = runs.job("whole", **PLAN)
    watched(whole)()
    for at in (70, 100, 130):
        job = runs.job(f"killed at {at}", **PLAN)

        def kill(made, at=at):
            if made >= at:
                raise Killed
            return False

        with pytest.raises(Killed):
            watched(job, kill)()
        assert watched(job)() == "done"
        assert told(job) == told(whole)


def test_a_rule_that_stops_a_run_saves_it_and_says_why_and_it_can_go_on(runs, watched):
    job = runs.job(**PLAN, stop_on=("low overpowers",))
    run = runs.runner.submit(job, watched(job))
    assert run.finished.wait(LIMIT_S) and run.error is None
    stopped = [e for e in event_lines(job.folder) if e.get("state") == "stopped"][-1]
    finding = next(e for e in event_lines(job.folder) if e.get("rule") == "low overpowers")
    assert (job.state, stopped["step"]) == ("stopped", finding["step"])
    assert stopped["message"] == finding["text"] and finding["step"] >= 6
    assert job.store.steps()[-1] == finding["step"]
    assert finding["text"] in list_jobs(runs.runner, runs.root)[0].text
    again = runs.job(**PLAN, stop_on=("low overpowers",))
    run = runs.runner.submit(again, watched(again))
    assert run.finished.wait(LIMIT_S) and again.state == "done"


def test_what_ends_a_run_is_no_part_of_what_it_is(runs):
    job = runs.job(**PLAN, stop_on=("overtraining",))
    assert runs.job(**PLAN).id == job.id
    assert runs.job("other", **PLAN, held_out=1).id != runs.job("other 2", **PLAN).id


def test_a_stop_by_a_rule_keeps_the_last_whole_step(toys):
    plan = toys.plan(**PLAN, stop_on=("low overpowers",))
    trainers, saved, heard = toys.trainers(plan), [], []
    end = train(
        plan,
        trainers,
        save=lambda step, t: saved.append((step, toys.weights(t))),
        listen=heard.append,
        turns=Turns(),
        monitor=Monitor(plan),
    )
    assert end == "stopped" and isinstance(heard[-1], Finding)
    step = heard[-1].step
    plain = toys.trainers(plan)
    train(replace(plan, steps=step), plain, save=lambda *a: None, listen=lambda e: None)
    assert saved[-1][0] == step and toys.same(saved[-1][1], toys.weights(plain))


def test_a_watched_run_is_listed_with_its_verdict_and_findings(runs, watched):
    job = runs.job(**PLAN)
    run = runs.runner.submit(job, watched(job))
    assert run.finished.wait(LIMIT_S)
    verdict = verdict_of(job.plan, event_lines(job.folder))
    write_verdict(job.folder, verdict)
    assert verdict.text() in list_jobs(runs.runner, runs.root)[0].text
    assert job_details(runs.runner, runs.root, job.id).findings == list(verdict.findings)
    kept = json.loads((job.folder / "verdict.json").read_text(encoding="utf-8"))["keep"]
    losses = [e for e in measured(event_lines(job.folder)) if isinstance(e, HeldOut) and e.step]
    for role in job.plan.roles():
        lowest = min((e for e in losses if e.role == role), key=lambda e: e.loss)
        assert kept[role]["step"] == lowest.step


def test_every_step_has_the_mean_weight_of_its_own_expert(toys):
    plan = toys.plan(steps=6)
    trainers, seen = toys.trainers(plan), []

    def listen(event):
        factors = trainers[event.role].adapters.parameters()
        entries = [abs(v) for p in factors for v in p.detach().flatten().tolist()]
        seen.append((event.weight, sum(entries) / len(entries)))

    train(plan, trainers, save=lambda *a: None, listen=listen)
    assert len(seen) == 6
    assert all(ours == pytest.approx(plain, rel=1e-5) for ours, plain in seen)
