"""Bars are found, and plain backgrounds are none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tandem_wan.training.doctor.borders import Bars, bars_of, logo_corners, shared_marks

WIDTH, HEIGHT = 320, 180


def scene(width: int, height: int, seed: int = 0) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(40, 216, (6, 10), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def framed(bars: Bars, colour: int, size=(WIDTH, HEIGHT)) -> np.ndarray:
    picture = np.full(size[::-1], colour, np.uint8)
    left, top, right, bottom = (int(bar) for bar in bars)
    inside = size[0] - left - right, size[1] - top - bottom
    picture[top : size[1] - bottom, left : size[0] - right] = scene(*inside)
    return picture


@pytest.mark.parametrize(
    ("bars", "colour"),
    [
        (Bars(0, 23, 0, 23), 0),  # 2.39 in 16:9
        (Bars(40, 0, 40, 0), 16),  # 4:3 in 16:9
        (Bars(109, 0, 109, 0), 16),  # 9:16 in 16:9
        (Bars(40, 0, 40, 0), 255),
        (Bars(0, 6, 0, 0), 0),
        (Bars(1, 0, 0, 0), 16),
        (Bars(40, 23, 40, 23), 0),
    ],
)
def test_the_bars_of_films_in_another_shape_are_found(bars, colour):
    assert bars_of(framed(bars, colour)) == bars


def test_the_bars_of_a_dark_scene_are_found_where_most_of_its_edge_is_seen():
    picture = framed(Bars(0, 23, 0, 23), 16)
    picture[23:-23, :35] = 16  # a dark corner
    assert bars_of(picture) == Bars(0, 23, 0, 23)


@pytest.mark.parametrize(
    ("width", "height"), [(120, 60), (180, 80), (230, 120), (120, 150), (250, 40)]
)
@pytest.mark.parametrize(
    ("ground", "off"),
    # In the very midst of black it is as a film in bars at all sides is.
    [(g, o) for g in (255, 245, 0, 128) for o in ((0, 0), (8, 5), (-20, 9)) if g or any(o)],
)
def test_a_product_before_a_plain_background_has_no_bars(ground, width, height, off):
    picture = np.full((HEIGHT, WIDTH), ground, np.uint8)
    left, top = (WIDTH - width) // 2 + off[0], (HEIGHT - height) // 2 + off[1]
    picture[top : top + height, left : left + width] = scene(width, height) // 2 + 40
    found = bars_of(picture)
    assert found is None or found == Bars()


MARK = np.zeros((24, 24), bool)
MARK[6:12, 6:14] = True


@pytest.mark.parametrize(
    ("put", "found"),
    [
        (lambda picture: picture[4:14, 6:16].__setitem__(slice(2, 7), 250), True),
        (lambda picture: picture[:, :6].__setitem__(..., 250), False),  # a bar, or a post
        (lambda picture: picture[:24, :24].__setitem__(..., 90), False),  # plain sky
    ],
)
def test_a_logo_has_a_shape_and_neither_a_line_nor_plain_sky_is_one(put, found):
    picture = np.full((96, 96), 100, np.float32)
    put(picture)
    moved = np.where(picture == 250, 1.0, 20.0)
    moved[:24, :24][picture[:24, :24] == 90] = 1.0
    assert logo_corners(picture, moved) == (("upper left",) if found else ())


def corners(seed: int, mark: bool) -> np.ndarray:
    found = np.random.default_rng(seed).integers(0, 256, (4, 24, 24)).astype(np.uint8)
    found[2][MARK & mark] = 250
    return found


def test_a_mark_needs_three_films_that_differ_and_copies_of_one_are_one_witness():
    marked = [corners(seed, True) for seed in range(3)]
    assert shared_marks(marked, [0, 1, 2]) == {"lower left": [0, 1, 2]}
    copies = [corners(0, True)] * 5
    assert shared_marks(copies, [0]) == {}
    assert shared_marks([*copies, marked[1], corners(7, False)], [0, 5, 6]) == {}
    assert shared_marks([corners(0, True), *marked], [1, 2, 3]) == {"lower left": [0, 1, 2, 3]}


def test_more_than_a_quarter_on_one_side_is_no_bar():
    assert bars_of(framed(Bars(0, 60, 0, 0), 0)) == Bars()
