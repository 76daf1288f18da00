"""The picture of a plan shows the turns that the loop takes, and the exposures that the budget counts."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

pytestmark = pytest.mark.comfy


@pytest.fixture(autouse=True)
def host(comfy):
    """The nodes import it."""


def plan_of(**changes):
    from tandem_wan.training.plans.plan import TrainingPlan

    return TrainingPlan(**{"steps": 160, "swap_every": 8, "save_every": 40, **changes})


def counts(clips=16, shown=16.0):
    from tandem_wan.training.data.dataset import Counts

    return Counts(clips=clips, shown=shown, regularisation=0.0)


def share_of(picture: np.ndarray, colour: str) -> float:
    """Part of the pixels that have exactly this colour."""
    wanted = np.round(np.array(to_rgb(colour)) * 255)
    return float((np.abs(picture.astype(int) - wanted).max(-1) <= 1).mean())


@pytest.mark.parametrize("order", ["interleaved", "joint", "sequential"])
@pytest.mark.parametrize(("steps", "swap"), [(160, 8), (157, 10), (2200, 10), (7, 1)])
def test_the_stretches_are_the_steps_at_which_the_loop_takes_an_expert(steps, swap, order):
    from tandem_wan.nodes.plan_plot import turns_of
    from tandem_wan.training.expert_turns import role_at

    plan = plan_of(steps=steps, swap_every=swap, order=order)
    if order == "joint" and steps > 2000:
        assert turns_of(plan, "high_noise") == [(0, steps)], "too many to be told apart"
        return
    taken = {role: set() for role in plan.roles()}
    for role in plan.roles():
        stretches = turns_of(plan, role)
        for begin, length in stretches:
            taken[role] |= set(range(begin, begin + length))
        ends = [begin + length for begin, length in stretches]
        assert not set(ends) & {begin for begin, _ in stretches}, "neighbours are one stretch"
    assert all(step in taken[role_at(plan, step)] for step in range(steps))
    assert sum(map(len, taken.values())) == steps


def test_each_expert_has_its_colour_and_a_single_model_one():
    from tandem_wan.nodes.plan_plot import plan_plot
    from tandem_wan.training.plans.budget import expert_budgets
    from tandem_wan.training.plots import COLOURS

    both = plan_plot(plan_of(), counts())
    assert both.shape == (420, 900, 3)
    high, low = share_of(both, COLOURS["high_noise"]), share_of(both, COLOURS["low_noise"])
    steps = {budget.role: budget.steps for budget in expert_budgets(plan_of(), counts())}
    # Its part of the steps is its part of the lanes and of the bar.
    assert high / (high + low) == pytest.approx(steps["high_noise"] / 160, abs=0.02)
    alone = plan_plot(plan_of(family="single model"), counts())
    assert share_of(alone, COLOURS["high_noise"]) == 0


def test_the_limit_of_epochs_is_shown_where_it_holds():
    from tandem_wan.nodes.plan_plot import _good_exposures

    effect = plan_of(preset="video effect")
    assert _good_exposures(effect, counts()) == (15, 25, 50)
    assert _good_exposures(effect, counts(shown=160.0)) == (15, 25, 500)
    assert _good_exposures(plan_of(preset="video effect", allow_long=True), counts())[2] == 0
    style = plan_of(preset="image style", batch=2)
    assert _good_exposures(style, counts()) == (60, 120, 0)
    assert _good_exposures(plan_of(preset="motion 4x"), counts()) is None


def test_a_plan_of_a_million_steps_is_drawn():
    from tandem_wan.nodes.plan_plot import plan_plot

    assert plan_plot(plan_of(steps=1_000_000, save_every=1000), counts()).std() > 0
