"""LoRAs merged by the host: the same changes, in the weights, and no hook; quantised weights are refused."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.dev import update_rig as rig
from tandem_wan.dev.quantised import FORMS, quantise
from tandem_wan.dev.update_rig import Q
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.adapters import LoraAdapter
from tandem_wan.wan.lora.dora import DoRA
from tandem_wan.wan.lora.kronecker import LoKr
from tandem_wan.wan.lora.strength import parse_strength
from tandem_wan.wan.lora.updates import Difference, UpdateSet

pytestmark = pytest.mark.comfy


def test_merged_weights_are_the_base_and_each_change_at_its_strength(pair):
    from tandem_wan.nodes.host.injection import applied_files
    from tandem_wan.nodes.host.parameters import base_weight

    model = pair["high_noise"]
    files = _files()
    merged = _merged(model, files)
    base = {name: base_weight(model, name).clone() for file in files for name in file.updates}
    rig.output(merged)
    assert [f.updates.keys() for f in applied_files(merged)] == [{"blocks.1.modulation"}]
    for name, weight in base.items():
        if name == "blocks.1.modulation":
            continue  # The host's loader leaves it alone, so it is added on the way.
        expected = weight.clone()
        for file in files:
            if name in file.updates:
                update = file.updates[name]
                expected += update.strength * update.delta(weight)
        now = merged.model.diffusion_model.get_parameter(name)
        torch.testing.assert_close(now.data, expected, rtol=0, atol=1e-6)
    assert not merged.wrappers


def test_merging_injecting_and_merging_one_by_one_give_the_same(pair):
    from tandem_wan.nodes.host.injection import with_updates

    model = pair["high_noise"]
    plain = rig.output(model)
    files = _files()
    at_once, beside = rig.output(_merged(model, files)), rig.output(with_updates(model, files))
    one_by_one = model
    for file in files:
        one_by_one = _merged(one_by_one, [file])
    assert torch.equal(rig.output(one_by_one), at_once)
    backwards = rig.output(_merged(model, files[::-1]))
    for other in (beside, backwards):
        assert (other - at_once).abs().max() < 1e-4 * (at_once - plain).abs().max()
    assert torch.equal(rig.output(model), plain)
    assert model.patches == {} and model.injections == {}


def test_merged_updates_stand_beside_cores_loras_and_injected_ones(pair):
    import comfy.sd
    from tandem_wan.nodes.host.injection import with_updates

    model = pair["high_noise"]
    rand = rig.random(4)
    core = {
        "diffusion_model.blocks.1.ffn.0.lora_A.weight": rand(4, 128) / 8,
        "diffusion_model.blocks.1.ffn.0.lora_B.weight": rand(256, 4) / 8,
    }
    one, two, dora = _files()
    with torch.inference_mode():
        first = _merged(comfy.sd.load_lora_for_models(model, None, core, 0.7, 0)[0], [one, dora])
        last = comfy.sd.load_lora_for_models(_merged(model, [one, dora]), None, core, 0.7, 0)[0]
    torch.testing.assert_close(rig.output(first), rig.output(last), rtol=1e-5, atol=1e-5)
    mixed = rig.output(with_updates(last, [two]))
    torch.testing.assert_close(mixed, rig.output(_merged(last, [two])), rtol=1e-4, atol=1e-4)


def test_a_partly_loaded_model_merges_on_every_pass(comfy, pair):
    model = _merged(pair["high_noise"], _files())
    expected = rig.output(model)
    with torch.inference_mode():
        model.detach()
        comfy.model_management.current_loaded_models.clear()
        with model.use_ejected(skip_and_inject_on_exit_only=True):
            model.patch_model(load_weights=False)
            model.load(torch.device("cpu"), lowvram_model_memory=100_000)
        assert model.model.lowvram_patch_counter > 0
        partly = rig.forward(model)
        model.detach()
    torch.testing.assert_close(partly, expected, rtol=1e-4, atol=1e-5)


def test_the_host_can_copy_a_patch_to_a_buffer_of_its_own(comfy):
    """Where weights are streamed, it makes the patch again from tensors that it has moved."""
    from comfy.lora import calculate_weight, prefetch_prepared_value
    from tandem_wan.nodes.host.merge import MergePatch, Part

    parts = tuple(Part(file.updates[Q], 0.5) for file in _files() if Q in file.updates)
    patch = MergePatch(parts)
    size = [0]
    prefetch_prepared_value(patch, size, None, None, False)
    buffer = torch.zeros(size[0], dtype=torch.uint8)
    copied = prefetch_prepared_value(patch, [0], buffer, None, True)
    weight = rig.random(1)(128, 128)
    ours, theirs = (
        calculate_weight([(1.0, p, 1.0, None, None)], weight.clone(), "key")
        for p in (patch, copied)
    )
    assert torch.equal(ours, theirs) and not torch.equal(ours, weight)
    assert copied.weights[1].untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr()


@pytest.mark.parametrize("form", [*FORMS, "float8"])
def test_quantised_weights_are_refused_with_what_to_do(comfy, family, tmp_path, form):
    path, options = family.high_noise, {"dtype": torch.float8_e4m3fn}
    if form in FORMS:
        path, options = tmp_path / "quantised.safetensors", {}
        quantise(family.high_noise, path, form)
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(path), model_options=options)
    with pytest.raises(UserError, match=r"quantised \(blocks.0.self_attn.q.weight\).*Set mode to"):
        _merged(model, _files())


def test_a_strength_that_changes_is_refused_and_a_constant_one_counts(pair):
    model = pair["high_noise"]
    (file, *_) = _files()
    with pytest.raises(UserError, match=r"schedule 0@0, 1@1.*mode to inject"):
        _merged(model, [file._replace(schedule=parse_strength("0 -> 1"))])
    half = rig.output(_merged(model, [file._replace(schedule=parse_strength("0.5"))]))
    file.updates[Q].strength *= 0.5
    assert torch.equal(half, rig.output(_merged(model, [file])))
    file.updates[Q].strength = 0.0
    assert _merged(model, [file]) is model


def test_a_digest_tells_merged_stacks_apart(pair):
    from tandem_wan.nodes.host.wan_models import model_digest

    model = pair["high_noise"]
    (file, *_) = _files()
    digests = {model_digest(model), model_digest(_merged(model, [file]))}
    file.updates[Q].strength = 0.123
    digests.add(model_digest(_merged(model, [file])))
    assert len(digests) == 3


def _files():
    from tandem_wan.nodes.host.injection import AppliedFile

    rand = rig.random(2)
    lora, direction = (
        LoraAdapter(rand(4, 128) / 16, rand(128, 4) / 4, 2.0).requires_grad_(False)
        for _ in range(2)
    )
    lokr = LoKr((rand(8, 8) / 8,), (rand(16, 2) / 4, rand(2, 16) / 4), rank=2, alpha=2.0)
    kinds = [
        {Q: lora},
        {Q: lokr, "blocks.1.modulation": Difference(rand(1, 6, 128) / 8)},
        {Q: DoRA(direction, rand(128).abs() + 0.5, "outputs")},
    ]
    for strength, updates in zip((0.8, -0.5, 0.6), kinds, strict=True):
        for update in updates.values():
            update.strength = strength
    return [AppliedFile(UpdateSet(updates)) for updates in kinds]


def _merged(model, files):
    from tandem_wan.nodes.host.merge import with_merged

    return with_merged(model, files)
