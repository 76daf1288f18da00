"""The toy world: its rules hold in its pixels, and what it does not know is named."""

from dataclasses import replace

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.miniature.world import (
    COLOURS,
    HELD_OUT_LOOKS,
    HELD_OUT_MOTIONS,
    KNOWN_LOOKS,
    KNOWN_MOTIONS,
    LOOKS,
    MOTIONS,
    SHAPES,
    Scene,
    draw_scenes,
    motion_path,
    render,
    render_stills,
)

PLAIN = Scene(shape="circle", colour="red", size="big", ground="plain", motion="still")


def coloured(video: torch.Tensor) -> torch.Tensor:
    """Where a pixel is no grey."""
    return video.amax(-1) - video.amin(-1) > 0.35


def test_clips_have_the_size_that_wan_takes():
    video = render(draw_scenes(3, seed=0))
    assert video.shape == (3, 17, 64, 64, 3)
    assert video.min() >= 0 and video.max() <= 1


def test_the_seed_decides_every_pixel():
    first, again, other = (render(draw_scenes(4, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_many_scenes_at_once_are_the_same_as_one_by_one():
    scenes = draw_scenes(12, seed=3, motions=tuple(MOTIONS), looks=LOOKS)
    alone = torch.cat([render([scene]) for scene in scenes])
    assert torch.equal(render(scenes), alone)


@pytest.mark.parametrize(("motion", "side"), [("left", 2), ("right", 2), ("up", 1), ("down", 1)])
def test_a_straight_motion_carries_the_shape_15_px(motion, side):
    first, last = render([replace(PLAIN, motion=motion)])[0, [0, -1]]
    sign = 1 if motion in ("right", "down") else -1
    moved = torch.roll(first, sign * 15, dims=side - 1)
    assert (moved - last).abs().max() < 1e-4


def test_a_still_scene_does_not_change():
    assert len(render([PLAIN])[0].unique(dim=0)) == 1


@pytest.mark.parametrize(("motion", "gain"), [("grow", 1.6), ("shrink", 0.55)])
def test_a_resizing_motion_changes_the_area_alone(motion, gain):
    first, last = coloured(render([replace(PLAIN, motion=motion)])[0, [0, -1]])
    assert last.sum() / first.sum() == pytest.approx(gain**2, rel=0.06)
    centres = [where.nonzero().float().mean(0) for where in (first, last)]
    assert (centres[0] - centres[1]).abs().max() < 0.1


def test_every_shape_stays_in_the_picture_whatever_it_does():
    scenes = [
        replace(PLAIN, shape=shape, motion=motion, radius_px=8.5, start_px=(x, y))
        for shape in SHAPES
        for motion in MOTIONS
        for x in (27.0, 37.0)
        for y in (27.0, 37.0)
    ]
    seen = coloured(render(scenes))
    assert not seen[:, :, :, [0, -1]].any() and not seen[:, :, [0, -1]].any()


def test_a_held_out_motion_is_far_from_every_other():
    def distance_px(a: str, b: str) -> float:
        difference = motion_path(a) - motion_path(b)
        # A size is felt at the edge of a shape of middle size.
        difference[:, 2] *= 7
        return difference.square().sum(1).mean().sqrt().item()

    assert set(KNOWN_MOTIONS).isdisjoint(HELD_OUT_MOTIONS)
    for motion in HELD_OUT_MOTIONS:
        assert min(distance_px(motion, other) for other in MOTIONS if other != motion) > 6


def test_the_base_world_holds_no_held_out_word():
    scenes = draw_scenes(300, seed=5)
    assert {scene.motion for scene in scenes} == set(KNOWN_MOTIONS)
    assert {scene.look for scene in scenes} == set(KNOWN_LOOKS)
    assert {scene.colour for scene in scenes} == set(COLOURS)
    assert set(KNOWN_LOOKS).isdisjoint(HELD_OUT_LOOKS)


def test_every_look_is_another_picture():
    stills = render_stills([replace(PLAIN, look=look) for look in LOOKS])
    for i in range(len(LOOKS)):
        for j in range(i):
            assert (stills[i] - stills[j]).abs().amax(-1).gt(0.3).sum() > 20


def test_a_clip_that_turns_begins_with_its_first_look_and_ends_with_the_other():
    turning = render([replace(PLAIN, look="striped", first_look="plain")])[0]
    plain, striped = render([PLAIN, replace(PLAIN, look="striped")])
    assert torch.equal(turning[0], plain[0])
    assert torch.equal(turning[4:], striped[4:])
    assert not torch.equal(turning[2], plain[2])


@pytest.mark.parametrize(
    ("field", "word", "known"), [("motion", "spin", MOTIONS), ("look", "furry", LOOKS)]
)
def test_an_unknown_word_is_answered_with_the_known_ones(field, word, known):
    with pytest.raises(UserError) as refused:
        replace(PLAIN, **{field: word})
    assert word in refused.value.came
    assert all(name in refused.value.can_be for name in known)


def test_an_unknown_first_look_is_refused_too():
    with pytest.raises(UserError, match="furry"):
        replace(PLAIN, first_look="furry")
