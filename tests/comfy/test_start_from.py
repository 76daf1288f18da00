"""A run that goes on from the LoRAs of a stack: what it begins with is what the stack does, and what does not fit is
refused before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from tandem_wan.dev import lora_layouts
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.lora_layouts import FURTHER, TABLE, Expert
from tandem_wan.dev.start_rig import (
    QUERY,
    clip_of,
    lora_file,
    own_folders,
    started,
    trainers_of,
    velocity,
)
from tandem_wan.training.plans.settings import LoraSettings
from tandem_wan.training.preview import Preview, schedule
from tandem_wan.training.turns import Turns
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.files import (
    adapter_tensors,
    write_safetensors,
)
from tandem_wan.wan.lora.stack import LoraStack, Row

pytestmark = pytest.mark.comfy
ROLES = ("high_noise", "low_noise")
STRENGTHS = {"high_noise": 0.8, "low_noise": 1.1}
LAYOUTS = {layout.name: layout for layout in (*TABLE, *FURTHER)}
PLAIN = [
    layout.name
    for layout in LAYOUTS.values()
    if layout.writer == "built" and not layout.deltas and not layout.name.startswith("Lo")
]


@pytest.fixture(scope="module")
def models(comfy, family):
    """Both experts; they are looked at and never changed."""
    with torch.inference_mode():
        return {role: comfy.sd.load_diffusion_model(str(getattr(family, role))) for role in ROLES}


@pytest.fixture(scope="module")
def experts(family):
    """A LoRA of rank 4 for every linear layer of the blocks."""
    found = []
    for seed, role in enumerate(ROLES):
        weights = {
            name.removesuffix(".weight"): weight
            for name, weight in load_file(getattr(family, role)).items()
            if name.startswith("blocks.") and weight.ndim == 2
        }
        found.append(Expert(role, lora_layouts.random_lora(seed, weights), weights))
    return found


@pytest.fixture
def folder(comfy, tmp_path, monkeypatch):
    return own_folders(tmp_path, monkeypatch)


def written(folder, experts, layout):
    """The row of a pair in this layout."""
    stem = folder / "lora"
    if layout.both:
        files = [layout.write(stem, experts)]
    else:
        files = [layout.write(folder / f"lora_{e.role}", [e]) for e in experts]
    lora, low = [*(f.relative_to(folder).as_posix() for f in files), None][:2]
    return Row(lora=lora, lora_low=low, high=STRENGTHS["high_noise"], low=STRENGTHS["low_noise"])


@pytest.mark.parametrize("name", [*PLAIN, "PEFT"])
def test_a_run_begins_with_what_the_stack_does_whatever_the_layout(models, experts, folder, name):
    from tandem_wan.nodes.host.stack import apply_stack

    row, clip = written(folder, experts, LAYOUTS[name]), clip_of()
    setup = started(models, [row], rank=6, alpha=2.5)
    trainers = trainers_of(setup, [clip])
    stacked, _ = apply_stack(LoraStack((row,)), models, "error")
    for role, sigma in (("high_noise", 0.95), ("low_noise", 0.4)):
        ours = velocity(models[role], clip, sigma, role, trainers[role].adapters)
        theirs = velocity(stacked[role], clip, sigma, role)
        plain = velocity(models[role], clip, sigma, role)
        assert (theirs - plain).abs().max() > 0.1, "the LoRA changes what the expert says"
        assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()
        assert {(a.rank, a.alpha) for a in trainers[role].adapters.values()} == {(6, 2.5)}
        part = {p.role: p for p in setup.start.parts}[role]
        assert part.strength == STRENGTHS[role]


def test_the_first_clip_is_the_one_that_the_stack_samples(models, experts, folder):
    from tandem_wan.nodes.host.stack import apply_stack
    from tandem_wan.training.seat import Seat

    row = written(folder, experts, LAYOUTS["kohya and musubi"])
    clip = clip_of()
    setup = started(models, [row])
    trainers = trainers_of(setup, [clip])
    shown = []
    preview = Preview(
        every=1,
        clips=[clip],
        negative=clip.context,
        show=lambda step, number, latent: shown.append(latent),
        steps=4,
        cfg=1.0,
    )
    with rig.training():
        for trainer in trainers.values():
            trainer.expert.attach(trainer.adapters)
        with Seat(trainers, Turns(), "keep") as seat:
            preview(setup.plan, 0, 1, trainers, seat)
        for trainer in trainers.values():
            trainer.expert.detach()
    stacked, _ = apply_stack(LoraStack((row,)), models, "error")
    for carrier, close in ((stacked, True), (models, False)):
        x = _noise(clip)
        for sigma, following in pairwise(schedule(4, setup.plan.shift)):
            role = "high_noise" if sigma >= 0.9 else "low_noise"
            moved = replace(clip, x0=x[0])
            x = x + (following - sigma) * velocity(carrier[role], moved, sigma, role)
        error = (shown[0] - x[0]).abs().max() / x.abs().max()
        assert error < 1e-6 if close else error > 1e-2


def test_a_smaller_rank_grows_and_layers_that_it_lacks_begin_anew(models, folder):
    name = lora_file(folder, "small", rank=2)
    trainers = trainers_of(started(models, [Row(lora=name)], rank=8), [clip_of()])
    for trainer in trainers.values():
        adapter = trainer.adapters["blocks.0.self_attn.q"]
        assert adapter.up[:, :2].any() and not adapter.up[:, 2:].any() and adapter.down.all()
        others = [a for n, a in trainer.adapters.items() if n != "blocks.0.self_attn.q"]
        assert len(others) == 39 and not any(a.up.any() for a in others)


@pytest.mark.parametrize("name", ["LoKr, diffusion_model", "LoHa, diffusion_model"])
def test_loha_and_lokr_are_refused_and_told_what_makes_a_lora_of_them(
    models, experts, folder, name
):
    row = written(folder, experts, LAYOUTS[name])
    with pytest.raises(UserError) as refused:
        started(models, [row])
    assert name.partition(",")[0] in refused.value.came
    assert "Tandem Save Stack As LoRA makes a plain LoRA of it" in refused.value.to_do


@pytest.mark.parametrize(
    ("name", "kind"),
    [("kohya DoRA", "DoRA (LoRA)"), ("LightX2V with differences", "difference")],
)
def test_what_has_no_factors_is_refused_and_may_go_on_the_model(
    models, experts, folder, name, kind
):
    row = written(folder, experts, LAYOUTS[name])
    with pytest.raises(UserError) as refused:
        started(models, [row])
    assert kind in refused.value.came and "Tandem Apply Stack" in refused.value.to_do


def test_the_stack_saved_as_one_lora_is_a_start_for_what_was_refused(models, folder):
    """LoHa of rank 2 has exact factors of rank 4, and several rows become one."""
    from tandem_wan.nodes.host.stack import apply_stack, combine_stack

    generator = torch.Generator().manual_seed(0)
    loha = {
        f"{QUERY}.{part}": torch.randn(*shape, generator=generator) / 4
        for part, shape in {
            "hada_w1_a": (128, 2), "hada_w1_b": (2, 128), "hada_w2_a": (128, 2), "hada_w2_b": (2, 128)
        }.items()
    }  # fmt: skip
    write_safetensors(folder / "loha.safetensors", loha, {})
    rows = (Row(lora="loha.safetensors"), Row(lora=lora_file(folder, "style"), high=0.5))
    with pytest.raises(UserError, match=r"2 LoRAs: loha\.safetensors, style") as refused:
        started(models, rows)
    assert "Merge them into one first with Tandem Save Stack As LoRA" in refused.value.to_do
    combined, _ = combine_stack(LoraStack(rows), models, "error")
    for role, lora in combined.items():
        write_safetensors(folder / f"one_{role}.safetensors", lora.tensors, lora.metadata)
    row = Row(lora="one_high_noise.safetensors", lora_low="one_low_noise.safetensors")
    trainers = trainers_of(started(models, [row]), [clip := clip_of()])
    stacked, _ = apply_stack(LoraStack(rows), models, "error")
    for role in ROLES:
        ours = velocity(models[role], clip, 0.5, role, trainers[role].adapters)
        torch.testing.assert_close(
            ours, velocity(stacked[role], clip, 0.5, role), rtol=0, atol=2e-6
        )


def test_a_file_of_the_other_expert_is_refused_by_metadata_and_by_name(models, folder):
    said = lora_file(folder, "said", expert="low_noise")
    named = lora_file(folder, "style_low_noise")
    for name, why in ((said, "metadata says low_noise"), (named, "name says low")):
        with pytest.raises(UserError, match=f"gives {name} to the high_noise expert.*{why}"):
            started(models, [Row(lora=name, route="high")])
        assert started(models, [Row(lora=name)]).start.parts[0].role == "low_noise"
    with pytest.raises(UserError, match="to the high_noise expert"):
        started(models, [Row(lora=named, lora_low=said)])


def test_one_expert_may_go_on_while_the_other_begins_anew(models, folder):
    name = lora_file(folder, "style_low_noise")
    setup = started(models, [Row(lora=name)])
    assert setup.notes == (
        f"The low_noise expert goes on from {name} at strength 1.",
        "The high_noise expert begins anew.",
    )
    trainers = trainers_of(setup, [clip_of()])
    lit = {r: any(a.up.any() for a in t.adapters.values()) for r, t in trainers.items()}
    assert lit == {"high_noise": False, "low_noise": True}


def test_a_half_on_a_single_model_is_taken_with_a_note(models, folder):
    single = {"single": models["high_noise"]}
    name = lora_file(folder, "style_low_noise")
    setup = started(single, [Row(lora=name)])
    assert setup.start.parts[0].role == "single"
    assert "is for the low-noise expert" in setup.notes[0] and "family" in setup.notes[0]


def test_what_does_not_fit_the_plan_is_refused_with_what_to_set(models, folder):
    wide = lora_file(folder, "wide", rank=64)
    with pytest.raises(UserError, match=r"rank 64.*Set lora\.rank to 64 on the plan"):
        started(models, [Row(lora=wide)], rank=8)
    time = lora_file(folder, "time", ["diffusion_model.time_embedding.2"])
    with pytest.raises(UserError, match=r"time_embedding\.2 of the high_noise expert.*targets"):
        started(models, [Row(lora=time)])
    lora = LoraSettings(rank=8, targets=(r"blocks\.\d+\.self_attn\.q", r"time_embedding\.2"))
    assert started(models, [Row(lora=time)], lora=lora).start is not None
    foreign = lora_file(folder, "foreign", width=96)
    with pytest.raises(UserError, match=r"2 of its keys have no place in it.*shape"):
        started(models, [Row(lora=foreign)])


def test_a_stack_that_does_nothing_or_changes_over_time_is_refused(models, folder):
    name = lora_file(folder, "style")
    for rows in ([], [Row(lora=name, on=False)], [Row(lora=name, high=0.0, low=0.0)]):
        with pytest.raises(UserError, match="start_from changes nothing"):
            started(models, rows)
    with pytest.raises(UserError, match="has the strength schedule"):
        started(models, [Row(lora=name, schedule="1.0@0, 0.0@1")])
    halved = started(models, [Row(lora=name, high=0.8, low=0.8, schedule="0.5")])
    assert [part.strength for part in halved.start.parts] == [0.4, 0.4]


def test_a_file_that_changed_while_the_run_was_queued_is_refused(models, folder):
    name = lora_file(folder, "style")
    setup = started(models, [Row(lora=name)])
    lora_file(folder, "style", rank=3)
    with pytest.raises(UserError, match="has changed since the run was queued"):
        trainers_of(setup, [clip_of()])


def test_adapters_of_a_run_are_read_back_as_they_were(models, folder):
    """The trainer's own file, alpha other than rank: nothing is lost on the way out and in again."""
    from tandem_wan.wan.lora.adapters import LoraAdapter

    trainers = trainers_of(started(models, [Row(lora=lora_file(folder, "style"))]), [clip_of()])
    adapters = trainers["high_noise"].adapters
    for number, adapter in enumerate(adapters.values()):
        assert isinstance(adapter, LoraAdapter)
        with torch.no_grad():
            adapter.up.normal_(generator=torch.Generator().manual_seed(number))
    write_safetensors(folder / "saved.safetensors", adapter_tensors(adapters), {})
    again = trainers_of(started(models, [Row(lora="saved.safetensors")]), [clip_of()])
    for name, adapter in again["high_noise"].adapters.items():
        assert torch.equal(adapter.down, adapters[name].down)
        assert torch.equal(adapter.up, adapters[name].up)


def _noise(clip):
    from tandem_wan.training.schedule import generator_for

    return torch.randn(clip.x0.shape, generator=generator_for(7, "preview"))[None]
