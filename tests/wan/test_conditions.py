"""The start frame of image-to-video, held against the rule of the official code."""

import pytest
import torch
from tandem_wan.wan.conditions import ImageCondition, start_frame_mask, start_frame_video
from tandem_wan.wan.shapes import ClipSize, LatentSize, latent_size


def official_mask(frames: int, height: int, width: int) -> torch.Tensor:
    """Wan-Video/Wan2.2, wan/image2video.py: the frame mask, first frame four times, folded by 4."""
    frame_mask = torch.ones(1, frames, height, width)
    frame_mask[:, 1:] = 0
    first = torch.repeat_interleave(frame_mask[:, 0:1], repeats=4, dim=1)
    folded = torch.cat([first, frame_mask[:, 1:]], dim=1).view(
        1, (frames + 3) // 4, 4, height, width
    )
    return folded.transpose(1, 2)


@pytest.mark.parametrize("frames", [17, 49, 81])
def test_the_mask_is_the_official_one(frames):
    size = latent_size(ClipSize(48, 32, frames))
    assert torch.equal(start_frame_mask(size), official_mask(frames, size.height, size.width))


def test_every_clip_of_a_batch_gets_the_same_mask():
    size = LatentSize(frames=5, height=4, width=6)
    mask = start_frame_mask(size, batch=3)
    assert torch.equal(mask, official_mask(17, 4, 6).expand(3, -1, -1, -1, -1))


def test_more_known_cells_are_marked_from_the_front():
    mask = start_frame_mask(LatentSize(frames=5, height=2, width=2), known_cells=2)
    assert mask[0, :, :, 0, 0].tolist() == [[1, 1, 0, 0, 0]] * 4


def test_the_start_frame_is_followed_by_grey_that_the_vae_sees_as_zero():
    picture = torch.rand(32, 48, 3)
    video = start_frame_video(picture, 17)
    assert video.shape == (17, 32, 48, 3)
    assert torch.equal(video[0], picture)
    # The VAE takes 2 x - 1; black would be -1 there, which Wan has not been trained with.
    assert (2 * video[1:] - 1).abs().max() == 0.0


def test_a_picture_with_a_batch_axis_makes_the_same_video():
    picture = torch.rand(32, 48, 3)
    assert torch.equal(start_frame_video(picture[None], 5), start_frame_video(picture, 5))


def test_the_mask_comes_before_the_picture_in_the_channels():
    mask, latent = torch.ones(1, 4, 2, 2, 2), torch.full((1, 16, 2, 2, 2), 7.0)
    channels = ImageCondition(mask=mask, latent=latent).channels()
    assert channels[0, :, 0, 0, 0].tolist() == [1.0] * 4 + [7.0] * 16
