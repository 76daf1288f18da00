"""A preview is what the dual sampler would give with the same LoRAs: one forward pass, one schedule."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.dev import training_rig as rig

pytestmark = pytest.mark.comfy
STEPS, CFG = 8, 2.5


def test_a_preview_is_what_the_dual_sampler_gives(comfy, pair, encoded, monkeypatch):
    from tandem_wan.nodes.host.injection import with_adapters
    from tandem_wan.nodes.host.sampling import Request, make_schedule, sample_pair, with_shift
    from tandem_wan.training.loop import train
    from tandem_wan.training.preview import Preview
    from tandem_wan.training.schedule import generator_for

    plan = rig.plan(steps=6, swap_every=1)
    clip, negative = encoded[0], encoded[1].context * 0.5
    trainers = rig.trainers(plan, pair, encoded)
    shown = {}
    preview = Preview(
        every=6,
        clip=clip,
        negative=negative,
        show=lambda step, latent: shown.update({step: latent}),
        steps=STEPS,
        cfg=CFG,
    )
    with rig.training():
        train(plan, trainers, save=lambda *a: None, listen=lambda e: None, preview=preview)

    noise = torch.randn(clip.x0.shape, generator=generator_for(7, "preview"))[None]
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *args: noise)
    with torch.inference_mode():
        models = [
            with_shift(with_adapters(pair[role], [trainers[role].adapters]), plan.shift)
            for role in ("high_noise", "low_noise")
        ]
        out_of = models[0].model.process_latent_out
        values = {
            "concat_latent_image": out_of(clip.image_latent[None]),
            "concat_mask": 1.0 - clip.mask[None, :1],
        }
        schedule = make_schedule(
            models[0], steps=STEPS, scheduler="simple", sampler_name="euler", denoise=1.0, boundary=0.0
        )  # fmt: skip
        request = Request(
            positive=[[clip.context[None], values]],
            negative=[[negative[None], values]],
            latent={"samples": torch.zeros_like(noise)},
            seed=0,
            cfg=CFG,
            cfg_low=CFG,
            sampler_name="euler",
        )
        sampled = sample_pair(models[0], models[1], schedule, request)["samples"]
        plain = sample_pair(pair["high_noise"], pair["low_noise"], schedule, request)["samples"]
        expected, without = (models[0].model.process_latent_in(s)[0] for s in (sampled, plain))
    assert 0 < schedule.high_steps < STEPS
    scale = expected.abs().mean()
    assert (shown[6] - expected).abs().mean() < 1e-3 * scale
    assert (shown[6] - without).abs().mean() > 1e-2 * scale, "the LoRAs change the clip"
