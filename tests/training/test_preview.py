"""Previews: sampled by the experts in training, the same however often the run is parked, and harmless to it."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.training.events import Finding
from tandem_wan.training.loop import train
from tandem_wan.training.preview import Preview, can_preview, schedule
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.flow import share_above


class Often(Turns):
    """Parks at every look whose number is in `at`, and is interrupted at those in `hits`."""

    interrupts = (KeyboardInterrupt,)

    def __init__(self, at=(), stop_at=None):
        self.at, self.stop_at = set(at), stop_at
        self.looks = 0

    def over(self):
        self.looks += 1
        return self.looks in self.at or self.looks == self.stop_at

    def wait(self):
        if self.looks == self.stop_at:
            raise RunStopped


def previewed(toys, *, turns=None, every=5, interrupted_calls=(), plan=None, clips=1, **changes):
    """(end, losses, previews by step and number, trainers) of a short run."""
    plan = toys.plan(**({"steps": 12, "dropout": 0.2} | (plan or {})))
    trainers = toys.trainers(plan)
    calls = {"count": 0}

    def hit(call):
        del call
        calls["count"] += 1
        if calls["count"] in interrupted_calls:
            raise KeyboardInterrupt

    for trainer in trainers.values():
        trainer.expert.before_velocity = hit
    shown, losses = {}, []
    shots = toys.clips()[:clips]
    preview = Preview(
        every=every,
        clips=shots,
        negative=torch.zeros_like(shots[0].context),
        show=lambda step, number, latent: shown.update({(step, number): latent}),
        steps=6,
        **changes,
    )
    end = train(
        plan,
        trainers,
        save=lambda *args: None,
        listen=lambda event: losses.append((event.step, event.loss)),
        turns=turns,
        preview=preview if every else None,
    )
    return end, losses, shown, trainers


def test_previews_come_when_asked_and_change_nothing_of_the_run(toys):
    _, without, none, trained = previewed(toys, every=0)
    _, losses, shown, trainers = previewed(toys)
    assert losses == without and list(shown) == [(5, 1), (10, 1)] and none == {}
    assert toys.same(toys.weights(trainers), toys.weights(trained))
    assert not torch.equal(shown[5, 1], shown[10, 1]), "the adapters have learnt in between"


def test_a_preview_is_the_same_however_often_the_run_is_parked_or_interrupted(toys):
    _, losses, shown, _ = previewed(toys, clips=2)
    for turns, hits in ((Often(at=range(1, 60, 2)), ()), (Often(), (6, 7, 9, 14, 20))):
        _, again, parked, _ = previewed(toys, turns=turns, interrupted_calls=hits, clips=2)
        assert again == losses and parked.keys() == shown.keys()
        assert all(torch.equal(parked[which], latent) for which, latent in shown.items())


def test_each_of_several_previews_is_what_it_would_be_alone(toys):
    _, losses, shown, _ = previewed(toys, clips=3)
    assert list(shown) == [(step, number) for step in (5, 10) for number in (1, 2, 3)]
    _, again, alone, _ = previewed(toys)
    assert again == losses and torch.equal(shown[5, 1], alone[5, 1])
    assert not torch.equal(shown[5, 1], shown[5, 2])


@pytest.mark.parametrize("order", ["interleaved", "joint", "sequential"])
def test_a_preview_takes_both_experts_whatever_order_they_are_trained_in(toys, order):
    """Trap 14: where the expert changes every step, a preview must not keep the one that was trained last."""
    _, _, shown, trainers = previewed(toys, every=12, plan={"order": order})
    sigmas = schedule(6, toys.plan().shift)
    for role, trainer in trainers.items():
        seen = [entry[2].item() for entry in trainer.expert.log if entry[:2] == ("velocity", role)]
        # Two calls a step of the sampler: with the caption, and without.
        low, high = trainer.expert.sigma_range
        own = [s for s in sigmas[:-1] if (low <= s if role == "high_noise" else s < high)]
        assert own and seen[-2 * len(own) :] == pytest.approx([s for s in own for _ in range(2)])
    assert list(shown) == [(12, 1)]


def test_a_stop_in_the_middle_of_a_preview_ends_the_run_at_the_step_it_has(toys):
    end, losses, shown, trainers = previewed(toys, turns=Often(stop_at=8))
    assert end == "stopped" and shown == {} and losses[-1][0] == 5
    adapters = [a for t in trainers.values() for a in t.adapters.values()]
    assert all(adapter.training for adapter in adapters), "dropout is on again"


def test_a_preview_that_fails_is_said_and_the_run_goes_on(toys):
    _, losses, _, trained = previewed(toys, every=0)
    plan, findings, again, shown = toys.plan(steps=12, dropout=0.2), [], [], []
    trainers, clips = toys.trainers(plan), toys.clips()[:2]

    def no_room(step, number, latent):
        if number == 1:
            raise MemoryError(f"no room for {tuple(latent.shape)} at {step}")
        shown.append((step, number))

    def listen(event):
        (findings if isinstance(event, Finding) else again).append(event)

    nothing = torch.zeros_like(clips[0].context)
    preview = Preview(every=5, clips=clips, negative=nothing, show=no_room, steps=2)
    end = train(plan, trainers, save=lambda *args: None, listen=listen, preview=preview)
    assert end == "done"
    assert [(event.step, event.loss) for event in again] == losses
    assert toys.same(toys.weights(trainers), toys.weights(trained))
    assert [(found.step, found.kind) for found in findings] == [(5, "warning"), (10, "warning")]
    assert "Preview 1 at step 5" in findings[0].text and "goes on" in findings[0].text
    assert "MemoryError: no room for" in findings[0].text
    assert shown == [(5, 2), (10, 2)], "the others are made"


def test_a_preview_follows_euler_over_both_experts(toys):
    """Against the sum written out: x moves by the guided velocity times the change of sigma."""
    _, _, shown, trainers = previewed(toys, every=12, cfg=2.0)
    plan, clip = toys.plan(), toys.clips()[0]
    first = trainers["high_noise"]
    x, roles = None, []
    from tandem_wan.training.samples import stack_batch
    from tandem_wan.training.schedule import generator_for

    x = torch.randn(clip.x0.shape, generator=generator_for(7, "preview"))[None]
    batch = stack_batch([clip], first.expert.device)
    for trainer in trainers.values():
        trainer.expert.before_velocity = lambda call: None
        trainer.expert.attach(trainer.adapters)
        for adapter in trainer.adapters.values():
            adapter.eval()
    sigmas = schedule(6, plan.shift)
    for i, sigma in enumerate(sigmas[:-1]):
        role = "high_noise" if sigma >= 0.9 else "low_noise"
        roles.append(role)
        expert, at = trainers[role].expert, torch.tensor([sigma])
        with expert.in_use(), torch.no_grad():
            yes = expert.velocity(x, at, batch.context, batch.condition)
            no = expert.velocity(x, at, torch.zeros_like(batch.context), batch.condition)
        x = x + (sigmas[i + 1] - sigma) * (no + 2.0 * (yes - no))
    assert set(roles) == {"high_noise", "low_noise"}
    torch.testing.assert_close(shown[12, 1], x[0], rtol=0, atol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
def test_the_schedule_goes_from_noise_to_clean_and_gives_the_high_expert_its_share(shift):
    sigmas = schedule(200, shift)
    assert sigmas[0] == 1.0 and sigmas[-1] == 0.0 and sigmas == sorted(sigmas, reverse=True)
    assert len(set(sigmas)) == 201
    share = sum(sigma >= 0.9 for sigma in sigmas[:-1]) / 200
    assert share == pytest.approx(share_above(0.9, shift), abs=0.01)


def test_a_lone_expert_of_two_has_no_preview(toys):
    assert can_preview(toys.plan()) and can_preview(toys.plan(family="single model"))
    assert not can_preview(toys.plan(train="high"))
