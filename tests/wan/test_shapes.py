"""Sizes that Wan takes, and what a person reads who asks for another."""

import pytest
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize, LatentSize, checked_clip_size, latent_size


def slow_latent_frames(frames: int) -> int:
    """Frame 0 fills a cell of its own, then each started group of 4 fills one more."""
    cells = [[0]]
    for frame in range(1, frames):
        if (frame - 1) % 4 == 0:
            cells.append([])
        cells[-1].append(frame)
    return len(cells)


@pytest.mark.parametrize("frames", [1, 5, 9, 17, 49, 81, 161])
def test_latent_frames_are_the_first_frame_and_then_every_four(frames):
    assert latent_size(ClipSize(832, 480, frames)).frames == slow_latent_frames(frames)


def test_81_frames_at_480p_become_21_cells_of_60_by_104():
    assert latent_size(checked_clip_size(832, 480, 81)) == LatentSize(
        frames=21, height=60, width=104
    )


@pytest.mark.parametrize("frames", range(-3, 100))
def test_only_4k_plus_1_frames_pass_and_others_are_told_their_neighbours(frames):
    valid = {4 * k + 1 for k in range(40)}
    if frames in valid:
        assert checked_clip_size(832, 480, frames).frames == frames
        return
    with pytest.raises(UserError) as caught:
        checked_clip_size(832, 480, frames)
    below = max((n for n in valid if n < frames), default=1)
    above = min(n for n in valid if n > below)
    assert caught.value.came == f"frames is {frames}."
    assert caught.value.to_do == f"Use {below} or {above}."


@pytest.mark.parametrize("side", [1, 15, 17, 479, 481, 831, 833, 1000, 1279])
@pytest.mark.parametrize("name", ["width", "height"])
def test_sides_that_are_no_multiples_of_16_are_told_the_nearest_two(name, side):
    sides = {"width": 832, "height": 480} | {name: side}
    with pytest.raises(UserError) as caught:
        checked_clip_size(**sides, frames=81)
    valid = range(16, 2000, 16)
    below = max((n for n in valid if n < side), default=16)
    assert caught.value.came == f"{name} is {side} pixels."
    assert caught.value.to_do == f"Use {below} or {min(n for n in valid if n > below)}."


@pytest.mark.parametrize("side", [0, -16])
def test_a_side_without_pixels_is_refused(side):
    with pytest.raises(UserError, match="multiples of 16"):
        checked_clip_size(side, 480, 81)


@pytest.mark.parametrize(("width", "height"), [(832, 480), (1280, 720), (480, 832), (16, 16)])
def test_multiples_of_16_pass_as_they_are(width, height):
    assert checked_clip_size(width, height, 81) == (width, height, 81)
