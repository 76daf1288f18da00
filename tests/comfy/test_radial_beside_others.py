"""Radial attention beside other nodes that want the attention hook, LoRAs, and relatives of the plain network."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.dev import radial_rig as rig
from tandem_wan.dev.tiny_variants import write_variant

pytestmark = pytest.mark.comfy
HOOK = "optimized_attention_override"


def test_a_hook_that_was_there_computes_the_dense_parts(pair):
    seen = []
    model, radial = rig.patched(_hooked(pair["high_noise"], seen))
    out = rig.sample(model)
    # All blocks of the first step, and block 0 of the other three; cross-attention always.
    assert seen.count("self") == 4 + 3 and seen.count("cross") == 16
    assert radial.record.calls["sparse"] == 9
    assert torch.equal(out, rig.sample(rig.patched(pair["high_noise"])[0]))


def test_a_hook_that_comes_later_and_passes_on_changes_nothing(pair):
    seen = []
    model, radial = rig.patched(pair["high_noise"])
    out = rig.sample(_hooked(model, seen))
    assert seen.count("self") == 16 and radial.record.calls["sparse"] == 9
    assert torch.equal(out, rig.sample(model))


def test_a_hook_that_comes_later_and_passes_nothing_on_is_named_in_the_report(pair):
    from tandem_wan.nodes.host.radial_report import calls_report

    model, radial = rig.patched(pair["high_noise"])
    model = _hooked(model, [], passes_on=False)
    assert torch.equal(rig.sample(model), rig.sample(pair["high_noise"]))
    text = calls_report(model, radial)
    assert "In 4 of 4 calls of the network no self-attention came by" in text
    assert "test_radial_beside_others" in text and "Put Tandem Radial Attention behind it" in text


def test_another_wrapper_may_pass_the_arguments_by_name(pair):
    from comfy.patcher_extension import WrappersMP

    def by_name(executor, x, timestep, context, clip_fea, concat, options, **more):
        return executor(
            x, timestep, context=context, clip_fea=clip_fea, transformer_options=options, **more
        )

    model = pair["high_noise"].clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "other", by_name)
    out = rig.sample(rig.patched(model)[0])
    assert torch.equal(out, rig.sample(rig.patched(pair["high_noise"])[0]))


def test_with_a_lora_of_the_stack_before_or_behind_it(host, pair):
    rows = '[{"lora": "x_high_noise.safetensors"}]'
    stack = host.stack(rows=rows)

    def applied(model):
        from types import SimpleNamespace

        from tandem_wan.nodes.stack import TandemApplyStack

        TandemApplyStack.hidden = SimpleNamespace(unique_id=None, prompt=None, extra_pnginfo=None)
        with torch.inference_mode():
            return TandemApplyStack.execute(stack, model_high=model, family="wan 2.2 A14B").args[0]

    before = rig.patched(applied(pair["high_noise"]))[0]
    behind = applied(rig.patched(pair["high_noise"])[0])
    one, other = rig.sample(before), rig.sample(behind)
    assert torch.equal(one, other)
    assert not torch.equal(one, rig.sample(rig.patched(pair["high_noise"])[0]))


def test_vaces_control_blocks_follow_the_block_that_they_come_after(comfy, tmp_path):
    from tandem_wan.nodes.host.radial_report import calls_report

    plain = _variant(comfy, tmp_path, "vace")
    model, radial = rig.patched(plain, dense_timesteps=0)
    out = rig.sample(model)
    # Four blocks and two control blocks, behind blocks 0 and 2; block 0 is dense.
    assert radial.record.calls == {"sparse": 4 * 4, "in dense blocks": 4 * 2}
    assert radial.record.control == {"sparse": 4, "in dense blocks": 4}
    assert not torch.equal(out, rig.sample(plain))
    assert "4 of them VACE's control blocks" in calls_report(model, radial)


def test_funs_reference_frame_lies_before_the_grid_and_is_dense(comfy, tmp_path):
    plain = _variant(comfy, tmp_path, "fun reference")
    model, radial = rig.patched(plain, dense_timesteps=0, dense_layers="none")
    reference = {"reference_latents": [torch.randn(1, 16, 1, 8, 8)]}
    out = rig.sample(model, **reference)
    (grid,) = radial.record.grids
    assert grid == (*rig.GRID, 16, 0) and set(radial.record.calls) == {"sparse"}
    masked = plain.clone()
    masked.model_options["transformer_options"][HOOK] = rig.masked(radial, grid)
    torch.testing.assert_close(out, rig.sample(masked, **reference), rtol=1e-4, atol=1e-4)


def test_context_latents_lie_behind_the_grid(comfy, tmp_path):
    plain = _variant(comfy, tmp_path, "fun reference")
    model, radial = rig.patched(plain, dense_timesteps=0, dense_layers="none")
    more = {"context_latents": [torch.randn(1, 16, 1, 8, 6), torch.randn(1, 16, 2, 7, 8)]}
    out = rig.sample(model, steps=2, **more)
    (grid,) = radial.record.grids
    assert grid == (*rig.GRID, 0, 12 + 32) and torch.isfinite(out).all()


def test_what_cannot_be_treated_runs_dense_and_says_so_or_is_an_error(comfy, tmp_path):
    from tandem_wan.nodes.host.radial_report import calls_report
    from tandem_wan.wan.errors import UserError

    plain = _variant(comfy, tmp_path, "camera")
    model, radial = rig.patched(plain)
    assert torch.equal(rig.sample(model, steps=2), rig.sample(plain, steps=2))
    assert calls_report(model, radial).count("CameraWanModel is not treated") == 1
    with pytest.raises(UserError, match=r"CameraWanModel is not treated.*Turn strict off"):
        rig.patched(plain, strict=True)


def test_a_probe_measures_every_block_and_changes_nothing(pair):
    from tandem_wan.nodes.host.radial_probe import proposal
    from tandem_wan.nodes.host.radial_report import calls_report

    model, radial = rig.patched(pair["high_noise"], probe=True)
    out = rig.sample(model)
    assert torch.equal(out, rig.sample(rig.patched(pair["high_noise"])[0]))
    found = proposal(radial.record, radial.patch.settings)
    assert set(found.errors) == {0, 1, 2, 3} and all(0 < e < 2 for e in found.errors.values())
    by_decay = {
        d: sum(map(float, radial.record.errors[d, 1])) / len(radial.record.errors[d, 1])
        for d in (0.1, 0.8)
    }
    assert by_decay[0.8] <= by_decay[0.1]
    assert "Advice" in calls_report(model, radial)


def test_the_report_is_of_the_last_run_alone(pair):
    model, radial = rig.patched(pair["high_noise"])
    rig.sample(model)
    rig.sample(model, steps=2)
    assert radial.record.model_calls == 2


def _variant(comfy, folder, kind):
    path = write_variant(folder / "variant.safetensors", kind)
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(path))


def _hooked(model, seen, *, passes_on=True):
    """A clone with another node's hook, which chains as it should, or does not."""
    clone = model.clone()
    options = clone.model_options["transformer_options"]
    previous = options.get(HOOK) if passes_on else None

    def hook(func, q, k, *args, **kwargs):
        seen.append("self" if q.shape[1] == k.shape[1] else "cross")
        if previous is not None:
            return previous(func, q, k, *args, **kwargs)
        return func(q, k, *args, **kwargs)

    options[HOOK] = hook
    return clone
