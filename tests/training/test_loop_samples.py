"""What the loop shows: clips as often as they repeat, some of them without their caption."""

import pytest
import torch
from tandem_wan.training.loop import train
from tandem_wan.training.samples import ListedSamples


def nothing(*args) -> None:
    pass


def run(plan, trainers, **changes):
    return train(plan, trainers, **{"save": nothing, "listen": nothing} | changes)


def contexts_seen(toys, plan, clips, first_step=0, steps=None):
    """The texts that the experts were given in each micro-batch, and the weights at the end."""
    trainers, seen, done = toys.trainers(plan, clips), [], []
    for trainer in trainers.values():
        velocity = trainer.expert.velocity

        def watched(x, sigma, context, condition, velocity=velocity, role=trainer.role):
            seen.append((role, context))
            return velocity(x, sigma, context, condition)

        trainer.expert.velocity = watched
    turns = toys.stop_when(lambda: len(done) == steps)
    run(plan, trainers, listen=done.append, turns=turns, first_step=first_step)
    return seen, trainers


def without_text(toys):
    """Samples whose empty text is a picture of its own."""
    return ListedSamples(toys.clips(), empty_context=torch.full((5, 6), 77.0))


def test_a_share_of_the_samples_is_trained_without_its_caption(toys):
    plan = toys.plan(steps=300, batch=2, caption_dropout=0.2)
    seen, _ = contexts_seen(toys, plan, without_text(toys))
    captions = [clip.context for clip in toys.clips()]
    texts = [text for _, context in seen for text in context]
    empty = [bool((text == 77).all()) for text in texts]
    assert all(
        e or any(torch.equal(t, c) for c in captions) for t, e in zip(texts, empty, strict=True)
    )
    assert 0.14 < sum(empty) / len(empty) < 0.26
    again, _ = contexts_seen(toys, plan, without_text(toys))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(seen, again, strict=True))


def test_a_resumed_run_leaves_out_the_captions_that_it_would_have_left_out(toys):
    plan = toys.plan(steps=30, batch=2, caption_dropout=0.3)
    whole, _ = contexts_seen(toys, plan, without_text(toys))
    first, _ = contexts_seen(toys, plan, without_text(toys), steps=13)
    rest, _ = contexts_seen(toys, plan, without_text(toys), first_step=13)
    assert len(first) == 13
    for (role, text), (other, expected) in zip([*first, *rest], whole, strict=True):
        assert role == other and torch.equal(text, expected)


def test_no_caption_dropout_changes_nothing(toys):
    plan = toys.plan(steps=20)
    trained = [contexts_seen(toys, plan, c)[1] for c in (toys.clips(), without_text(toys))]
    assert toys.same(*map(toys.weights, trained))


def test_the_noise_does_not_depend_on_the_captions_left_out(toys):
    losses = {}
    for share in (0.0, 1e-9):
        done = []
        trainers = toys.trainers(toys.plan(steps=20, caption_dropout=share), without_text(toys))
        run(trainers["high_noise"].plan, trainers, listen=done.append)
        losses[share] = [event.loss for event in done]
    assert losses[0.0] == losses[1e-9]


def test_caption_dropout_without_an_empty_text_is_a_mistake_of_the_program(toys):
    with pytest.raises(ValueError, match="empty text"):
        toys.trainers(toys.plan(caption_dropout=0.1), toys.clips())


def test_a_clip_that_repeats_is_learnt_that_much_more_often(toys):
    plan = toys.plan(steps=80, family="single model")
    clips = toys.clips()
    samples = ListedSamples(clips, repeats=[2.0, 1.0, 0.5, 0.0, 0.5])
    seen, _ = contexts_seen(toys, plan, samples)
    counts = [sum(torch.equal(text[0], clip.context) for _, text in seen) for clip in clips]
    assert counts == [40, 20, 10, 0, 10]
