"""What the host's VAE and text encoder have made once they make never again."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.cache.files import entry_path
from tandem_wan.training.cache.latent_cache import LatentCache
from tandem_wan.training.loop import train
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.video import View, read_clip

pytestmark = pytest.mark.comfy


@pytest.fixture
def calls(vae, clip, monkeypatch):
    """How often the VAE and the text encoder have been called."""
    counts = {"vae": 0, "text": 0}

    def counted(name, method):
        def call(*args, **more):
            counts[name] += 1
            return method(*args, **more)

        return call

    monkeypatch.setattr(vae, "encode", counted("vae", vae.encode))
    monkeypatch.setattr(
        clip.cond_stage_model,
        "encode_token_weights",
        counted("text", clip.cond_stage_model.encode_token_weights),
    )
    return counts


@pytest.fixture
def setup(pair, vae, clip, clips):
    return rig.setup(pair, vae, clip, clips)


@pytest.fixture
def cache(tmp_path):
    return LatentCache(tmp_path / "cache")


def filled(setup, cache, calls, **more):
    """The clips in memory, and how often the models were called for them."""
    from tandem_wan.nodes.host.encode import encoded_dataset

    calls.update(vae=0, text=0)
    with encoded_dataset(setup, cache, **more) as samples:
        loaded = [samples.load(i, v) for i in range(len(samples)) for v in range(samples.views[i])]
    return loaded, (calls["vae"], calls["text"])


def changed_clips(setup, **changes):
    clips = tuple(replace(clip, **changes) for clip in setup.dataset.clips)
    return replace(setup, dataset=replace(setup.dataset, clips=clips))


def encoded(events):
    """The events of clips: a note about all of them comes last."""
    return [event for event in events if hasattr(event, "cached")]


def test_what_was_encoded_once_is_read_and_training_encodes_nothing(setup, cache, calls, pair):
    from tandem_wan.nodes.host.encode import encoded_dataset

    first, made = filled(setup, cache, calls)
    assert made == (2 * 3, 3), "latent and condition of each clip, and its caption"
    events = []
    again, made = filled(setup, LatentCache(cache.folder), calls, listen=events.append)
    assert made == (0, 0)
    last = encoded(events)[-1]
    assert (last.done, last.total, last.cached) == (3, 3, 3)
    for ours, theirs in zip(first, again, strict=True):
        for part in ("x0", "context", "mask", "image_latent"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part))
            assert not getattr(ours, part).is_inference()
    plan = rig.plan(steps=6, swap_every=1)
    with encoded_dataset(setup, cache) as samples, rig.training():
        train(plan, rig.trainers(plan, pair, samples), save=lambda *a: None, listen=lambda e: None)
    assert calls == {"vae": 0, "text": 0}


def test_the_cache_holds_what_the_models_make(setup, cache, calls, vae, clip):
    from tandem_wan.nodes.host.encode import encode_text

    item = setup.dataset.clips[0]
    loaded, _ = filled(setup, cache, calls)
    with torch.inference_mode():
        pixels = read_clip(item.path, setup.dataset.clip_size(item), fps=16)
        latent = setup.any_model.model.process_latent_in(vae.encode(pixels))[0]
        context = encode_text(clip, item.caption)
    assert torch.equal(loaded[0].x0, latent) and torch.equal(loaded[0].context, context)


CHANGES = {
    "another caption": ({"caption": "A new caption."}, (0, 1)),
    "a view": ({"views": (View(0.5, True),)}, (2, 0)),
    "two more views": ({"views": (View(), View(0.0), View(0.0, True))}, (4, 0)),
    "a later start": ({"start": 1, "frames": 5}, (2, 0)),
    "fewer frames": ({"frames": 5}, (2, 0)),
    "another size": ({"size": (48, 64)}, (2, 0)),
    "another rate": ({"fps": 20.0, "frames": 5}, (2, 0)),
    "more repeats": ({"repeats": 3.0, "regularisation": True}, (0, 0)),
}


@pytest.mark.parametrize(("changes", "expected"), CHANGES.values(), ids=CHANGES.keys())
def test_only_what_a_change_concerns_is_encoded_again(setup, cache, calls, changes, expected):
    only = replace(setup, dataset=replace(setup.dataset, clips=setup.dataset.clips[:1]))
    filled(only, cache, calls)
    changed = changed_clips(only, **changes)
    loaded, made = filled(changed, cache, calls)
    assert made == expected
    [item] = changed.dataset.clips
    for view, ours in zip(item.views, loaded, strict=True):
        pixels = read_clip(
            item.path,
            changed.dataset.clip_size(item),
            fps=changed.dataset.clip_fps(item),
            start=item.start,
            view=view,
        )
        with torch.inference_mode():
            latent = setup.any_model.model.process_latent_in(setup.vae.encode(pixels))[0]
        assert torch.equal(ours.x0, latent)
    assert filled(only, cache, calls)[1] == (0, 0)


def test_other_weights_make_entries_of_their_own(setup, cache, calls, monkeypatch):
    filled(setup, cache, calls)
    for network, expected in (
        (setup.vae.first_stage_model, (6, 0)),
        (setup.clip.cond_stage_model, (0, 3)),
    ):
        weight = next(iter(network.parameters()))
        before = weight.detach().clone()
        with torch.inference_mode():
            try:
                weight += 0.5
                assert filled(setup, cache, calls)[1] == expected
            finally:
                weight.copy_(before)
    with monkeypatch.context() as patch:
        process = setup.any_model.model.process_latent_in
        patch.setattr(setup.any_model.model, "process_latent_in", lambda x: 2 * process(x))
        assert filled(setup, cache, calls)[1] == (6, 0)


def test_a_patch_on_the_text_encoder_counts_though_its_weights_are_untouched(setup, cache, calls):
    filled(setup, cache, calls)
    patched = setup.clip.clone()
    name = next(n for n, w in patched.cond_stage_model.named_parameters() if w.ndim == 2)
    shape = dict(patched.cond_stage_model.named_parameters())[name].shape
    assert patched.add_patches({name: (torch.full(shape, 0.01),)}, 1.0)
    assert filled(replace(setup, clip=patched), cache, calls)[1] == (0, 3)


def test_a_spoilt_entry_is_made_again_and_nothing_else(setup, cache, calls):
    first, _ = filled(setup, cache, calls)
    path = max(cache.folder.glob("??/*.safetensors"), key=lambda p: p.stat().st_size)
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\1\2\3\4")
    again, made = filled(setup, cache, calls)
    assert sum(made) == 1
    assert path.read_bytes()[-100:] == data[-100:]
    assert all(torch.equal(a.context, b.context) for a, b in zip(first, again, strict=True))


class StopAfter(Turns):
    def __init__(self, pieces):
        self.left = pieces

    def over(self):
        self.left -= 1
        return self.left < 0

    def wait(self):
        raise RunStopped


def test_a_run_stopped_while_it_encodes_goes_on_there(setup, cache, calls):
    # Three looks and three captions come before the first clip is encoded.
    with pytest.raises(RunStopped):
        filled(setup, cache, calls, turns=StopAfter(9))
    assert calls == {"vae": 4, "text": 2}
    events = []
    _, made = filled(setup, cache, calls, listen=events.append)
    assert made == (2, 1)
    assert [(e.done, e.cached) for e in encoded(events)] == [(1, 1), (3, 2)]
    assert events[-1].text == "2 of 3 clips came from the cache, 1 encoded now."
    assert encoded(events)[-1].seconds_left == 0


def test_the_embedding_of_no_text_is_there_when_the_plan_wants_it(setup, cache, calls):
    from tandem_wan.nodes.host.encode import encode_text, encoded_dataset

    wanted = replace(setup, plan=replace(setup.plan, caption_dropout=0.1))
    assert filled(setup, cache, calls)[1] == (6, 3)
    assert filled(wanted, cache, calls)[1] == (0, 1)
    with encoded_dataset(wanted, cache) as samples, torch.inference_mode():
        assert torch.equal(samples.empty_context, encode_text(setup.clip, ""))


def test_a_clip_that_changed_after_the_dataset_was_read_is_an_error(setup, cache, calls, tmp_path):
    items = setup.dataset.clips
    path = shutil.copyfile(items[1].path, tmp_path / "a.mp4")
    changed = replace(items[0], path=path)
    dataset = replace(setup.dataset, clips=(changed,))
    with pytest.raises(UserError, match=r"a\.mp4 has changed since"):
        filled(replace(setup, dataset=dataset), cache, calls)


def test_a_file_is_hashed_once_and_decoded_once_for_views_that_mirror_each_other(
    setup, cache, calls, monkeypatch
):
    from tandem_wan.nodes.host import encode

    looked = {"digest_of": [], "read_clip": []}
    for name, seen in looked.items():
        whole = getattr(encode, name)
        monkeypatch.setattr(
            encode,
            name,
            lambda *a, seen=seen, whole=whole, **k: seen.append(a[0]) or whole(*a, **k),
        )
    views = tuple(View(crop, flip) for crop in (0.0, 1.0) for flip in (False, True))
    item = setup.dataset.clips[0]
    later = replace(item, start=1, frames=5)
    clips = (replace(item, views=views, size=(64, 48)), later)
    changed = replace(setup, dataset=replace(setup.dataset, clips=clips))
    loaded, made = filled(changed, cache, calls)
    assert made == (2 * 5, 1)
    assert looked == {"digest_of": [item.path], "read_clip": [item.path] * 3}
    for view, ours in zip(views, loaded, strict=False):
        size = changed.dataset.clip_size(clips[0])
        with torch.inference_mode():
            pixels = read_clip(item.path, size, fps=16, view=view)
            latent = setup.any_model.model.process_latent_in(setup.vae.encode(pixels))[0]
        assert torch.equal(ours.x0, latent)


def test_progress_counts_clips_and_not_their_views(setup, cache, calls):
    views = (View(), View(0.5, True))
    events = []
    filled(changed_clips(setup, views=views), cache, calls, listen=events.append)
    assert [(e.done, e.total, e.cached) for e in encoded(events)] == [
        (1, 3, 0),
        (2, 3, 0),
        (3, 3, 0),
    ]
    events.clear()
    more = changed_clips(setup, views=(*views, View(0.0)))
    more = replace(
        more,
        dataset=replace(more.dataset, clips=(*more.dataset.clips[:1], *setup.dataset.clips[1:])),
    )
    filled(more, cache, calls, listen=events.append)
    last = encoded(events)[-1]
    assert (last.done, last.total, last.cached) == (3, 3, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_by_name_and_never_kept(
    setup, cache, calls, monkeypatch, value
):
    name = setup.dataset.clips[0].name
    with monkeypatch.context() as patch:
        encode = setup.vae.encode
        patch.setattr(setup.vae, "encode", lambda pixels: encode(pixels) * value)
        with pytest.raises(UserError, match=rf"{name}.*VAE"):
            filled(setup, cache, calls)
    with monkeypatch.context() as patch:
        tokens = setup.clip.encode_from_tokens_scheduled
        patch.setattr(
            setup.clip, "encode_from_tokens_scheduled", lambda t: [[tokens(t)[0][0] * value, {}]]
        )
        with pytest.raises(UserError, match="text encoder"):
            filled(setup, cache, calls)
    loaded, made = filled(setup, cache, calls)
    assert made == (4, 3), (
        "what was finite was kept: the first clip as the VAE made it before the text failed"
    )
    assert all(clip.x0.isfinite().all() and clip.context.isfinite().all() for clip in loaded)


def test_repeats_beyond_all_bounds_are_told_before_anything_is_encoded(setup, calls, output):
    from tandem_wan.nodes.host.run import open_run

    with pytest.raises(UserError, match=r"0\.01 to 1000"):
        open_run(changed_clips(setup, repeats=1e19), "a")
    assert calls == {"vae": 0, "text": 0}


def test_equal_clips_and_captions_are_encoded_once(setup, cache, calls):
    item = setup.dataset.clips[0]
    twice = replace(setup, dataset=replace(setup.dataset, clips=(item, item)))
    assert filled(twice, cache, calls)[1] == (2, 1)


@pytest.fixture
def output(tmp_path, monkeypatch):
    """The host's output and first loras folder, for this test."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    roots = ([str(tmp_path / "loras")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", roots)
    return tmp_path / "output"


