"""The curve in the picture is the curve in the data."""

import numpy as np
import pytest
from PIL import ImageColor
from tandem_wan.training.plots import COLOURS, _broken, loss_plot


def line_pixels(picture, role: str, legend: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows where the picture has the full colour of an expert's line."""
    pixels = np.asarray(picture).astype(int)
    colour = np.array(ImageColor.getrgb(COLOURS[role]))
    rows, columns = np.nonzero((np.abs(pixels - colour) <= 2).all(axis=2))
    # The legend's own line lies in the top right corner, right of every curve drawn here.
    inside = (columns >= 500) if legend else (columns < 500)
    return columns[inside], rows[inside]


def heights(picture, role: str) -> np.ndarray:
    """The line's mean row in each of its columns, from left to right."""
    columns, rows = line_pixels(picture, role)
    return np.array([rows[columns == column].mean() for column in np.unique(columns)])


def plot(**curves):
    return loss_plot(curves, title="run", steps=200)


def curve(function, steps=range(1, 100)) -> list[tuple[int, float]]:
    return [(step, function(step)) for step in steps]


def test_a_falling_loss_falls_in_the_picture():
    found = heights(plot(high_noise=curve(lambda s: 1.0 - s / 100)), "high_noise")
    assert len(found) > 200
    # Rows count downwards.
    assert (np.diff(found) >= -1).all()
    assert found[-1] - found[0] > 200


def test_a_rising_loss_rises_in_the_picture():
    found = heights(plot(low_noise=curve(lambda s: s / 100)), "low_noise")
    assert found[0] - found[-1] > 200


def test_a_straight_line_stays_straight():
    found = heights(plot(high_noise=curve(lambda s: 1.0 - s / 100)), "high_noise")
    middle = found[len(found) // 4 : -len(found) // 4]
    straight = np.linspace(middle[0], middle[-1], len(middle))
    assert np.abs(middle - straight).max() < 3


def test_the_higher_of_two_experts_is_drawn_higher():
    picture = plot(high_noise=curve(lambda s: 0.3), low_noise=curve(lambda s: 0.1))
    assert heights(picture, "high_noise").max() < heights(picture, "low_noise").min()
    swapped = plot(high_noise=curve(lambda s: 0.1), low_noise=curve(lambda s: 0.3))
    assert heights(swapped, "high_noise").min() > heights(swapped, "low_noise").max()


def test_a_run_that_is_half_done_fills_half_the_width():
    half, quarter = (
        np.ptp(line_pixels(plot(high_noise=curve(lambda s: 0.1, range(1, end))), "high_noise")[0])
        for end in (101, 51)
    )
    assert half == pytest.approx(2 * quarter, rel=0.05)


def test_the_line_is_the_running_mean_and_not_the_noise():
    noisy = curve(lambda s: 0.5 + 0.4 * (-1) ** s, range(1, 101))
    found = heights(plot(high_noise=noisy), "high_noise")[100:]
    picture_height = 480
    assert np.ptp(found) < 0.3 * picture_height
    smooth = heights(plot(high_noise=curve(lambda s: 0.5)), "high_noise")
    assert np.ptp(smooth) < 3


def test_each_step_is_a_pale_dot_at_its_own_loss():
    picture = plot(high_noise=curve(lambda s: 0.9 if s == 50 else 0.1))
    pixels = np.asarray(picture).astype(int)
    # The colour is red, the grid is grey; a pale red is redder than green by some levels only.
    rows, columns = np.nonzero((pixels[..., 0] - pixels[..., 1] > 10) & (np.arange(900) < 500))
    line_columns, line_rows = line_pixels(picture, "high_noise")
    lone = rows < line_rows.min() - 100
    assert lone.any(), "far above the running mean"
    middle = (line_columns.min() + line_columns.max()) / 2
    assert columns[lone].mean() == pytest.approx(middle, abs=8)


def test_the_legend_shows_each_expert_that_has_a_curve():
    picture = plot(high_noise=curve(lambda s: 0.3), low_noise=curve(lambda s: 0.1))
    assert len(line_pixels(picture, "high_noise", legend=True)[0]) > 20
    assert len(line_pixels(picture, "low_noise", legend=True)[0]) > 20
    lone = plot(high_noise=curve(lambda s: 0.3), low_noise=[])
    assert len(line_pixels(lone, "low_noise", legend=True)[0]) == 0


def test_an_empty_run_is_an_empty_picture_of_the_size_asked_for():
    picture = loss_plot(
        {"high_noise": [], "low_noise": []}, title="x", steps=10, size_px=(300, 200)
    )
    assert picture.size == (300, 200)
    for role in ("high_noise", "low_noise"):
        assert len(line_pixels(picture, role)[0]) == 0


def test_the_line_of_an_expert_is_broken_where_it_was_not_trained_for_long():
    """High noise in the first third and the last tenth of a run, as in a sequential one."""
    at = [*range(1, 34), *range(90, 101)]
    xs, ys = _broken(at, [0.1] * len(at), 100)
    gaps = [i for i, x in enumerate(xs) if x != x]
    assert gaps == [33] and ys[33] != ys[33] and [x for x in xs if x == x] == at
    taking_turns = [step for step in range(1, 101) if step // 20 % 2]
    assert all(x == x for x in _broken(taking_turns, [0.1] * len(taking_turns), 100)[0])
