"""A run of the host's with a clip held out: measured before its checkpoints, judged after them, its best given out."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.events import HeldOut
from tandem_wan.training.monitors.curves import measured
from tandem_wan.training.monitors.effective_rank import ranks_of
from tandem_wan.training.monitors.held_out import HeldOutLoss
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import PruneSettings, RuleSettings
from tandem_wan.training.records import event_lines
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.lora.files import read_metadata, tandem_metadata
from tandem_wan.wan.lora.pairing import find_pair

pytestmark = pytest.mark.comfy

# What is measured on the held-out clip, by step: high noise is best at 2, low noise at 4, neither at the end.
LOSSES = {
    "high_noise": {0: 0.5, 1: 0.4, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5},
    "low_noise": {0: 0.5, 1: 0.4, 2: 0.4, 3: 0.3, 4: 0.1, 5: 0.3},
}


@pytest.fixture
def places(monkeypatch, tmp_path, request):
    """Folders of the host's own for one test."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    folders = [tmp_path / "loras", tmp_path / "output" / "tandem"]
    roots = ([str(folder) for folder in folders], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", roots)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("tandem_wan.nodes.host.run.save_pictures", lambda job: None)
    return SimpleNamespace(loras=folders[0])


@pytest.fixture
def drawn():
    """For a test that looks at a run's pictures too."""


@pytest.fixture
def setup_of(pair, vae, clip, clips):
    def make(**changes):
        setup = rig.setup(pair, vae, clip, clips)
        usual = {"steps": 5, "swap_every": 1, "save_every": 1, "held_out": 1}
        return replace(setup, plan=replace(setup.plan, **(usual | changes)))

    return make


@pytest.fixture
def told_losses(monkeypatch):
    """Held-out losses as in `LOSSES` instead of measured ones."""
    measure = HeldOutLoss.__call__

    def call(self, step, trainers, seat, listen):
        def tell(event):
            listen(replace(event, loss=LOSSES[event.role][event.step], trained=0.1))

        measure(self, step, trainers, seat, tell)

    monkeypatch.setattr(HeldOutLoss, "__call__", call)


class StopAfter(Turns):
    """Ends a run before the piece of work that would follow the checkpoint of a step."""

    def __init__(self, job, step):
        self.job, self.step = job, step

    def over(self):
        return max(self.job.store.steps(), default=0) >= self.step

    def wait(self):
        raise RunStopped


def work(setup, name, turns=None):
    from tandem_wan.nodes.host.run import open_run, work_of

    job = open_run(setup, name)
    if job.state in ("stopped", "cut off"):
        job.set_state("queued")
    job.claim()
    try:
        end = work_of(setup, job)(turns(job) if turns else Turns())
        job.set_state("running")
        job.set_state("stopping")
        job.set_state(end)
    finally:
        job.release()
    return job


def published(places, name, roles=("high_noise", "low_noise")):
    files = {role: places.loras / f"{name}_{role}.safetensors" for role in roles}
    return {role: tandem_metadata(read_metadata(file))["step"] for role, file in files.items()}


def result(job, monkeypatch, **inputs):
    from tandem_wan.nodes import job as nodes_job
    from tandem_wan.nodes.job import TandemJobResult

    monkeypatch.setattr(TandemJobResult, "hidden", SimpleNamespace(unique_id=None), raising=False)
    monkeypatch.setattr(nodes_job, "run_values", lambda job: [])
    stack, high, low, report = TandemJobResult.execute(job, unfinished="latest", **inputs).result
    return SimpleNamespace(stack=stack, high=high, low=low, report=report.splitlines())


def status_of(job, setup, monkeypatch):
    """The trainer's, queued again over a run that is done."""
    from tandem_wan.nodes import trainer
    from tandem_wan.nodes.trainer import TandemTrainer

    hidden = SimpleNamespace(unique_id=None, prompt=None, extra_pnginfo=None)
    monkeypatch.setattr(TandemTrainer, "hidden", hidden, raising=False)
    monkeypatch.setattr(trainer, "check_setup", lambda *args, **given: setup)
    monkeypatch.setattr(trainer, "with_start", lambda setup, *args: setup)
    monkeypatch.setattr(trainer.jobs, "start", lambda *args, **given: job)
    monkeypatch.setattr(trainer, "_preview", lambda picture, cls: None)
    given = TandemTrainer.execute(setup.plan, setup.dataset, None, setup.vae, job.name)
    return given.args[1].splitlines()


def test_a_clip_that_is_held_out_is_measured_and_decides(places, setup_of, monkeypatch, drawn):
    from tandem_wan.nodes.host import run

    setup = setup_of(steps=4, save_every=2)
    trained_on, build = [], run.build_trainers

    def built(plan, experts, samples, *more):
        trained_on.extend(samples[i].name for i in range(len(samples)))
        return build(plan, experts, samples, *more)

    monkeypatch.setattr(run, "build_trainers", built)
    job = work(setup, "held_out_here")
    assert job.state == "done"
    lines = list(event_lines(job.folder))
    held = [event for event in measured(lines) if isinstance(event, HeldOut)]
    assert [event.step for event in held] == [0, 0, 2, 2, 4, 4]
    names = [item.name for item in setup.dataset.clips]
    assert len(trained_on) == len(names) - 1 and set(trained_on) < set(names)
    kept = json.loads((job.folder / "verdict.json").read_text(encoding="utf-8"))["keep"]
    for role in job.plan.roles():
        best = min((e for e in held if e.role == role and e.step), key=lambda e: e.loss)
        assert (kept[role]["step"], kept[role]["loss"]) == (best.step, best.loss)
        assert [step for step, rank in ranks_of(lines)[role] if 1 <= rank <= 32] == [2, 4]
    assert Image.open(job.folder / "monitors.png").height == 800
    assert "keep step" in (job.folder / "run.log").read_text(encoding="utf-8")


def test_a_run_whose_best_is_not_its_last_publishes_and_gives_the_best(
    places, setup_of, told_losses, monkeypatch
):
    import folder_paths
    from tandem_wan.nodes.host.places import lora_path

    rule = RuleSettings(rule="low overpowers", level="log", armed_from=0.0)
    setup = setup_of(rules=(rule,))
    job = work(setup, "peaked")
    best = {"high_noise": 2, "low_noise": 4}
    assert job.store.steps() == [1, 2, 3, 4, 5]
    assert published(places, "peaked") == best
    given = result(job, monkeypatch)
    assert given.report[0] == "steps 2 (high noise) and 4 (low noise) of 5"
    assert given.report[1].startswith(
        "high noise: keep step 2: lowest held-out loss, 0.2000 (0.5000 without the LoRA, 0.5000 at step 5)"
    )
    assert given.report[2].startswith("low noise: keep step 4: lowest held-out loss, 0.1000")
    assert given.report[3].startswith("loss: high ")
    (found,) = [line for line in given.report if line.startswith("found: Low noise")]
    assert given.report.index(found) > 5 and "(1.5 or more is the goal)" in found
    for role, name in (("high_noise", given.high), ("low_noise", given.low)):
        assert f"step_{best[role]:06d}" in name
        entry = tandem_metadata(read_metadata(lora_path(name)))
        assert (entry["step"], entry["expert"]) == (best[role], role)
        assert (places.loras / f"peaked_{role}.safetensors").read_bytes() == lora_path(
            name
        ).read_bytes()
    (row,) = given.stack.rows
    assert (row.lora, row.lora_low) == (given.high, given.low)
    names = folder_paths.get_filename_list("loras")
    pairing = find_pair(
        "peaked_low_noise.safetensors", names, lambda n: read_metadata(lora_path(n))
    )
    assert (pairing.verdict, pairing.high) == ("pair", "peaked_high_noise.safetensors")
    status = status_of(job, setup, monkeypatch)
    assert status[0] == "peaked is trained already (5 steps); nothing was done again."
    assert status[1:4] == given.report[1:4]
    assert status[4] == "found: Low noise is overpowering motion (step 2)"
    assert status[5].startswith("video effect for 2 clips (1 held out): 4 warnings below; 5 steps")
    warnings = [place for place, line in enumerate(status) if line.startswith("Warning")]
    assert warnings and min(warnings) > 6
    last = result(job, monkeypatch, checkpoint="last")
    assert last.report[0] == "step 5 of 5" and "step_000005" in last.high


def test_a_run_that_is_cut_off_has_its_best_so_far_and_prunes_nothing_of_it(
    places, setup_of, told_losses, monkeypatch
):
    setup = setup_of(prune=PruneSettings(last=1))
    job = work(setup, "cut", lambda job: StopAfter(job, 3))
    assert (job.state, job.store.steps()) == ("stopped", [2, 3])
    assert published(places, "cut") == {"high_noise": 2, "low_noise": 3}
    assert result(job, monkeypatch).report[0] == "steps 2 (high noise) and 3 (low noise) of 5"
    # Killed between the renames of its published pair: one is of another step.
    job.store.publish({"high_noise": 3}, places.loras)
    job = work(setup, "cut")
    assert published(places, "cut") == {"high_noise": 2, "low_noise": 4}
    # The best, the last, and what a prompt may still have.
    assert job.store.steps() == [2, 3, 4, 5]
    assert result(job, monkeypatch).report[0] == "steps 2 (high noise) and 4 (low noise) of 5"
    from tandem_wan.nodes.host.results import settle

    settle(job, over=True)
    assert job.store.steps() == [2, 4, 5]


def test_pruning_leaves_what_a_run_of_motion_is_judged_best_by_when_it_ends(
    places, setup_of, monkeypatch
):
    """While it is on, nothing is measured and the last is published."""
    rules = "tandem_wan.training.monitors.verdict"
    monkeypatch.setattr(f"{rules}.BEST_OF_MOTION", (2, 3))
    monkeypatch.setattr(f"{rules}._before_low_outgrew", lambda *_: None)
    for name, prune in (("whole", PruneSettings()), ("pruned", PruneSettings(last=1))):
        work(setup_of(held_out=0, preset="motion 4x", prune=prune), name)
    assert published(places, "pruned") == published(places, "whole")
    assert published(places, "whole") == {"high_noise": 3, "low_noise": 3}


def test_without_a_held_out_loss_the_last_is_best_and_the_report_says_why(
    places, setup_of, monkeypatch
):
    job = work(setup_of(held_out=0, steps=2), "unmeasured", lambda job: StopAfter(job, 1))
    job.state = "running"
    headline, stands, said, *_ = result(job, monkeypatch).report
    assert headline == "step 1 of 2" and stands == "unmeasured is running, step 1 of 2"
    assert said.startswith("best is the last checkpoint so far")
    job.state = "stopped"
    assert published(places, "unmeasured") == {"high_noise": 1, "low_noise": 1}
    job = work(setup_of(held_out=0, steps=2), "unmeasured")
    given = result(job, monkeypatch)
    assert published(places, "unmeasured") == {"high_noise": 2, "low_noise": 2}
    assert given.report[:2] == [
        "step 2 of 2",
        "keep step 2: an effect is strong at epoch 15 and done at 20; earlier is weaker; nothing was held out, so "
        "nothing tells which is best",
    ]


def test_the_gap_is_told_to_clips_that_teach_and_not_to_those_for_regularisation():
    from tandem_wan.nodes.host.run import _held_out_places, _taught_places

    clips = [
        SimpleNamespace(regularisation=kind == "r", digest=str(place))
        for place, kind in enumerate("trtrttr")
    ]
    dataset = SimpleNamespace(clips=clips)
    setup = SimpleNamespace(dataset=dataset, plan=TrainingPlan(held_out=1))
    (held,) = _held_out_places(setup)
    assert held in (0, 2, 4, 5)
    assert _taught_places(setup, (held,)) == [i for i in (0, 2, 4, 5) if i != held]
