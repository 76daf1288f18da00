"""The picture of the monitors shows what was measured."""

import numpy as np
import pytest
from PIL import ImageColor
from tandem_wan.training.monitors.curves import Measured
from tandem_wan.training.plots import COLOURS, monitor_plot
from tandem_wan.training.sigma_histogram import BINS, SigmaHistogram


def part_of(picture, number: int) -> np.ndarray:
    """The pixels of one of the six parts, counted by rows."""
    pixels = np.asarray(picture).astype(int)
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 3
    top, left = (number // 3) * height, (number % 3) * width
    return pixels[top : top + height, left : left + width]


def rows(picture, colour: str, number: int) -> np.ndarray:
    """Mean row of a colour in each column of a part of the picture, from left to right; its legend left out."""
    part = part_of(picture, number)
    width = part.shape[1]
    same = (np.abs(part - np.array(ImageColor.getrgb(colour))) <= 2).all(axis=2)
    columns = [same[:, column] for column in range(width)]
    return np.array([np.nonzero(column)[0].mean() for column in columns if column.any()])


def points(function, steps=range(1, 60)):
    return [(step, function(step)) for step in steps]


def test_each_part_shows_its_own_measure():
    measured = Measured(
        weights={"high_noise": points(lambda s: s / 100)},
        rates={"low_noise": points(lambda s: 1 - s / 100)},
        held_out={"high_noise": points(lambda s: 1 - s / 100, range(1, 60, 10))},
        trained={"high_noise": points(lambda s: 0.2, range(1, 60, 10))},
        weight_ratio=points(lambda s: s / 50),
        grad_norms={"low_noise": points(lambda s: 2.0**-s)},
    )
    picture = monitor_plot(measured, title="run", steps=200)
    assert picture.size == (1500, 800)
    high, low = COLOURS["high_noise"], COLOURS["low_noise"]
    # Rows count downwards: the weight and its ratio rise, rate and held-out loss fall.
    drawn = ((0, high, -1), (1, "#6a4c93", -1), (2, low, 1), (3, high, 1), (5, low, 1))
    for part, colour, way in drawn:
        found = rows(picture, colour, part)[10:90]
        assert way * (found[-1] - found[0]) > 60, part
    for part, colour in ((0, low), (2, high), (3, low), (5, high)):
        assert len(rows(picture, colour, part)) == 0


def test_a_gradient_norm_is_drawn_on_a_scale_of_factors():
    """What falls by the same factor at every step is a straight line."""
    curve = {"low_noise": points(lambda s: 2.0**-s, range(1, 6))}
    found = rows(
        monitor_plot(Measured(grad_norms=curve), title="x", steps=10), COLOURS["low_noise"], 5
    )
    first, last = found[5], found[150]
    middle = found[77]
    assert last - first > 60 and abs(middle - (first + last) / 2) < 0.1 * (last - first)


@pytest.mark.parametrize("roles", [("high_noise", "low_noise"), ("single",)])
def test_the_histogram_has_a_bar_as_high_as_its_count_and_the_expected_line_beside_it(roles):
    edges = {"high_noise": (0.9, 1.0), "low_noise": (0.0, 0.9), "single": (0.0, 1.0)}
    counts = (0,) * (BINS // 2) + (40,) * (BINS // 2)
    histograms = {
        role: SigmaHistogram(
            edges=tuple(np.linspace(*edges[role], BINS + 1)), counts=counts, expected=(20.0,) * BINS
        )
        for role in roles
    }
    picture = monitor_plot(Measured(), title="x", steps=10, histograms=histograms)
    part = part_of(picture, 4)
    # The high-noise expert's lies left: it stands first everywhere.
    for place, role in enumerate(roles):
        width = part.shape[1] // len(roles)
        axes = part[:, place * width : (place + 1) * width]
        bars, line = filled(axes, role), (axes.max(axis=2) < 60)
        bar_columns, heights = np.nonzero(bars.any(axis=0))[0], bars.sum(axis=0)
        tall = heights[bar_columns].max()
        assert tall > 100 and bar_columns.min() > 0.4 * width, "the lower half has no bar"
        bottom = np.nonzero(bars.any(axis=1))[0].max()
        # Half as high as the bars, from one end to the other: the only black line at that height.
        level = bottom - tall / 2
        at = [row for row in range(len(axes)) if line[row].sum() > 0.6 * width]
        assert min(abs(row - level) for row in at) < 6


def filled(axes: np.ndarray, role: str) -> np.ndarray:
    """Where a bar of an expert's colour is, which is 60 % of it on white."""
    colour = 0.6 * np.array(ImageColor.getrgb(COLOURS[role])) + 0.4 * 255
    return (np.abs(axes - colour) <= 3).all(axis=2)


def test_a_run_without_measures_is_an_empty_picture():
    picture = monitor_plot(Measured(), title="x", steps=10, size_px=(600, 400))
    assert picture.size == (600, 400)
    assert all(len(rows(picture, COLOURS["high_noise"], quarter)) == 0 for quarter in range(6))
