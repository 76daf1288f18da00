"""Clips of a batch stay together with their captions and pictures."""

import torch
from tandem_wan.training.samples import EncodedClip, stack_batch

CPU = torch.device("cpu")


def clip(number: float, **parts) -> EncodedClip:
    return EncodedClip(
        name=str(number),
        x0=torch.full((4, 3, 2, 2), number),
        context=torch.full((5, 6), 10 + number),
        **parts,
    )


def with_picture(number: float, **parts) -> EncodedClip:
    mask, latent = torch.full((4, 3, 2, 2), 20 + number), torch.full((4, 3, 2, 2), 30 + number)
    return clip(number, mask=mask, image_latent=latent, **parts)


def test_row_i_of_a_batch_is_clip_i_in_every_part():
    batch = stack_batch(
        [with_picture(i, clip_vision=torch.full((7, 8), 40.0 + i)) for i in (1.0, 2.0, 3.0)], CPU
    )
    for row, number in enumerate((1.0, 2.0, 3.0)):
        assert batch.x0[row].unique().tolist() == [number]
        assert batch.context[row].unique().tolist() == [10 + number]
        assert batch.condition.mask[row].unique().tolist() == [20 + number]
        assert batch.condition.latent[row].unique().tolist() == [30 + number]
        assert batch.condition.clip_vision[row].unique().tolist() == [40 + number]


def test_text_to_video_clips_have_no_condition():
    assert stack_batch([clip(1.0), clip(2.0)], CPU).condition is None


def test_22_has_no_image_features():
    assert stack_batch([with_picture(1.0)], CPU).condition.clip_vision is None
