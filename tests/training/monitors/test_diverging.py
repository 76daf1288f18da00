"""A run that blows up is told, of its expert and with the setting that mends it; noise and comparisons that come too
early are not."""

from dataclasses import replace

import numpy as np
import pytest
from tandem_wan.training.events import CheckpointSaved, Finding
from tandem_wan.training.monitors.monitor import Monitor
from tandem_wan.training.monitors.verdict import verdict_of
from tandem_wan.training.plans.settings import OptimizerSettings, PhaseSettings

FLAT = {"high_noise": lambda step: 0.01, "low_noise": lambda step: 0.006}
RATES = {"high_noise": lambda step: 2e-4, "low_noise": lambda step: 5e-5}


def found(replays, plan, loss, own=()):
    events = [
        replace(e, loss=loss(e.step) if not own or e.role in own else 0.08)
        for e in replays.run(plan, FLAT, RATES)
    ]
    heard = replays.told(Monitor(plan), events)
    return [e for e in heard if isinstance(e, Finding) and e.rule == "diverging"], heard


@pytest.mark.parametrize("preset", ["video effect", "motion 4x", "general video"])
@pytest.mark.parametrize("steps", [30, 300, 2000])
def test_a_loss_that_ends_far_above_its_beginning_is_told_of_its_expert_and_once(
    replays, preset, steps
):
    plan = replays.plan(steps, preset=preset, swap_every=2)
    rise = replays.between((0, 5.2), (steps // 3, 5.2), (2 * steps // 3, 9.3))
    told, _ = found(replays, plan, rise, own=("high_noise",))
    assert len(told) == 1 and told[0].kind == "warning"
    assert told[0].text.startswith("The high-noise expert is diverging")
    assert "high.rate" in told[0].text and "low.rate" not in told[0].text


@pytest.mark.parametrize("kind", ["gamma", "lognormal"])
@pytest.mark.parametrize("steps", [30, 100, 300, 1500])
def test_noise_of_95_percent_of_the_mean_is_no_rise(replays, kind, steps):
    plan, generator = replays.plan(steps, preset="general video"), np.random.default_rng(1)
    runs, said = 20, 0
    for _ in range(runs):
        spread = np.log(1 + 0.95**2)
        noise = (
            generator.gamma(0.95**-2, 0.95**2, steps + 1)
            if kind == "gamma"
            else generator.lognormal(-spread / 2, spread**0.5, steps + 1)
        )
        said += len(found(replays, plan, lambda step, n=noise: 0.08 * n[step])[0])
    assert said == 0


def test_with_automagic_the_advice_names_its_settings(replays):
    plan = replays.plan(100, optimizer=OptimizerSettings(name="automagic"))
    told, _ = found(replays, plan, replays.between((0, 0.1), (50, 0.1), (60, 0.4)))
    assert {f.text.partition("EXPERT")[1] for f in told} == {""}
    assert sorted(f.text.split()[1] for f in told) == ["high-noise", "low-noise"]
    assert all("maximum" in f.text for f in told)


def test_it_can_end_a_run_and_the_verdict_begins_with_it(replays):
    plan = replays.plan(100, stop_on=("diverging",))
    _, heard = found(replays, plan, replays.between((0, 0.1), (50, 0.1), (60, 0.4)))
    assert heard[-1] == "stopped" and heard[-2].step < 70
    heard = [*heard[:-1], CheckpointSaved(step=heard[-2].step, files={})]
    verdict = verdict_of(plan, replays.lines(heard))
    first, *rest = verdict.text().splitlines()
    assert first.startswith("The ") and "is diverging (step" in first and rest
    assert verdict.short().startswith("The ") and "; keep: high " in verdict.short()


def test_what_compares_the_experts_waits_until_both_have_been_trained_for_a_fifth(replays):
    """High noise is trained to two thirds of the run; before that low noise has the rate and weight of nothing."""
    phases = (PhaseSettings(train="high", steps=60), PhaseSettings(train="low", steps=40))
    plan = replays.plan(1000, order="sequential", phases=phases)
    weights = {"high_noise": lambda step: 0.009, "low_noise": lambda step: 0.008}
    heard = replays.told(Monitor(plan), replays.run(plan, weights, RATES))
    assert [e.step for e in heard if isinstance(e, Finding)] == [800]
