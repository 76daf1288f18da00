"""What a held-out loss does not depend on, and what becomes of one that is no number."""

import json
import math
from dataclasses import replace

import pytest
import torch
from tandem_wan.training.events import CheckpointSaved, Finding, HeldOut, StepDone
from tandem_wan.training.loop import train
from tandem_wan.training.monitors.curves import measured
from tandem_wan.training.monitors.held_out import HeldOutLoss, divided
from tandem_wan.training.monitors.monitor import Monitor, monitor_of
from tandem_wan.training.monitors.verdict import verdict_of
from tandem_wan.training.preview import Preview
from tandem_wan.training.samples import ListedSamples
from tandem_wan.training.seat import Seat
from tandem_wan.training.turns import Turns

HELD = (1, 4)


def rig(toys, plan, **samples):
    samples = ListedSamples(toys.clips(8), **samples)
    shown, kept = divided(samples, HELD)
    return toys.trainers(plan, shown), HeldOutLoss(plan, kept, shown)


def told(toys, plan, weights=None, **samples):
    """One evaluation of all experts, with fresh adapters or with these weights."""
    trainers, measure = rig(toys, plan, **samples)
    heard = []
    for role, trainer in trainers.items():
        for place, parameter in enumerate(trainer.adapters.parameters() if weights else ()):
            parameter.data.copy_(weights[role][place])
        trainer.expert.attach(trainer.adapters)
    with Seat(trainers, Turns()) as seat:
        measure(0, trainers, seat, heard.append)
    return heard


def run(toys, plan, listen, **given):
    trainers, measure = rig(toys, plan)
    train(plan, trainers, save=lambda *a: None, listen=listen, held_out=measure, **given)
    return trainers


def held_of(events):
    return [event for event in events if isinstance(event, HeldOut)]


@pytest.mark.parametrize(
    "changes",
    [{"batch": 3}, {"accumulate": 4}, {"swap_every": 1}, {"steps": 99}, {"caption_dropout": 0.5},
     {"order": "joint"}, {"save_every": 7}],
    ids=str,
)  # fmt: skip
def test_equal_weights_have_an_equal_loss_however_the_plan_trains(toys, changes):
    plan = toys.plan(steps=12, dropout=0.2)
    weights = toys.weights(run(toys, plan, lambda e: None))
    ours = told(toys, plan, weights)
    empty = {"empty_context": toys.clips(1)[0].context * 0} if "caption_dropout" in changes else {}
    assert told(toys, replace(plan, **changes), weights, **empty) == ours
    assert len({event.loss for event in ours}) == 2


def test_it_does_depend_on_the_weights_the_seed_and_the_shift(toys):
    plan = toys.plan(steps=12)
    weights = toys.weights(run(toys, plan, lambda e: None))
    losses = [
        tuple(event.loss for event in told(toys, p, w))
        for p, w in (
            (plan, None),
            (plan, weights),
            (replace(plan, seed=1), weights),
            (replace(plan, shift=3.0), weights),
        )
    ]
    assert len({loss for pair in losses for loss in pair}) == 8


def test_previews_between_change_no_loss(toys):
    plan = toys.plan(steps=12, save_every=3, dropout=0.2)
    clip = toys.clips(1)[0]
    preview = Preview(
        every=2,
        clips=[clip],
        negative=torch.zeros_like(clip.context),
        show=lambda *a: None,
        steps=4,
    )
    plain, shown = [], []
    run(toys, plan, plain.append)
    run(toys, plan, shown.append, preview=preview)
    assert held_of(plain) == held_of(shown) and len(held_of(plain)) == 10


def test_a_run_that_goes_on_measures_what_it_would_have_measured(toys, tmp_path):
    from tandem_wan.training.checkpoints import CheckpointStore

    plan = toys.plan(steps=12, save_every=3, dropout=0.2)
    whole = []
    run(toys, plan, whole.append)
    for cut in (2, 3, 7, 9):
        store, events = CheckpointStore(tmp_path / str(cut), "x"), []

        def save(step, trainers, store=store):
            store.save(step, trainers, {})

        trainers, measure = rig(toys, plan)
        steps = [0]

        def listen(event, steps=steps, events=events):
            events.append(event)
            steps[0] += isinstance(event, StepDone)

        train(
            plan, trainers, save=save, listen=listen, held_out=measure,
            turns=toys.stop_when(lambda s=steps, c=cut: s[0] >= c), monitor=Monitor(plan),
        )  # fmt: skip
        trainers, measure = rig(toys, plan)
        first = store.resume(trainers)
        lines = [{"event": type(e).__name__, **vars(e)} for e in events]
        train(
            plan, trainers, save=save, listen=listen, held_out=measure, first_step=first,
            monitor=monitor_of(plan, json.loads(json.dumps(lines)), first),
        )  # fmt: skip
        assert sorted(held_of(events), key=lambda e: (e.step, e.role)) == held_of(whole)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_held_out_loss_that_is_no_number_is_told_and_compared_with_nothing(toys, number):
    """One clip breaks at one noise level; training goes on."""
    plan = toys.plan(steps=6, save_every=3)
    trainers, measure = rig(toys, plan)
    heard = []
    breaks = [False]
    expert = trainers["low_noise"].expert
    expert.after_velocity = lambda call, v: v * number if breaks[0] and not v.requires_grad else v

    def listen(event):
        heard.append(event)
        if isinstance(event, StepDone):
            breaks[0] = event.step == 3

    saved = []

    def save(step, _):
        saved.append(CheckpointSaved(step=step, files={}))

    end = train(plan, trainers, save=save, listen=listen, held_out=measure, monitor=Monitor(plan))
    assert end == "done"
    (finding,) = [e for e in heard if isinstance(e, Finding) and e.rule == "held-out loss"]
    assert finding.kind == "warning" and "low-noise expert is no number (step 3)" in finding.text
    assert [e.step for e in held_of(heard) if e.role == "low_noise"] == [0, 6]
    lines = [{"event": type(e).__name__, **vars(e)} for e in [*heard, *saved]]
    json.dumps(lines, allow_nan=False)
    verdict = verdict_of(plan, lines)
    assert verdict.keep["low_noise"].step == 6 and finding.text in verdict.findings


def test_it_is_told_once_of_a_run_that_goes_on(toys):
    plan, heard = toys.plan(), []
    finding = Finding(step=3, kind="warning", text="no number", rule="held-out loss")
    for told_before in ((), {"no number"}):
        tell = Monitor(plan, told=told_before).between(heard.append, Turns())
        tell(finding)
        tell(finding)
        tell(replace(finding, text="another"))
    assert [event.text for event in heard] == ["no number", "another", "another"]
    note = Finding(step=3, kind="note", text="of no rule")
    heard.clear()
    tell(note)
    tell(note)
    assert heard == [note, note]


def test_events_of_a_run_that_wrote_no_numbers_are_read_without_them(toys):
    lines = [
        {"event": "StepDone", "step": 1, "steps": 9, "role": "single", "loss": 0.1,
         "grad_norm": 1.0, "rate": 0.1, "seconds": 1.0},
        {"event": "HeldOut", "step": 1, "role": "single", "loss": math.nan, "trained": 0.1},
        {"event": "HeldOut", "step": 1, "role": "single", "loss": 0.2, "trained": 0.1},
    ]  # fmt: skip
    assert [event.loss for event in measured(lines)] == [0.1, 0.2]
