"""The one-pass VAE: causal, of Wan's own layout, and its latents take any scale without a change of the pixels."""

import pytest
import torch
from tandem_wan.wan.miniature.layouts import vae_layout
from tandem_wan.wan.miniature.vae import (
    LATENT_DEVIATION,
    VideoAutoencoder,
    fold_scale,
    from_vae,
    normalised,
    raw,
    start_still,
    to_vae,
)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return VideoAutoencoder(4).requires_grad_(False)


@pytest.fixture
def video():
    return torch.rand(2, 3, 9, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_its_state_has_the_keys_and_shapes_of_the_layout():
    for width in (4, 8):
        state = VideoAutoencoder(width).state_dict()
        assert {key: tuple(tensor.shape) for key, tensor in state.items()} == vae_layout(width)


def test_every_4_frames_after_the_first_share_a_latent_frame(vae, video):
    latents = vae.encode(video)
    assert latents.shape == (2, 16, 3, 4, 4)
    assert vae.decode(latents).shape == video.shape


@pytest.mark.parametrize(("frame", "cell"), [(1, 1), (4, 1), (5, 2)])
def test_no_latent_frame_sees_later_frames(vae, video, frame, cell):
    other = video.clone()
    other[:, :, frame:] = 0
    change = (vae.encode(video) - vae.encode(other)).abs().amax(dim=(0, 1, 3, 4))
    assert (change[:cell] < 1e-5).all() and (change[cell:] > 1e-4).all()


def test_a_picture_is_the_first_frame_of_a_clip(vae, video):
    latents = vae.encode(video)
    assert torch.allclose(vae.encode(video[:, :, :1]), latents[:, :, :1], atol=1e-5)
    pixels = vae.decode(latents)
    assert torch.allclose(vae.decode(latents[:, :, :1]), pixels[:, :, :1], atol=1e-5)


def test_a_still_start_codes_every_four_frames_as_a_picture(vae, video):
    start_still(vae)
    held = video[:, :, :1].expand(-1, -1, 9, -1, -1)
    latents = vae.encode(held)
    assert torch.allclose(latents, latents[:, :, :1].expand_as(latents), atol=1e-5)
    pixels = vae.decode(latents)
    assert torch.allclose(pixels, pixels[:, :, :1].expand_as(pixels), atol=1e-5)


def test_folding_sets_the_scale_that_the_networks_see_and_leaves_the_pixels(vae, video):
    before = vae.encode(video)
    pixels = vae.decode(before)
    values = before.transpose(0, 1).flatten(1)
    fold_scale(vae, values.mean(1), values.std(1), 3.0)
    seen = normalised(vae.encode(video)).transpose(0, 1).flatten(1)
    assert torch.allclose(seen.mean(1), torch.zeros(16), atol=1e-3)
    assert torch.allclose(seen.std(1), torch.full((16,), 3.0), rtol=1e-3)
    assert torch.allclose(vae.decode(vae.encode(video)), pixels, atol=1e-4)


def test_normalised_and_raw_undo_each_other():
    latents = torch.randn(1, 16, 2, 3, 3)
    assert torch.allclose(raw(normalised(latents)), latents, atol=1e-6)
    change = (raw(latents + 1) - raw(latents))[0, :, 0, 0, 0]
    assert torch.allclose(change, torch.tensor(LATENT_DEVIATION), atol=1e-4)


def test_pixels_come_back_in_their_own_range():
    video = torch.rand(1, 5, 8, 8, 3)
    assert torch.allclose(from_vae(to_vae(video)), video, atol=1e-6)
    assert from_vae(3 * torch.ones(1, 3, 1, 2, 2)).max() == 1
