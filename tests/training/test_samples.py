"""Clips of a batch stay together with their captions and pictures."""

import pytest
import torch
from tandem_wan.training.cache.files import entry_key, entry_path
from tandem_wan.training.cache.latent_cache import EntryReader, LatentCache
from tandem_wan.training.loop import train
from tandem_wan.training.samples import (
    CachedSamples,
    ClipKeys,
    EncodedClip,
    ListedSamples,
    ViewKeys,
    as_samples,
    stack_batch,
)
from tandem_wan.wan.conditions import start_frame_mask
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import LatentSize

CPU = torch.device("cpu")


def clip(number: float, **parts) -> EncodedClip:
    return EncodedClip(
        name=str(number),
        x0=torch.full((4, 3, 2, 2), number),
        context=torch.full((5, 6), 10 + number),
        **parts,
    )


def with_picture(number: float, **parts) -> EncodedClip:
    mask, latent = torch.full((4, 3, 2, 2), 20 + number), torch.full((4, 3, 2, 2), 30 + number)
    return clip(number, mask=mask, image_latent=latent, **parts)


def test_row_i_of_a_batch_is_clip_i_in_every_part():
    batch = stack_batch(
        [with_picture(i, clip_vision=torch.full((7, 8), 40.0 + i)) for i in (1.0, 2.0, 3.0)], CPU
    )
    for row, number in enumerate((1.0, 2.0, 3.0)):
        assert batch.x0[row].unique().tolist() == [number]
        assert batch.context[row].unique().tolist() == [10 + number]
        assert batch.condition.mask[row].unique().tolist() == [20 + number]
        assert batch.condition.latent[row].unique().tolist() == [30 + number]
        assert batch.condition.clip_vision[row].unique().tolist() == [40 + number]


def test_text_to_video_clips_have_no_condition():
    assert stack_batch([clip(1.0), clip(2.0)], CPU).condition is None


def test_22_has_no_image_features():
    assert stack_batch([with_picture(1.0)], CPU).condition.clip_vision is None


def test_a_longer_caption_is_stacked_with_zeros_after_the_shorter_one():
    short, long = clip(1.0), clip(2.0)
    object.__setattr__(long, "context", torch.full((9, 6), 12.0))
    context = stack_batch([short, long], CPU).context
    assert context.shape == (2, 9, 6)
    assert torch.equal(context[0, :5], short.context) and not context[0, 5:].any()
    assert torch.equal(context[1], long.context)


def put(cache: LatentCache, name: str, tensor: torch.Tensor) -> str:
    key = entry_key("test", {"name": name})
    cache.write(key, tensor, name)
    return key


def in_cache(cache: LatentCache, clips: list[EncodedClip]) -> list[ClipKeys]:
    """Each clip, and 100 more as its second view."""
    listed = []
    for c in clips:
        views = tuple(
            ViewKeys(
                put(cache, f"{c.name} x0 {view}", x0(c.x0)),
                None if c.image_latent is None else put(cache, f"{c.name} i {view}", x0(c.image_latent)),
                None if c.clip_vision is None else put(cache, f"{c.name} v {view}", c.clip_vision),
            )
            for view, x0 in enumerate((torch.clone, lambda x: x + 100))
        )  # fmt: skip
        text = put(cache, f"{c.name} text", c.context)
        listed.append(ClipKeys(c.name, tuple(c.x0.shape), text, views, repeats=1.5))
    return listed


def same_clip(ours: EncodedClip, theirs: EncodedClip) -> bool:
    parts = ("x0", "context", "mask", "image_latent", "clip_vision")
    pairs = [(getattr(ours, part), getattr(theirs, part)) for part in parts]
    return ours.name == theirs.name and all(a is b is None or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", ["text to video", "image to video", "with image features"])
def test_clips_from_the_cache_are_those_that_were_put_there(tmp_path, kind):
    cache, clips = LatentCache(tmp_path), []
    for number in (1.0, 2.0, 3.0):
        c = clip(number)
        if kind != "text to video":
            mask = start_frame_mask(LatentSize(3, 2, 2))[0]
            features = torch.full((7, 8), number) if kind == "with image features" else None
            c = clip(number, mask=mask, image_latent=c.x0 + 30, clip_vision=features)
        clips.append(c)
    samples = CachedSamples(in_cache(cache, clips), EntryReader(cache))
    assert as_samples(samples) is samples
    assert (len(samples), samples.repeats, samples.views) == (3, [1.5] * 3, [2] * 3)
    assert samples.shapes == as_samples(clips).shapes == [(4, 3, 2, 2)] * 3
    for index, c in enumerate(clips):
        assert same_clip(samples[index], c) and same_clip(samples.load(index, 0), c)
        other = samples.load(index, 1)
        assert torch.equal(other.x0, c.x0 + 100) and torch.equal(other.context, c.context)
        if c.image_latent is not None:
            assert torch.equal(other.image_latent, c.image_latent + 100)


def test_shapes_are_known_without_a_file(tmp_path):
    cache = LatentCache(tmp_path)
    keys = in_cache(cache, [clip(1.0)])
    for key in (keys[0].text, *keys[0].views[0]):
        if key:
            entry_path(tmp_path, key).unlink()
    samples = CachedSamples(keys, EntryReader(cache))
    assert samples.shapes == [(4, 3, 2, 2)]
    with pytest.raises(UserError, match="Queue the run again"):
        samples[0]


def test_a_run_from_the_cache_learns_bit_for_bit_what_one_from_memory_learns(toys, tmp_path):
    clips = toys.clips()
    for c in clips:
        object.__setattr__(c, "mask", start_frame_mask(LatentSize(3, 2, 2))[0])
    cache, plan = LatentCache(tmp_path), toys.plan(steps=30, batch=2, caption_dropout=0.2)
    keys = [k._replace(views=k.views[:1], repeats=1.0) for k in in_cache(cache, clips)]
    empty = torch.full((5, 6), 0.5)
    reader = EntryReader(cache, memory_bytes=500)
    streamed = CachedSamples(keys, reader, empty_text=put(cache, "empty", empty))
    learnt = []
    for samples in (ListedSamples(clips, empty_context=empty), streamed):
        trainers, losses = toys.trainers(plan, samples), []
        train(plan, trainers, save=lambda *a: None, listen=lambda e, to=losses: to.append(e.loss))
        learnt.append((toys.weights(trainers), losses))
    assert learnt[0][1] == learnt[1][1]
    assert toys.same(learnt[0][0], learnt[1][0])


def test_a_cache_deleted_in_the_middle_of_a_run_saves_it_and_says_what_to_do(toys, tmp_path):
    clips = toys.clips(with_picture=False)
    cache, plan, saved = LatentCache(tmp_path), toys.plan(steps=30), []
    samples = CachedSamples(in_cache(cache, clips), EntryReader(cache, memory_bytes=1))
    trainers = toys.trainers(plan, samples)

    def delete(event):
        if event.step == 7:
            for path in tmp_path.rglob("*.safetensors"):
                path.unlink()

    with pytest.raises(
        UserError, match="goes on where it is, and what is missing is encoded again"
    ):
        train(plan, trainers, save=lambda step, t: saved.append(step), listen=delete)
    assert saved == [7]
