"""A start frame that is given clean within the latent (Wan 2.2 5B): its noise level is 0, and it is not learnt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tandem_wan.training.expert_trainer import build_trainers
from tandem_wan.training.loop import train
from tandem_wan.training.monitors.held_out import HeldOutLoss
from tandem_wan.training.preview import Preview
from tandem_wan.training.samples import ListedSamples, stack_batch
from tandem_wan.wan.conditions import frame_sigmas
from tandem_wan.wan.flow import mix


def watched(toys, spoil=lambda velocity: velocity):
    """A toy expert that takes a noise level for every frame, and keeps what it was asked."""
    expert = toys.expert("single")
    plain, asked = expert.velocity, []

    def velocity(x_t, sigma, *others):
        asked.append((x_t.detach().clone(), sigma.clone()))
        return spoil(plain(x_t, sigma if sigma.ndim == 1 else sigma[:, -1], *others))

    expert.velocity, expert.asked = velocity, asked
    return expert


def single(toys, expert, known, **plan):
    plan = toys.plan(family="single model", batch=2, **plan)
    clips = [replace(clip, known_frames=known) for clip in toys.clips(with_picture=False)]
    return plan, build_trainers(plan, {"single": expert}, clips), clips


def run(plan, trainers, **more):
    losses = []

    def listen(event):
        if hasattr(event, "grad_norm"):
            losses.append(event.loss)

    train(plan, trainers, save=lambda *a: None, listen=listen, **more)
    return losses


def test_every_frame_is_mixed_at_its_own_level():
    generator = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(2, 4, 3, 2, 2, generator=generator) for _ in range(2))
    sigma = torch.rand(2, 3, generator=generator)
    mixed = mix(x0, noise, sigma)
    for clip in range(2):
        for frame in range(3):
            level, place = sigma[clip, frame], (clip, slice(None), frame)
            expected = (1 - level) * x0[place] + level * noise[place]
            torch.testing.assert_close(mixed[place], expected)


def test_given_frames_are_at_level_zero_and_the_others_at_that_of_the_clip():
    sigma = torch.tensor([0.3, 0.9])
    assert frame_sigmas(sigma, 3, 0) is sigma
    expected = torch.tensor([[0.0, 0.3, 0.3], [0.0, 0.9, 0.9]])
    assert torch.equal(frame_sigmas(sigma, 3, 1), expected)


def test_the_given_frame_is_shown_clean_and_its_velocity_has_no_part_in_the_loss(toys):
    def spoiled(velocity):
        noise = torch.zeros_like(velocity)
        noise[:, :, 0] = 1e3
        return velocity + noise

    expert = watched(toys)
    plan, trainers, clips = single(toys, expert, 1, steps=6)
    losses = run(plan, trainers)
    shown = [clip.x0[:, :1] for clip in clips]
    for x_t, sigma in expert.asked:
        assert sigma.shape == (len(x_t), 3) and not sigma[:, 0].any() and sigma[:, 1:].all()
        for frame in x_t[:, :, :1]:
            assert any(torch.equal(frame, picture) for picture in shown)
    _, spoilt, _ = single(toys, watched(toys, spoiled), 1, steps=6)
    assert run(plan, spoilt) == losses
    assert toys.same(toys.weights(trainers), toys.weights(spoilt))
    _, whole, _ = single(toys, watched(toys), 0, steps=6)
    assert run(plan, whole) != losses


def test_the_held_out_loss_is_measured_as_it_is_trained(toys):
    expert = watched(toys)
    plan, trainers, clips = single(toys, expert, 1, steps=2)
    held = HeldOutLoss(plan, ListedSamples(clips[:1]), ListedSamples(clips[1:]))
    seen = []
    train(plan, trainers, save=lambda *a: None, listen=seen.append, held_out=held)
    assert all(sigma.ndim == 2 and not sigma[:, 0].any() for _, sigma in expert.asked)
    measured = [event for event in seen if hasattr(event, "trained")]
    assert [event.step for event in measured] == [0, 2]


def test_a_preview_begins_with_the_given_frame_and_leaves_it_as_it_is(toys):
    expert = watched(toys)
    plan, trainers, clips = single(toys, expert, 1, steps=2)
    shown = []
    preview = Preview(
        every=2,
        clips=clips[:1],
        negative=clips[1].context,
        show=lambda step, number, latent: shown.append(latent),
        steps=4,
    )
    run(plan, trainers, preview=preview)
    assert torch.equal(shown[0][:, :1], clips[0].x0[:, :1])
    assert not torch.equal(shown[0][:, 1:], clips[0].x0[:, 1:])
    previewed = expert.asked[2:]
    assert len(previewed) == 2 * 4
    assert all(torch.equal(x[0, :, :1], clips[0].x0[:, :1]) for x, _ in previewed)


def test_clips_of_a_batch_say_how_many_frames_are_given(toys):
    clips = [replace(clip, known_frames=1) for clip in toys.clips()[:2]]
    batch = stack_batch(clips, torch.device("cpu"))
    assert batch.known_frames == 1
    assert batch.learnt(batch.x0).shape[2] == batch.x0.shape[2] - 1
    assert batch.levels(torch.tensor([0.5, 0.7])).shape == (2, 3)
    assert stack_batch(toys.clips()[:2], torch.device("cpu")).levels(
        torch.tensor([0.5, 0.7])
    ).shape == (2,)


@pytest.mark.parametrize("known", [0, 1])
def test_training_with_given_frames_lowers_the_loss(toys, known):
    plan, trainers, _ = single(toys, watched(toys), known, steps=60)
    losses = run(plan, trainers)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
