"""Traps between a clip on disk and what the network sees of it. tests/README.md lists all 16."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.wan.shapes import ClipSize
from tandem_wan.wan.video import read_clip

pytestmark = pytest.mark.comfy

# Wan-Video/Wan2.2, wan/modules/vae2_1.py: mean and standard deviation of each latent channel.
MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def film(encoded, clips):
    """The first clip's pixels (frames, height, width, 3) in [0, 1], as the file has them."""
    return read_clip(clips / encoded[0].name, ClipSize(64, 64, 9), fps=16)


def raw_latent(vae, video):
    """(16, cells, h, w): the VAE's own network, asked without the host's or our code around it."""
    with torch.inference_mode():
        latent = vae.first_stage_model.encode((2 * video - 1).movedim(-1, 0)[None])
    return latent[0].clone()


def normalised(raw):
    mean, std = (torch.tensor(values).view(16, 1, 1, 1) for values in (MEAN, STD))
    return (raw - mean) / std


def distance(ours, theirs):
    return (ours - theirs).abs().max().item()


def test_trap_03_what_follows_the_first_frame_is_encoded_grey_neither_black_nor_zeros(
    encoded, film, vae
):
    y = encoded[0].image_latent
    grey, black = (torch.full_like(film, level) for level in (0.5, 0.0))
    grey[0] = black[0] = film[0]
    torch.testing.assert_close(y, normalised(raw_latent(vae, grey)), **CLOSE)
    after = slice(1, None)
    for name, wrong in {
        "black": normalised(raw_latent(vae, black))[:, after],
        "normalised zeros": torch.zeros_like(y[:, after]),
        "raw zeros": normalised(torch.zeros_like(y))[:, after],
    }.items():
        assert distance(y[:, after], wrong) > 0.05, name


def test_trap_04_latents_are_the_mode_of_the_vaes_distribution_and_no_sample(
    pair, vae, clip, clips
):
    seen = []
    hook = vae.first_stage_model.conv1.register_forward_hook(lambda m, x, out: seen.append(out))
    try:
        runs = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            runs.append(rig.encode(pair, vae, clip, clips))
    finally:
        hook.remove()
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.x0, other.x0)
        assert torch.equal(one.image_latent, other.image_latent)
    modes = [normalised(out.chunk(2, dim=1)[0][0]) for out in seen]
    spreads = [out.chunk(2, dim=1)[1].mul(0.5).exp().mean().item() for out in seen]
    for latent in (part for item in runs[0] for part in (item.x0, item.image_latent)):
        nearest = min(modes, key=lambda mode: distance(mode, latent))
        torch.testing.assert_close(latent, nearest, **CLOSE)
    assert min(spreads) > 0.1, "a sample would have been seen"


def test_trap_05_our_mask_is_the_reverse_of_the_hosts_which_marks_what_is_unknown(
    pair, encoded, film, vae
):
    from comfy_extras.nodes_wan import WanImageToVideo
    from tandem_wan.nodes.host.expert import HostExpert
    from tandem_wan.training.samples import stack_batch
    from tandem_wan.wan.families import sigma_range

    model, sigma = pair["high_noise"], torch.tensor([0.95])
    with torch.inference_mode():
        text = [[encoded[0].context[None], {}]]
        positive = WanImageToVideo.execute(
            text, text, vae, 64, 64, 9, 1, start_image=film[:1]
        ).args[0]
        values = positive[0][1]
        mask = values["concat_mask"]
        assert (mask[:, :, 0] == 0).all() and (mask[:, :, 1:] == 1).all()
        assert torch.equal(encoded[0].mask, 1 - mask[0].expand(4, -1, -1, -1))
        x = encoded[0].x0[None]
        seen = model.model.concat_cond(
            noise=x,
            device=x.device,
            concat_latent_image=values["concat_latent_image"].clone(),
            concat_mask=mask,
        )
        clean = model.model.apply_model(x, sigma, c_concat=seen, c_crossattn=positive[0][0])
        theirs = (x - clean) / 0.95
    batch = stack_batch(encoded[:1], torch.device("cpu"))
    expert = HostExpert(model, "high_noise", sigma_range("high_noise", 0.9))
    with rig.training(), expert.in_use(), torch.no_grad():
        ours = expert.velocity(batch.x0, sigma, batch.context, batch.condition)
        batch.condition.mask.copy_(1 - batch.condition.mask)
        inverted = expert.velocity(batch.x0, sigma, batch.context, batch.condition)
    assert distance(ours, theirs) < 1e-4
    assert distance(inverted, theirs) > 1e-2


def test_trap_06_latents_are_normalised_on_their_way_in_and_raw_on_their_way_out(
    pair, encoded, film, vae, clip, clips
):
    from tandem_wan.nodes.host.preview import _decoded

    raw = raw_latent(vae, film)
    torch.testing.assert_close(encoded[0].x0, normalised(raw), **CLOSE)
    assert distance(encoded[0].x0, raw) > 0.5
    with torch.inference_mode():
        setup = rig.setup(pair, vae, clip, clips)
        shown = _decoded(setup, encoded[0].x0)
        expected = vae.first_stage_model.decode(raw[None])[0].movedim(0, -1)
    torch.testing.assert_close(shown, ((expected + 1) / 2).clamp(0, 1), rtol=0, atol=1e-4)
