"""A run of the host's with a clip held out: measured before its checkpoints, drawn and judged at its end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.events import HeldOut
from tandem_wan.training.monitors.curves import measured
from tandem_wan.training.records import event_lines
from tandem_wan.training.turns import Turns

pytestmark = pytest.mark.comfy


def test_a_clip_that_is_held_out_is_measured_and_decides(
    comfy, pair, vae, clip, clips, monkeypatch, tmp_path
):
    import folder_paths
    from tandem_wan.nodes.host import run
    from tandem_wan.nodes.host.run import open_run, work_of

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    roots = ([str(tmp_path / "loras")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", roots)
    setup = rig.setup(pair, vae, clip, clips)
    plan = replace(setup.plan, steps=4, swap_every=1, save_every=2, held_out=1)
    setup = replace(setup, plan=plan)
    trained_on, build = [], run.build_trainers

    def built(plan, experts, samples):
        trained_on.extend(samples[i].name for i in range(len(samples)))
        return build(plan, experts, samples)

    monkeypatch.setattr(run, "build_trainers", built)
    job = open_run(setup, "held_out_here")
    job.claim()
    try:
        assert work_of(setup, job)(Turns()) == "done"
        events = measured(event_lines(job.folder))
        held = [event for event in events if isinstance(event, HeldOut)]
        assert [event.step for event in held] == [0, 0, 2, 2, 4, 4]
        names = [item.name for item in setup.dataset.clips]
        assert len(trained_on) == len(names) - 1 and set(trained_on) < set(names)
        kept = json.loads((job.folder / "verdict.json").read_text(encoding="utf-8"))["keep"]
        for role in plan.roles():
            best = min((e for e in held if e.role == role and e.step), key=lambda e: e.loss)
            assert (kept[role]["step"], kept[role]["loss"]) == (best.step, best.loss)
        assert Image.open(job.folder / "monitors.png").size == (1200, 800)
        assert "keep step" in (job.folder / "run.log").read_text(encoding="utf-8")
    finally:
        job.release()
