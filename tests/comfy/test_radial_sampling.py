"""Radial attention in the host's own sampling: what runs sparse, what does not, and that it is exact."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.dev import radial_rig as rig

pytestmark = pytest.mark.comfy
BLOCKS = 4


def test_a_run_is_sparse_but_for_the_first_step_and_the_first_block(pair):
    model, radial = rig.patched(pair["high_noise"])
    sparse = rig.sample(model)
    assert not torch.equal(sparse, rig.sample(pair["high_noise"]))
    assert radial.record.calls == {
        "sparse": (rig.STEPS - 1) * (BLOCKS - 1),
        "in dense steps": BLOCKS,
        "in dense blocks": rig.STEPS - 1,
    }


def test_a_run_equals_one_whose_attention_is_masked_in_double_precision(pair):
    """The second opinion is written here: every self-attention under a written-out mask."""
    model, radial = rig.patched(
        pair["high_noise"], dense_timesteps=0, dense_layers="none", decay_factor=0.4
    )
    ours = rig.sample(model, cfg=2.0, videos=2)
    assert set(radial.record.calls) == {"sparse"}
    masked = pair["high_noise"].clone()
    masked.model_options["transformer_options"]["optimized_attention_override"] = rig.masked(
        radial, rig.GRID
    )
    torch.testing.assert_close(ours, rig.sample(masked, cfg=2.0, videos=2), rtol=1e-4, atol=1e-4)


def test_cond_and_uncond_in_one_batch_equal_two_calls(pair, monkeypatch):
    """Batched or not, and several videos at once: every sample has its own attention."""
    import comfy.samplers

    model, radial = rig.patched(pair["high_noise"])
    together = rig.sample(model, cfg=3.0, videos=2)
    calls = radial.record.model_calls
    monkeypatch.setattr(comfy.samplers, "can_concat_cond", lambda one, other: one is other)
    apart = rig.sample(model, cfg=3.0, videos=2)
    assert (calls, radial.record.model_calls) == (rig.STEPS, 2 * rig.STEPS)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_the_incoming_model_stays_as_it_was(pair):
    model = pair["high_noise"]
    before = rig.sample(model)
    patched, _ = rig.patched(model)
    rig.sample(patched)
    assert "optimized_attention_override" not in model.model_options["transformer_options"]
    assert not any(model.wrappers.values()) and model.get_attachment("tandem_radial") is None
    assert torch.equal(rig.sample(model), before)


def test_a_second_patch_takes_the_place_of_the_first(pair):
    first, old = rig.patched(pair["high_noise"], preset="quality")
    second, new = rig.patched(first, preset="fast")
    once, _ = rig.patched(pair["high_noise"], preset="fast")
    assert torch.equal(rig.sample(second), rig.sample(once))
    assert old.record.model_calls == 0 and new.record.model_calls == rig.STEPS


def test_a_video_of_as_many_tokens_as_the_text_runs_dense(pair):
    """512 text tokens, and 8 frames of 8 x 8: the shapes of both attentions are the same."""
    from tandem_wan.nodes.host.radial_report import calls_report

    model, radial = rig.patched(pair["high_noise"], dense_timesteps=0)
    size = (8, 16, 16)
    ours = rig.sample(model, size=size, text=512, steps=2)
    assert torch.equal(ours, rig.sample(pair["high_noise"], size=size, text=512, steps=2))
    assert "sparse" not in radial.record.calls
    assert "512 tokens, as many as the text" in calls_report(model, radial)


def test_odd_sizes_are_filled_up_as_the_network_does(pair):
    model, radial = rig.patched(pair["high_noise"])
    assert rig.sample(model, size=(9, 9, 7), steps=2).shape == (1, 16, 9, 9, 7)
    assert [grid[:3] for grid in radial.record.grids] == [(9, 5, 4)]


def test_one_image_and_short_sequences_run_dense(pair):
    model, radial = rig.patched(pair["high_noise"], dense_timesteps=0)
    rig.sample(model, size=(1, 8, 8), steps=1)
    assert set(radial.record.calls) == {"where the mask leaves nothing out"}
    model, radial = rig.patched(pair["high_noise"], min_tokens=1000)
    rig.sample(model, steps=2)
    assert set(radial.record.calls) == {"of fewer than 1,000 tokens"}


def test_context_windows_have_each_its_own_grid(pair):
    from comfy.context_windows import (
        IndexListContextHandler,
        get_matching_context_schedule,
        get_matching_fuse_method,
    )

    model, radial = rig.patched(pair["high_noise"])
    model = model.clone()
    model.model_options["context_handler"] = IndexListContextHandler(
        context_schedule=get_matching_context_schedule("standard_static"),
        fuse_method=get_matching_fuse_method("pyramid"),
        context_length=9, context_overlap=3, dim=2,
    )  # fmt: skip
    out = rig.sample(model, size=(17, 8, 8), steps=2)
    assert out.shape[2] == 17 and torch.isfinite(out).all()
    # The host puts the first frame before every window but the first.
    assert [grid[:3] for grid in radial.record.grids] == [(9, 4, 4), (10, 4, 4)]
    assert radial.record.model_calls > 2 and radial.record.calls["sparse"]
