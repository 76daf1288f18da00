"""What the plan node says before a run: true numbers, a picture of the mask itself, and refusals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tandem_wan.radial_attention.grid import TokenGrid
from tandem_wan.radial_attention.layout import dense_mask
from tandem_wan.radial_attention.settings import PRESETS, RadialSettings

pytestmark = pytest.mark.comfy


def test_the_report_has_the_published_densities_and_the_limits_of_arithmetic(comfy):
    """768 x 1280, 69 frames, decay 0.2: density 0.2871 as the published code has it."""
    _, report = _plan(
        width=768, height=1280, frames=69, preset="reference parity", decay_factor=0.2, steps=50
    )
    assert "density 0.287" in report and "3.48 times" in report
    assert "12 of 50 steps are dense" in report


def test_the_gain_of_a_run_is_amdahls(comfy):
    """480p, 81 frames, balanced at 50 steps, by hand: attention is 52 % of the work of Wan 14B."""
    from tandem_wan.radial_attention.estimate import attention_share, gain

    grid = TokenGrid(21, 30, 52)
    n, d = grid.tokens, 5120
    attention = 4 * n * n * d
    others = 12 * n * d * d + 4 * n * d * 13824 + 4 * n * 512 * d
    assert attention_share(n) == pytest.approx(attention / (attention + others))
    assert attention_share(n) == pytest.approx(0.52, abs=0.005)
    found = gain(RadialSettings(dense_layers="0"), grid, 0.338, dense_steps=12, steps=50)
    # Twelve of 50 steps and one of 40 layers dense: 1.35 (the specification's table).
    assert found.whole == pytest.approx(1.35, abs=0.01)
    alone = gain(RadialSettings(dense_layers=""), grid, 0.338, dense_steps=0, steps=50)
    assert alone.whole == pytest.approx(1.53, abs=0.01)


def test_little_to_gain_is_said_before_all_else(comfy):
    _, report = _plan(frames=33, steps=4)
    assert report.splitlines()[1].startswith("Only 1.0") and "32% of the work" in report


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"width": 833}, "width is 833 pixels.*832 or 848"),
        ({"frames": 80}, "frames is 80.*77 or 81"),
        ({"frames": 5}, "leaves nothing out"),
        ({"dense_timesteps": 20}, "none of the 20 steps"),
        ({"dense_layers": "0-39"}, "none of the 20 steps"),
        ({"dense_layers": "0-40"}, "40 blocks"),
        ({"decay_factor": -1.0}, "decay_factor is -1.*0.2 to 1"),
        ({"steps": 0}, "steps is 0.*1 to 10,000"),
        ({"preset": "faster"}, "balanced, quality"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_queued(comfy, inputs, words):
    import re

    from tandem_wan.nodes.radial_plan import TandemRadialPlan

    said = TandemRadialPlan.validate_inputs(**(_DEFAULTS | inputs))
    assert re.search(words, said, re.DOTALL), said


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_picture_is_that_of_the_mask(comfy, name):
    """Against the mask written out, at a size where that fits."""
    from tandem_wan.nodes.radial_plot import close_up, frame_pairs

    grid = TokenGrid(12, 6, 9, before=0 if PRESETS[name].reference else 5, after=3)
    layout = PRESETS[name].layout(grid)
    mask = dense_mask(layout)[
        grid.before : grid.before + grid.video, grid.before : grid.before + grid.video
    ]
    pairs = mask.reshape(12, 54, 12, 54).mean(axis=(1, 3))
    np.testing.assert_allclose(frame_pairs(layout, grid), pairs, atol=1e-9)
    picture, frames = close_up(layout, grid)
    near = mask[6 * 54 : 7 * 54, frames.start * 54 : frames.stop * 54]
    np.testing.assert_allclose(picture, near, atol=1e-9)


def test_a_picture_comes_out(comfy):
    mask, _ = _plan()
    assert mask.shape == (1, 560, 1200, 3) and 0 <= mask.min() < mask.max() <= 1


_DEFAULTS = {"width": 832, "height": 480, "frames": 81, "preset": "balanced", "decay_factor": 0.0, "steps": 20,
             "dense_layers": "", "dense_timesteps": -1}  # fmt: skip


def _plan(**inputs):
    from tandem_wan.nodes.radial_plan import TandemRadialPlan

    TandemRadialPlan.hidden = SimpleNamespace(unique_id=None, prompt=None, extra_pnginfo=None)
    return TandemRadialPlan.execute(**(_DEFAULTS | inputs)).args
