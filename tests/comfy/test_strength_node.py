"""The node that shows a strength schedule: the host's own steps, a picture and a table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.comfy


@pytest.mark.parametrize("scheduler", ["simple", "beta", "karras", "linear_quadratic"])
def test_the_steps_are_those_that_a_model_is_sampled_with(pair, scheduler):
    from tandem_wan.nodes.host.sampling import make_schedule, with_shift
    from tandem_wan.nodes.host.schedules import flow_sigmas

    expected = make_schedule(
        with_shift(pair["high_noise"], 5.0),
        steps=6,
        scheduler=scheduler,
        sampler_name="euler",
        denoise=1.0,
        boundary=0.9,
    )
    assert torch.equal(flow_sigmas(steps=6, shift=5.0, scheduler=scheduler), expected.sigmas)


def test_the_node_shows_the_strength_of_each_step_and_passes_the_text_on(node):
    out = node.execute("1 0.5", "0.6", steps=4, high=0.8)
    schedule, plot, report = out.result
    assert schedule == "1 0.5"
    assert plot.shape[0] == 1 and plot.shape[-1] == 3
    lines = [line.split() for line in report.splitlines()]
    assert [line[2:4] for line in lines if line[0].isdigit() and len(line) == 4] == [
        ["high", "0.800"],
        ["high", "0.400"],
        ["low", "0.600"],
        ["low", "0.600"],
    ]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"schedule": "1@0, x@1"}, "'x' at position 6"),
        ({"schedule": "1", "schedule_low": "1;0"}, "';' at position 2"),
        ({"schedule": "1", "schedule_low": "  "}, None),
        ({"schedule": None, "schedule_low": None}, None),
    ],
)
def test_a_schedule_that_cannot_be_read_is_refused_when_it_is_queued(node, inputs, message):
    answer = node.validate_inputs(**inputs)
    assert answer is True if message is None else message in answer


def test_the_higher_schedule_is_drawn_higher_and_the_switch_between_the_steps(node):
    picture = _picture("1", "0.25", steps=4)
    high, low = (_pixels(picture, role) for role in ("high_noise", "low_noise"))
    assert high[0].max() < low[0].min(), "rows count downwards"
    assert high[1].max() < low[1].min(), "the high-noise expert's steps come first"


def _picture(high, low, *, steps):
    from tandem_wan.nodes.host.schedules import flow_sigmas
    from tandem_wan.nodes.strength_plot import strength_plot
    from tandem_wan.wan.lora.strength import parse_strength
    from tandem_wan.wan.lora.strength_table import strength_run

    sigmas = flow_sigmas(steps=steps, shift=5.0, scheduler="simple").tolist()
    run = strength_run(parse_strength(high), parse_strength(low), sigmas, boundary=0.9)
    return strength_plot(run)


def _pixels(picture, role):
    """(rows, columns) where the picture has the full colour of an expert's line, without the legend."""
    from PIL import ImageColor
    from tandem_wan.training.plots import COLOURS

    colour = np.array(ImageColor.getrgb(COLOURS[role]))
    found = (np.abs(picture.astype(int) - colour) <= 2).all(axis=2)
    # The legend stands above the axes.
    found[:40] = False
    return np.nonzero(found)


@pytest.fixture
def node(monkeypatch, tmp_path):
    import folder_paths
    from tandem_wan.nodes import strength

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return strength.TandemStrengthSchedule.PREPARE_CLASS_CLONE(None)
