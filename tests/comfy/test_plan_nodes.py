"""The nodes around plans, and the estimate against the host's own network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.data.dataset import Clip, Dataset
from tandem_wan.training.plans.budget import make_plan
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.reading import plan_json
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

pytestmark = pytest.mark.comfy


def dataset(num_clips=16, frames=81, **more):
    clips = tuple(
        Clip(path=Path(f"{i}.mp4"), caption="a b", frames=frames, digest=str(i), **more)
        for i in range(num_clips)
    )
    return Dataset(folder=Path("clips"), clips=clips, size=ClipSize(832, 480, frames), fps=16)


def run(node, **inputs):
    """As the host calls it, with every default that the schema tells."""
    schema = node.define_schema()
    defaults = {i.id: i.default for i in schema.inputs if i.optional and hasattr(i, "default")}
    return node.execute(**{k: v for k, v in defaults.items() if v is not None} | inputs).result


@pytest.fixture
def nodes(comfy, monkeypatch, tmp_path):
    import folder_paths
    from tandem_wan.nodes import plan, plan_files, plan_form

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))

    class Nodes:
        auto, edit = plan.TandemAutoParameters, plan.TandemEditPlan
        form = plan_form.TandemPlanForm
        save, load = plan_files.TandemSavePlan, plan_files.TandemLoadPlan
        compare = plan_files.TandemComparePlans
        folder = tmp_path / "tandem_plans"

    class NoHidden:
        unique_id = None
        prompt = None
        extra_pnginfo = None

    for node in (Nodes.auto, Nodes.edit, Nodes.form, Nodes.save, Nodes.load, Nodes.compare):
        monkeypatch.setattr(node, "hidden", NoHidden, raising=False)
    return Nodes


def test_the_summary_has_budget_reasons_warnings_and_an_estimate(nodes):
    plan, summary, _ = run(nodes.auto, dataset=dataset(), preset="video effect")
    assert plan == make_plan(dataset(), "video effect")
    assert summary.startswith("Verdict: ")
    assert "160 steps (320 iterations at batch 1, accumulate 2; 20.0 epochs" in summary
    assert "  steps 160: 20 epochs: first signs at 5" in summary
    assert "Estimate for" in summary and "Wan 14B in bf16" in summary
    assert "  time: " in summary and "device memory:" in summary and "disk:" in summary


def test_epochs_steps_and_allow_long_reach_the_plan(nodes):
    given = {"dataset": dataset(), "preset": "video effect"}
    plan, summary, _ = run(nodes.auto, **given, epochs=250.0)
    assert plan.steps == 2000 and "Refused: 250 epochs are 12.5 times" in summary
    plan, summary, _ = run(nodes.auto, **given, epochs=250.0, allow_long=True)
    assert plan.allow_long and "Warning: 250 epochs are 12.5 times" in summary
    assert run(nodes.auto, **given, steps=77)[0].steps == 77
    assert "Set one of them to 0" in nodes.auto.validate_inputs(epochs=3.0, steps=4)
    assert nodes.auto.validate_inputs(epochs=None, steps=4) is True


def test_a_connected_model_is_estimated_by_its_own_size(nodes, pair):
    _, summary, _ = run(nodes.auto, dataset=dataset(), preset="character", model=pair["high_noise"])
    assert "the connected model (width 128, 4 blocks)" in summary


def test_the_form_keeps_what_is_not_touched_and_changes_what_is(nodes):
    plan = make_plan(dataset(), "general video")
    assert run(nodes.form, plan=plan)[0] == plan
    edited, summary = run(
        nodes.form,
        plan=plan,
        epochs=18.0,
        batch=2,
        accumulate=1,
        rank=16,
        dropout=0.0,
        rate_high=2e-4,
        optimizer="adamw",
        shift=8.0,
        caption_dropout=0.05,
        save_every=50,
        train="low",
        allow_long="on",
        checkpoint_blocks="off",
        dataset=dataset(),
    )
    assert (edited.steps, edited.batch, edited.accumulate) == (144, 2, 1)
    assert (edited.lora.rank, edited.lora.alpha) == (16, 8.0)
    assert (edited.high.rate, edited.low.rate) == (2e-4, 1e-4)
    assert (edited.optimizer.name, edited.shift, edited.save_every) == ("adamw", 8.0, 50)
    assert (edited.caption_dropout, edited.train) == (0.05, "low")
    assert edited.allow_long and not edited.checkpoint_blocks
    assert "18.0 epochs" in summary and "Changed by hand: steps" in summary


def test_each_widget_of_the_form_changes_one_thing(nodes):
    plan = replace(make_plan(dataset(), "general video"), caption_dropout=0.2)
    untouched = plan_json(replace(plan, notes=()))
    widgets = {
        "steps": 5,
        "batch": 3,
        "accumulate": 7,
        "alpha": 3.0,
        "dropout": 0.5,
        "rate_high": 0.1,
        "rate_low": 0.1,
        "optimizer": "automagic",
        "shift": 1.0,
        "caption_dropout": 0.0,
        "save_every": 9,
        "train": "high",
        "allow_long": "on",
        "checkpoint_blocks": "off",
        "order": "joint",
        "held_out": 2,
        "keep_checkpoints": 5,
        "swap_blocks": 4,
        "offload_activations": "on",
    }
    inputs = {each.id for each in nodes.form.GET_SCHEMA().inputs}
    assert inputs - set(widgets) == {"plan", "dataset", "epochs", "rank"}
    for name, value in widgets.items():
        edited = json.loads(
            plan_json(replace(run(nodes.form, plan=plan, **{name: value})[0], notes=()))
        )
        before = json.loads(untouched)
        changed = [key for key in before if before[key] != edited[key]]
        assert len(changed) == 1, (name, changed)


def test_epochs_on_the_form_need_the_dataset(nodes):
    plan = make_plan(dataset(), "general video")
    with pytest.raises(UserError, match="no dataset is connected"):
        run(nodes.form, plan=plan, epochs=18.0)
    assert "Set one of them to 0" in nodes.form.validate_inputs(steps=3, epochs=2.0)


def test_a_plan_is_saved_offered_loaded_and_compared(nodes):
    plan = make_plan(dataset(), "motion 3x")
    (path,) = run(nodes.save, plan=plan, name="swim")
    assert path == str(nodes.folder / "swim.json")
    (again,) = run(nodes.save, plan=replace(plan, steps=5), name="swim")
    assert again == str(nodes.folder / "swim_2.json")
    (combo,) = [i for i in nodes.load.define_schema().inputs if i.id == "name"]
    assert combo.options == ["none", "swim", "swim_2"]
    loaded, summary, text = run(nodes.load, name="swim")
    assert loaded == plan and json.loads(text)["steps"] == 2200
    assert "2200 steps" in summary
    _, summary, _ = run(nodes.load, name="swim", dataset=dataset())
    assert "137.5 epochs" in summary
    (report,) = run(nodes.compare, plan_a=plan, plan_b=run(nodes.load, name="swim_2")[0])
    assert "steps: 2200 in a, 5 in b" in report


def test_a_pasted_plan_goes_before_the_name(nodes):
    pasted = plan_json(replace(TrainingPlan(), steps=3))
    assert run(nodes.load, name="not there", plan=pasted)[0].steps == 3


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"plan": '{"version": 1, "stepz": 1}'}, "The plan has stepz"),
        ({"plan": '{"version": 1, "lora": {"rnak": 1}}'}, "Is lora.rank meant?"),
        ({"plan": "{"}, "not JSON"),
        ({}, "No plan is given"),
        ({"name": "gone"}, "No plan is saved as 'gone'"),
        ({"name": "../gone"}, "The plan's name is '../gone'"),
    ],
)
def test_what_cannot_be_loaded_is_refused_when_the_prompt_is_queued(nodes, inputs, said):
    assert said in nodes.load.validate_inputs(**{"name": "none", "plan": "", **inputs})


def test_a_bad_name_is_refused_when_the_prompt_is_queued_and_a_linked_one_later(nodes):
    assert "The plan's name is" in nodes.save.validate_inputs(name="a/b")
    assert nodes.save.validate_inputs(name=None) is True
    assert nodes.load.validate_inputs(name=None, plan="") is True


def test_a_plan_saved_anew_makes_the_loader_run_again(nodes):
    before = nodes.load.fingerprint_inputs(name="swim")
    run(nodes.save, plan=TrainingPlan(), name="swim")
    after = nodes.load.fingerprint_inputs(name="swim")
    assert before != after == nodes.load.fingerprint_inputs(name="swim")
    assert nodes.save.fingerprint_inputs(name="swim") == after


def test_250_epochs_stop_the_trainer_before_anything_of_the_model_is_looked_at(comfy):
    from tandem_wan.nodes.host.setup import check_setup

    def untouched():
        raise AssertionError("a model was looked at")

    class Untouched:
        def __getattribute__(self, name):
            untouched()

    plan = make_plan(dataset(), "video effect", epochs=250)
    sockets = dict.fromkeys(("model_high", "model_low", "clip", "vae"), Untouched())
    with pytest.raises(UserError, match=r"250 epochs are 12\.5 times the optimum of 20"):
        check_setup(plan, dataset(), **sockets)
    with pytest.raises(AssertionError):
        check_setup(replace(plan, allow_long=True), dataset(), **sockets)


@pytest.mark.parametrize("recompute", [False, True])
def test_operations_of_a_training_step_are_those_that_torch_counts(pair, encoded, recompute):
    """Forward, backward, adapters and recomputed blocks of the host's own network, to the last operation."""
    from tandem_wan.nodes.host.machine import network_of
    from tandem_wan.training.plans.estimate import sample_flops

    plan = rig.plan(checkpoint_blocks=recompute)
    trainer = rig.trainers(plan, pair, encoded[:1])["high_noise"]
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        rig.gradients_of_one_micro_batch(trainer)
    clip = encoded[0]
    network = replace(network_of(pair["high_noise"]), text_tokens=clip.context.shape[0])
    flops = sample_flops(network, plan, clip.x0[0].numel() // 4)
    # This attention keeps its scores, so that its backward pass has four products and not five.
    expected = flops.training(recompute=recompute, attention_backward=2.0)
    assert expected == counted.get_total_flops()


@pytest.mark.parametrize("recompute", [False, True])
def test_what_a_step_keeps_for_the_backward_pass_is_what_autograd_keeps(pair, encoded, recompute):
    from tandem_wan.nodes.host.machine import network_of
    from tandem_wan.training.plans.estimate_memory import kept_bytes

    plan = rig.plan(checkpoint_blocks=recompute)
    trainer = rig.trainers(plan, pair, encoded[:1])["high_noise"]
    own = [*pair["high_noise"].model.parameters(), *trainer.adapters.parameters()]
    weights = {weight.untyped_storage().data_ptr() for weight in own}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        rig.gradients_of_one_micro_batch(trainer)
    clip, model = encoded[0], pair["high_noise"]
    network = replace(network_of(model), text_tokens=clip.context.shape[0])
    tokens = clip.x0[0].numel() // 4
    wide = tokens * network.width * network.compute_bytes
    block = wide if recompute else kept_bytes(network, plan, tokens)
    total = sum(size for _, size in kept.values())
    # Beside the blocks: the velocity and its target, and what goes into the head.
    outside = 2 * clip.x0.nbytes + wide
    assert total == pytest.approx(network.num_blocks * block + outside, rel=0.03)


def test_the_connected_networks_size_is_its_own(pair):
    from tandem_wan.nodes.host.machine import network_of

    model = pair["high_noise"]
    network, own = network_of(model), list(model.model.diffusion_model.parameters())
    assert network.weight_bytes == pytest.approx(sum(p.nbytes for p in own), rel=0.01)
    assert network.num_params == pytest.approx(sum(p.numel() for p in own), rel=0.05)
    assert (network.input_channels, network.latent_channels) == (36, 16)


def test_the_cache_on_disk_is_what_was_estimated(pair, vae, clip, clips, tmp_path):
    from tandem_wan.nodes.host.encode import encoded_dataset
    from tandem_wan.nodes.host.machine import network_of
    from tandem_wan.training.cache.latent_cache import LatentCache
    from tandem_wan.training.plans.estimate import disk_bytes

    prepared = rig.setup(pair, vae, clip, clips)
    with encoded_dataset(prepared, LatentCache(tmp_path)):
        files = [p.stat().st_size for p in tmp_path.rglob("*.safetensors")]
    estimated = disk_bytes(network_of(pair["high_noise"]), prepared.plan, prepared.dataset).cache
    headers = 400 * len(files)
    assert sum(files) == pytest.approx(estimated + headers, rel=0.3)


def test_this_machine_is_measured_in_a_moment_and_only_once(comfy):
    import time

    from tandem_wan.nodes.host import machine

    machine.matrix_pace.cache_clear()
    began = time.perf_counter()
    here = machine.this_machine()
    assert time.perf_counter() - began < 2.0, "0.3 s on a machine that does nothing else"
    assert 1e8 < here.flops_per_s < 1e16
    assert here.disk_free > 0 and here.ram_free > 0 and here.device_free > 0
    assert machine.this_machine().flops_per_s == here.flops_per_s


def test_a_device_without_room_for_the_measurement_is_not_measured(comfy, monkeypatch):
    from tandem_wan.nodes.host import machine

    def full(*_, **__):
        raise torch.OutOfMemoryError("no room")

    machine.matrix_pace.cache_clear()
    monkeypatch.setattr(machine.torch, "randn", full)
    assert machine.this_machine().flops_per_s is None
    machine.matrix_pace.cache_clear()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ('{"stepps": 3}', "no value called 'stepps'"),
        ('{"lora.rnak": 3}', "Is lora.rank meant?"),
        ('{"version": 3}', "no value called 'version'"),
        ("{steps: 3}", "JSON object"),
    ],
)
def test_an_unknown_name_is_refused_when_the_prompt_is_queued(nodes, changes, said):
    assert said in nodes.edit.validate_inputs(changes=changes)
    good = '{"steps": 3, "high.rate": 0.1, "high": {"rate": 0.1}, "notes": []}'
    assert nodes.edit.validate_inputs(changes=good) is True


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ('{"lora.targets": ["("]}', "lora.targets has '('"),
        ('{"patterns": [{"pattern": "(", "rank": 4}]}', "patterns has '('"),
        ('{"alpha_phases": [8, 16]}', '{"alphas": [8, 14, 20]}'),
        ('{"learning_rate": 0.1}', "Is high.rate meant?"),
        ('{"steps": 3,}', "line 1, column"),
    ],
)
def test_what_needs_no_plan_to_be_wrong_is_refused_when_the_prompt_is_queued(nodes, changes, said):
    assert said in nodes.edit.validate_inputs(changes=changes)
    with pytest.raises(UserError):
        run(nodes.edit, plan=TrainingPlan(), changes=changes)
    assert nodes.edit.validate_inputs(changes="  ") is True


