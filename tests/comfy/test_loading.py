"""Updates while the host loads, copies, unloads and interrupts the MODEL that carries them."""

from __future__ import annotations

import gc

import pytest
import torch
from tandem_wan.dev import update_rig as rig
from tandem_wan.dev.update_rig import FFN, Q
from tandem_wan.wan.lora.dora import DoRA
from tandem_wan.wan.lora.updates import Difference

pytestmark = pytest.mark.comfy


def test_weights_attachments_and_modules_of_the_input_stay_as_they_are(pair):
    model = pair["high_noise"]
    network = model.model.diffusion_model
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = rig.output(model)
    stacked = rig.stacked(model, _everything())
    assert not torch.equal(rig.output(stacked), plain)
    assert list(network.state_dict()) == list(before)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(rig.output(model), plain)
    assert not any(_hooks(module) for module in network.modules())
    assert (model.injections, model.patches, model.attachments) == ({}, {}, {})
    assert not model.wrappers and not model.callbacks


def test_an_interrupt_within_the_forward_pass_leaves_no_change_behind(pair, monkeypatch):
    """The host's interrupt is no `Exception`, so hooks that are called always are not called."""
    from comfy.model_management import InterruptProcessingException

    model = pair["high_noise"]
    network = model.model.diffusion_model
    own = network.head.modulation
    stacked = rig.stacked(model, [rig.file({"head.modulation": Difference(torch.ones(1, 2, 128))})])
    changed = rig.output(stacked)

    def interrupt(*args):
        raise InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr(network.head.head, "forward", interrupt)
        with pytest.raises(InterruptProcessingException):
            rig.output(stacked)
    assert torch.equal(rig.output(stacked), changed)
    with monkeypatch.context() as patch:
        patch.setattr(network.head.head, "forward", interrupt)
        with pytest.raises(InterruptProcessingException):
            rig.output(stacked)
    stacked.eject_model()
    assert network.head.modulation is own


def test_a_clone_that_is_thrown_away_takes_nothing_out_of_the_loaded_model(pair):
    """The host copies the mark of an injected model to its clones, and ejects when a clone dies."""
    stacked = rig.stacked(pair["high_noise"], [rig.file({Q: rig.kinds()["LoRA"]})])
    expected = rig.output(stacked)
    clone = stacked.clone()
    assert stacked.is_injected and not clone.is_injected
    del clone
    gc.collect()
    assert torch.equal(rig.forward(stacked), expected)


def test_several_stacks_on_one_network_take_turns(pair):
    model = pair["high_noise"]
    kinds = rig.kinds()
    models = [model, *(rig.stacked(model, [rig.file({Q: update})]) for update in kinds.values())]
    first = [rig.output(m) for m in models]
    assert len({out.sum().item() for out in first}) == len(models)
    again = [rig.output(m) for m in reversed(models)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_unloading_takes_the_factors_off_the_device_and_loading_brings_them_back(pair):
    from comfy.model_management import unload_model_and_clones

    stacked = rig.stacked(pair["high_noise"], [rig.file({Q: u}) for u in rig.kinds().values()])
    expected = rig.output(stacked)
    injection = stacked.get_injections("tandem")[0].inject.__self__
    assert len(injection._installed) == 1
    unload_model_and_clones(stacked)
    assert len(injection._installed) == 0
    assert not any(_hooks(module) for module in stacked.model.diffusion_model.modules())
    assert torch.equal(rig.output(stacked), expected)


def test_a_partly_loaded_model_gives_the_same(comfy, pair, loras_of_core):
    """As on a card that is too small: layers keep their weights elsewhere, merged patches are made on every pass."""
    model = loras_of_core(pair["high_noise"])
    stacked = rig.stacked(model, _everything())
    expected = rig.output(stacked)
    with torch.inference_mode():
        stacked.detach()
        comfy.model_management.current_loaded_models.clear()
        cpu = torch.device("cpu")
        with stacked.use_ejected(skip_and_inject_on_exit_only=True):
            stacked.patch_model(load_weights=False)
            stacked.load(cpu, lowvram_model_memory=200_000)
        assert stacked.model.model_lowvram and stacked.model.lowvram_patch_counter > 0
        partly = rig.forward(stacked)
        stacked.detach()
    torch.testing.assert_close(partly, expected, rtol=1e-4, atol=1e-5)


def test_dora_is_measured_at_the_base_although_core_has_merged_a_lora(pair, loras_of_core):
    from tandem_wan.nodes.host.parameters import base_weight

    model = pair["high_noise"]
    base = base_weight(model, FFN).clone()
    rand = rig.random(7)
    dora = DoRA(rig.lora(rand, 128, 256, 2), rand(256).abs() + 0.5, "outputs")
    merged = loras_of_core(model)
    x = rand(16, 128)
    plain = rig.layer_output(merged, FFN, x)
    assert not torch.equal(model.model.diffusion_model.get_parameter(FFN).data, base)
    assert torch.equal(base_weight(merged, FFN), base)
    gained = rig.layer_output(rig.stacked(merged, [rig.file({FFN: dora})]), FFN, x) - plain
    bias = model.model.diffusion_model.get_parameter(FFN.replace("weight", "bias"))
    moved = base + dora.direction.delta(base)
    growth = dora.magnitude / moved.norm(dim=1)
    expected = (growth - 1) * (plain - bias) + growth * (x @ dora.direction.delta(base).T)
    torch.testing.assert_close(gained, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def loras_of_core(comfy):
    """Merges a LoRA with core's own loader."""

    def merge(model):
        rand = rig.random(6)
        lora = {
            f"diffusion_model.blocks.{block}.ffn.0.lora_{side}.weight": rand(*shape) / 8
            for block in range(4)
            for side, shape in (("A", (4, 128)), ("B", (256, 4)))
        }
        with torch.inference_mode():
            return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]

    return merge


def _everything():
    return [*(rig.file({Q: update}) for update in rig.kinds().values()), rig.file(rig.elsewhere())]


def _difference(one, other):
    return (one - other).abs().max().item()


def _hooks(module):
    return [*module._forward_hooks, *module._forward_pre_hooks]
