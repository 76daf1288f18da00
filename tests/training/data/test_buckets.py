"""Sizes for clips of other shapes: little is cut off, the area stays, and there are few of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.data.buckets import (
    AREA_OVER,
    CLOSE_SHARE,
    bucket_for,
    buckets,
    enlargement,
    lost_share,
    views_for,
)
from tandem_wan.wan.video import View

sides = st.integers(256 // 16, 1440 // 16).map(lambda n: n * 16)
sizes = st.tuples(sides, sides).filter(lambda s: 1 / 3 <= s[0] / s[1] <= 3)
pixels = st.integers(16, 8000)
sources = st.tuples(pixels, pixels)


def usual(source):
    return 1 / 3 <= source[0] / source[1] <= 3


@given(sizes)
def test_buckets_are_few_have_about_the_area_and_sides_that_the_model_takes(size):
    found = buckets(*size)
    assert found[0] == size and len(found) <= 23 and len(set(found)) == len(found)
    step = 32 if size[0] % 32 == size[1] % 32 == 0 else 16
    for width, height in found:
        assert width % 16 == height % 16 == 0
        assert (width % step, height % step) == (0, 0)
        assert 0.8 <= width * height / (size[0] * size[1]) <= AREA_OVER


@given(sources.filter(usual), sizes)
def test_a_clip_of_a_usual_shape_loses_little_and_never_more_than_at_one_size(source, size):
    bucket = bucket_for(source, size)
    assert bucket in buckets(*size)
    assert lost_share(source, bucket) <= 0.18
    assert lost_share(source, bucket) <= max(CLOSE_SHARE, lost_share(source, size))


@pytest.mark.parametrize("size", [(832, 480), (480, 832), (1280, 720), (1280, 704), (640, 640)])
def test_at_usual_sizes_no_shape_between_1_to_3_and_3_to_1_loses_a_ninth(size):
    shapes = [(n, 300) for n in range(100, 901)]
    assert max(lost_share(shape, bucket_for(shape, size)) for shape in shapes) < 1 / 9


@given(sources, sizes)
def test_a_clip_that_has_the_size_of_a_bucket_gets_that_bucket(source, size):
    bucket = bucket_for(source, size)
    assert bucket_for(bucket, size) == bucket
    assert [bucket_for(each, size) for each in buckets(*size)] == list(buckets(*size))


@given(sources, sources, sizes)
def test_a_wider_clip_never_gets_a_narrower_bucket(one, other, size):
    narrow, wide = sorted((one, other), key=lambda s: s[0] / s[1])
    first, second = bucket_for(narrow, size), bucket_for(wide, size)
    assert first[0] * second[1] <= second[0] * first[1]


@given(sources, sizes, st.integers(2, 9))
def test_only_the_shape_of_a_clip_decides(source, size, times):
    assert bucket_for((source[0] * times, source[1] * times), size) == bucket_for(source, size)


@pytest.mark.parametrize(
    ("source", "bucket"),
    [
        ((1920, 1080), (832, 480)),
        ((854, 480), (832, 480)),
        ((1080, 1920), (480, 832)),
        ((640, 480), (736, 544)),
        ((1000, 1000), (640, 640)),
        ((1920, 800), (960, 416)),
    ],
)
def test_cameras_and_films_at_480p(source, bucket):
    assert bucket_for(source, (832, 480)) == bucket
    turned = bucket_for(source[::-1], (832, 480))
    assert turned == bucket[::-1]


def test_how_much_is_cut_and_enlarged():
    assert lost_share((200, 100), (100, 100)) == pytest.approx(0.5)
    assert lost_share((100, 200), (100, 100)) == pytest.approx(0.5)
    assert lost_share((300, 200), (150, 100)) == 0
    assert enlargement((320, 240), (832, 480)) == pytest.approx(2.6)
    assert enlargement((1664, 960), (832, 480)) == pytest.approx(0.5)


@given(sources, sizes, st.booleans(), st.integers(1, 3))
def test_views_are_every_crop_then_each_of_them_mirrored(source, size, flips, crops):
    views = views_for(source, size, flips=flips, crops=crops)
    assert len(set(views)) == len(views)
    plain = [view.crop for view in views if not view.flip]
    mirrored = [view.crop for view in views if view.flip]
    assert plain == ([0.5], [0.0, 1.0], [0.0, 0.5, 1.0])[len(plain) - 1]
    assert mirrored == (plain if flips else [])
    assert len(plain) in (1, crops)


def test_crops_are_made_only_where_at_least_a_token_is_cut_off():
    assert views_for((832, 480), (832, 480), flips=False, crops=3) == (View(0.5, False),)
    assert views_for((847, 480), (832, 480), flips=False, crops=2) == (View(0.5, False),)
    assert views_for((848, 480), (832, 480), flips=False, crops=2) == (View(0.0), View(1.0))
    assert len(views_for((832, 600), (832, 480), flips=True, crops=3)) == 6