def test_a_second_run_over_the_same_dataset_calls_no_encoder_at_all(
    pair, vae, clip, clips, calls, output
):
    from tandem_wan.nodes.host.preview import PreviewWishes
    from tandem_wan.nodes.host.run import open_run, work_of

    texts = {}
    for name in ("first", "second"):
        calls.update(vae=0, text=0)
        setup = rig.setup(pair, vae, clip, clips)
        plan = replace(setup.plan, steps=2, swap_every=1, caption_dropout=0.5)
        job = open_run(replace(setup, plan=plan), name)
        events = []
        job.listeners.append(events.append)
        work = work_of(replace(setup, plan=plan), job, previews=PreviewWishes(every=2))
        assert work(Turns()) == "done"
        assert [type(e).__name__ for e in events].count("StepDone") == 2
        assert (job.folder / "previews" / "step_000002_preview1.mp4").is_file()
        texts[name] = dict(calls)
    # The width of the embedding is looked at before the run; then captions, no text, the preview's negative.
    assert texts == {"first": {"vae": 6, "text": 1 + 3 + 2}, "second": {"vae": 0, "text": 0}}
    assert (output / "tandem_cache" / "CACHEDIR.TAG").is_file()
    assert not list((output / "tandem").rglob("*/in_use"))


def test_the_limit_of_the_cache_is_an_environment_variable(comfy, output, monkeypatch):
    from tandem_wan.nodes.host.places import LIMIT_VARIABLE, open_cache

    assert open_cache().limit == 100 << 30
    monkeypatch.setenv(LIMIT_VARIABLE, "2.5")
    assert open_cache().limit == 5 << 29
    for wrong in ("many", "-1", "nan", "inf"):
        monkeypatch.setenv(LIMIT_VARIABLE, wrong)
        with pytest.raises(UserError, match="TANDEM_CACHE_GIB"):
            open_cache()


def test_pictures_on_an_image_to_video_model_are_noted_where_they_freeze_motion(setup):
    from tandem_wan.nodes.host.setup import _dataset_notes

    dataset = changed_clips(setup, frames=1).dataset
    for roles in (["high_noise", "low_noise"], ["single"], ["high_noise"]):
        [note] = _dataset_notes(dataset, "i2v", roles)
        assert "freeze motion" in note and "low-noise expert" in note and "text-to-video" in note
    assert _dataset_notes(dataset, "i2v", ["low_noise"]) == []
    assert _dataset_notes(dataset, "t2v", ["high_noise", "low_noise"]) == []


def test_an_entry_of_the_cache_is_no_lora(output, setup, calls):
    from tandem_wan.nodes.host.places import cache_folder, jobs_root

    assert jobs_root() not in entry_path(cache_folder(), "00" * 32).parents
