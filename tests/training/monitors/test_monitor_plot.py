"""The picture of the monitors shows what was measured."""

import numpy as np
from PIL import ImageColor
from tandem_wan.training.monitors.curves import Measured
from tandem_wan.training.plots import COLOURS, monitor_plot


def rows(picture, colour: str, quarter: int) -> np.ndarray:
    """Mean row of a colour in each column of a quarter of the picture, from left to right; its legend left out."""
    pixels = np.asarray(picture).astype(int)
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    top, left = (quarter // 2) * height, (quarter % 2) * width
    part = pixels[top : top + height, left : left + width]
    same = (np.abs(part - np.array(ImageColor.getrgb(colour))) <= 2).all(axis=2)
    columns = [same[:, column] for column in range(width)]
    return np.array([np.nonzero(column)[0].mean() for column in columns if column.any()])


def points(function, steps=range(1, 60)):
    return [(step, function(step)) for step in steps]


def test_each_quarter_shows_its_own_measure():
    measured = Measured(
        weights={"high_noise": points(lambda s: s / 100)},
        rates={"low_noise": points(lambda s: 1 - s / 100)},
        held_out={"high_noise": points(lambda s: 1 - s / 100, range(1, 60, 10))},
        trained={"high_noise": points(lambda s: 0.2, range(1, 60, 10))},
        weight_ratio=points(lambda s: s / 50),
    )
    picture = monitor_plot(measured, title="run", steps=200)
    assert picture.size == (1200, 800)
    high, low = COLOURS["high_noise"], COLOURS["low_noise"]
    # Rows count downwards: the weight and its ratio rise, rate and held-out loss fall.
    for quarter, colour, way in ((0, high, -1), (1, "#6a4c93", -1), (2, low, 1), (3, high, 1)):
        found = rows(picture, colour, quarter)[10:120]
        assert way * (found[-1] - found[0]) > 100, quarter
    assert len(rows(picture, low, 0)) == len(rows(picture, high, 2)) == 0


def test_a_run_without_measures_is_an_empty_picture():
    picture = monitor_plot(Measured(), title="x", steps=10, size_px=(600, 400))
    assert picture.size == (600, 400)
    assert all(len(rows(picture, COLOURS["high_noise"], quarter)) == 0 for quarter in range(4))
