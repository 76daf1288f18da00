"""The nodes that write a plan for another trainer and read one: files, sockets, and what the queue refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.comfy
CONFIG = """epochs = 250
micro_batch_size_per_gpu = 1
save_every_n_epochs = 25
[model]
type = 'wan'
ckpt_path = '/models/Wan2.1-T2V-14B'
[adapter]
type = 'lora'
rank = 32
[optimizer]
type = 'adamw'
lr = 3e-5
"""
FOLDER = "resolutions = [[832, 480]]\nenable_ar_bucket = true\nframe_buckets = [49]\n[[directory]]\npath = '/clips'\n"


@pytest.fixture
def output(comfy, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path / "tandem_plans"


@pytest.fixture
def export(comfy):
    from tandem_wan.nodes.plan_interop import TandemExportPlan

    return TandemExportPlan.PREPARE_CLASS_CLONE(None)


@pytest.fixture
def read(comfy):
    from tandem_wan.nodes.plan_interop import TandemImportPlan

    return TandemImportPlan.PREPARE_CLASS_CLONE(None)


def dataset(count=16):
    from tandem_wan.training.data.dataset import Clip, Dataset
    from tandem_wan.wan.shapes import ClipSize

    clips = tuple(
        Clip(path=Path(f"{n}.mp4"), caption="a", frames=49, digest="") for n in range(count)
    )
    return Dataset(
        folder=Path("/clips"), clips=clips, size=ClipSize(832, 480, 49), fps=16.0, trigger="X"
    )


@pytest.mark.parametrize("trainer", ["diffusion-pipe", "ai-toolkit", "musubi-tuner"])
def test_what_one_node_writes_the_other_reads(export, read, output, trainer):
    from tandem_wan.training.plans.plan import TrainingPlan

    plan = TrainingPlan(steps=333, seed=7)
    text, report = export.execute(plan, trainer, dataset(), "mermaid").result
    folder = output / f"mermaid_{trainer}"
    assert str(folder) in report
    joined = "\n".join(f"# file: {p.name}\n{p.read_text()}" for p in sorted(folder.iterdir()))
    for pasted in (text, joined):
        found, _, where, width, height, frames = read.execute(pasted).result
        assert found == plan
        assert (where, width, height, frames) == ("/clips", 832, 480, 49)


def test_without_a_name_nothing_is_written(export, output):
    from tandem_wan.training.plans.plan import TrainingPlan

    export.execute(TrainingPlan(), "ai-toolkit")
    assert not output.exists()


def test_the_verdict_counts_the_connected_dataset(read):
    plan, report, folder, *size = read.execute(CONFIG, FOLDER, dataset=dataset()).result
    assert plan.steps == 4000
    assert "12.5 times" in report
    assert (folder, size) == ("/clips", [832, 480, 49])


def test_a_text_is_parsed_once_when_it_is_queued_and_run(read, monkeypatch):
    from tandem_wan.training.interop import documents

    parsed, parse = [], documents.read_tables
    monkeypatch.setattr(documents, "read_tables", lambda *text: parsed.append(text) or parse(*text))
    config = CONFIG.replace("epochs = 250", "epochs = 20")
    assert read.validate_inputs(text=config, dataset_text=FOLDER, clips=16) is True
    plan, *_ = read.execute(config, FOLDER, 16).result
    assert (plan.steps, len(parsed)) == (320, 2)


def test_both_experts_commands_in_one_text_are_a_plan_of_both(read):
    command = "python wan_train_network.py --task t2v-A14B --dit x --max_train_steps 20"
    text = f"{command} --min_timestep 875 2>&1 | tee a.log\n{command} --max_timestep 875"
    plan, *_ = read.execute(text).result
    assert (plan.train, plan.steps) == ("both", 40)


def test_the_queue_refuses_what_cannot_be_read(read, export):
    assert "TOML in line 2" in read.validate_inputs(text="epochs = 3\n[model\n")
    assert "is empty" in read.validate_inputs(text="")
    assert "Set clips" in read.validate_inputs(text=CONFIG)
    assert read.validate_inputs(text=CONFIG, clips=16) is True
    # Over a link everything is None until it arrives.
    assert read.validate_inputs(text=None) is True
    assert read.validate_inputs(text=CONFIG, dataset=None) is True
    assert "TOML" in read.validate_inputs(text="epochs = 3\n[model\n", dataset=None)
    assert "The name of the exported plan" in export.validate_inputs(name="../up")
    assert export.validate_inputs(name="") is True and export.validate_inputs(name=None) is True