def test_without_a_dataset_both_editing_nodes_tell_what_is_unwise_in_the_plan(nodes):
    plan = make_plan(dataset(), "general video")
    once, text = run(nodes.edit, plan=plan, changes='{"high.rate": 5.0}')
    assert text.startswith("general video: 1 warning below; 3000 steps")
    assert "will most likely destroy the LoRA" in text
    twice, text = run(nodes.form, plan=once, rank=16)
    assert "destroy" in text and twice.notes[-1].startswith("Changed by hand: high.rate, lora.rank")
    assert sum(note.startswith("Changed by hand") for note in twice.notes) == 1


def test_epochs_on_the_form_are_those_of_the_clips_that_are_left(nodes):
    plan = make_plan(dataset(28), "video effect")
    edited, text = run(nodes.form, plan=plan, epochs=20.0, held_out=10, dataset=dataset(28))
    assert edited.steps == 180, "20 times 18 clips, 2 a step"
    assert "18 clips (10 held out): " in text and "20.0 epochs, each clip shown 20.0" in text
    kept, _ = run(nodes.form, plan=edited, epochs=10.0, dataset=dataset(28))
    assert kept.steps == 90, "what the plan holds out counts too"


def test_the_plot_shows_exposures_of_the_clips_that_are_trained_on(nodes):
    from tandem_wan.nodes.plan_plot import plan_plot
    from tandem_wan.training.plans.trained import trained_dataset

    data = dataset(28)
    plan = replace(make_plan(data, "video effect"), held_out=10)
    left = trained_dataset(plan, data)
    alone = plan_plot(replace(plan, held_out=0), left)
    assert (plan_plot(plan, data) == alone).all()
    assert not (plan_plot(replace(plan, held_out=0), data) == alone).all()
