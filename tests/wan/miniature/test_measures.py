"""The measures: right to a fraction of a pixel in the toy world, and sane on real films."""

from dataclasses import replace

import pytest
import torch
from tandem_wan.wan.miniature import measures
from tandem_wan.wan.miniature.world import (
    LOOKS,
    MOTIONS,
    Scene,
    draw_scenes,
    render,
    render_stills,
)
from tandem_wan.wan.shapes import ClipSize
from tandem_wan.wan.video import read_clip

PLAIN = Scene(shape="circle", colour="red", size="big", ground="plain", motion="still")


@pytest.fixture(scope="module")
def world():
    scenes = draw_scenes(100, seed=11, motions=tuple(MOTIONS), looks=LOOKS)
    return scenes, render(scenes)


@pytest.fixture(scope="module")
def film(footage):
    """17 frames of a real film, 96 x 64."""
    return read_clip(sorted(footage.glob("*.mp4"))[0], ClipSize(96, 64, 17), fps=16)


def test_the_true_clip_of_a_motion_goes_its_path(world):
    scenes, clips = world
    found = [measures.obedience(c, s.motion) for c, s in zip(clips, scenes, strict=True)]
    assert all(one.kind and one.path for one in found)
    assert max(one.path_error_px for one in found) < 1


def test_another_motion_is_another_kind():
    clip = render([replace(PLAIN, motion="left")])[0]
    found = measures.obedience(clip, "right")
    assert (found.kind, found.path, found.nearest) == (False, False, "left")
    assert found.path_error_px > 15


def test_the_right_kind_on_a_wrong_path_is_told_apart():
    """A loop of little more than half the width is still a loop, but not the path that was asked for."""
    clip = render([replace(PLAIN, motion="loop")])[0]
    found = measures.track(clip)
    small = measures.Track(
        found.centre_px[0] + 0.55 * (found.centre_px - found.centre_px[0]), found.radius_px
    )
    assert measures.path_error_px(small, "loop") > measures.PATH_ERROR_PX
    assert measures.path_error_px(small, "loop") < measures.path_error_px(small, "up")


@pytest.mark.parametrize(
    ("motion", "degrees"), [("right", 0), ("up", 90), ("left", 180), ("down", -90)]
)
def test_a_straight_path_has_its_direction_and_no_curvature(motion, degrees):
    shape = measures.path_shape(measures.track(render([replace(PLAIN, motion=motion)])[0]))
    assert abs((shape.direction_deg - degrees + 180) % 360 - 180) < 1
    assert shape.speed_px == pytest.approx(15 / 16, rel=0.02)
    assert shape.curvature < 0.01


def test_a_loop_comes_back():
    shape = measures.path_shape(measures.track(render([replace(PLAIN, motion="loop")])[0]))
    assert shape.curvature > 0.95
    assert shape.speed_px == pytest.approx(2 * 3.1416 * 7 / 16, rel=0.03)


def test_colours_are_read_off_the_pixels(world):
    scenes, clips = world
    assert [measures.colour_of(clip) for clip in clips] == [scene.colour for scene in scenes]


def test_looks_are_read_off_the_pixels():
    scenes = draw_scenes(120, seed=21, looks=LOOKS)
    found = [measures.look_of(frame) for frame in render_stills(scenes)[:, 0]]
    right = [f == scene.look for f, scene in zip(found, scenes, strict=True)]
    assert sum(right) >= 114


def test_a_still_picture_has_no_motion_and_full_consistency(film):
    still = film[:1].expand(17, -1, -1, -1)
    assert measures.motion_magnitude(still) == 0
    assert measures.temporal_consistency(still) == 1
    grey = torch.full((5, 8, 8, 3), 0.5)
    assert measures.temporal_consistency(grey) == 1


def test_a_real_film_moves_and_hangs_together(film):
    assert measures.motion_magnitude(film) > 0.002
    mixed = film[torch.randperm(17, generator=torch.Generator().manual_seed(0))]
    assert measures.motion_magnitude(mixed) > measures.motion_magnitude(film)
    assert measures.temporal_consistency(mixed) < measures.temporal_consistency(film)
    noise = torch.rand(film.shape, generator=torch.Generator().manual_seed(0))
    assert abs(measures.temporal_consistency(noise)) < 0.05


def test_a_pan_over_a_real_picture_is_measured(footage):
    wide = read_clip(sorted(footage.glob("*.mp4"))[0], ClipSize(128, 96, 1), fps=16)[0]
    pan = torch.stack([wide[8:72, 8 + k : 104 + k] for k in range(9)])
    shift = measures.camera_shift_px(pan).mean(0)
    # The window goes right, so the picture goes left.
    assert shift[0].item() == pytest.approx(-1, abs=0.25)
    assert abs(shift[1].item()) < 0.2
    assert measures.camera_shift_px(pan.flip(0)).mean(0)[0].item() == pytest.approx(1, abs=0.25)


def test_what_stands_out_in_a_real_film_lies_inside_it(film):
    found = measures.track(film)
    assert torch.isfinite(found.centre_px).all() and torch.isfinite(found.radius_px).all()
    assert (found.centre_px > 0).all() and (found.centre_px < torch.tensor([96.0, 64.0])).all()
    assert measures.obedience(film, "still").nearest in MOTIONS


def test_clips_that_are_all_the_same_have_no_diversity(world):
    _, clips = world
    assert measures.diversity([clips[0]] * 3) == 0
    assert measures.diversity(list(clips[:4])) > 0.05
    assert measures.diversity([clips[0]]) == 0


def test_a_copy_is_closer_than_a_stranger(world):
    _, clips = world
    rough = (clips[0] + 0.01 * torch.randn(clips[0].shape)).clamp(0, 1)
    assert measures.closeness(rough, list(clips[:9])) > 35
    assert measures.closeness(clips[0], list(clips[1:9])) < 25
