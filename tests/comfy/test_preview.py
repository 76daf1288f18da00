"""A preview is what the dual sampler would give with the same LoRAs: one forward pass, one schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.preview import Preview
from tandem_wan.training.preview_files import stored_previews
from tandem_wan.training.turns import Turns
from tandem_wan.wan.video import probe

pytestmark = pytest.mark.comfy
STEPS, CFG = 8, 2.5


@pytest.mark.parametrize("order", ["interleaved", "joint"])
def test_every_preview_is_what_the_dual_sampler_gives(comfy, pair, encoded, monkeypatch, order):
    """Of two clips, and of the first one under another text."""
    from tandem_wan.nodes.host.injection import with_adapters
    from tandem_wan.nodes.host.sampling import Request, make_schedule, sample_pair, with_shift
    from tandem_wan.training.loop import train
    from tandem_wan.training.schedule import generator_for

    plan = rig.plan(steps=6, swap_every=1, order=order)
    prompted = replace(encoded[0], context=encoded[2].context * 0.7)
    shots, negative = [encoded[0], encoded[1], prompted], encoded[1].context * 0.5
    trainers = rig.trainers(plan, pair, encoded)
    shown = {}
    preview = Preview(
        every=6,
        clips=shots,
        negative=negative,
        show=lambda step, number, latent: shown.update({number: latent}),
        steps=STEPS,
        cfg=CFG,
    )
    with rig.training():
        train(plan, trainers, save=lambda *a: None, listen=lambda e: None, preview=preview)

    assert list(shown) == [1, 2, 3]
    noise = torch.randn(shots[0].x0.shape, generator=generator_for(7, "preview"))[None]
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *args: noise)
    with torch.inference_mode():
        models = [
            with_shift(with_adapters(pair[role], [trainers[role].adapters]), plan.shift)
            for role in ("high_noise", "low_noise")
        ]
        schedule = make_schedule(
            models[0], steps=STEPS, scheduler="simple", sampler_name="euler", denoise=1.0, boundary=0.0
        )  # fmt: skip
        assert 0 < schedule.high_steps < STEPS
        into, out_of = models[0].model.process_latent_in, models[0].model.process_latent_out
        for number, shot in enumerate(shots, 1):
            values = {
                "concat_latent_image": out_of(shot.image_latent[None]),
                "concat_mask": 1.0 - shot.mask[None, :1],
            }
            request = Request(
                positive=[[shot.context[None], values]],
                negative=[[negative[None], values]],
                latent={"samples": torch.zeros_like(noise)},
                seed=0,
                cfg=CFG,
                cfg_low=CFG,
                sampler_name="euler",
            )
            expected = into(sample_pair(*models, schedule, request)["samples"])[0]
            scale = expected.abs().mean()
            assert (shown[number] - expected).abs().mean() < 1e-3 * scale
            others = [latent for other, latent in shown.items() if other != number]
            if number == 1:
                plain = sample_pair(pair["high_noise"], pair["low_noise"], schedule, request)
                others.append(into(plain["samples"])[0])
            for other in others:
                difference = (shown[number] - other).abs().mean()
                assert difference > 5e-3 * scale, "clips, texts and LoRAs change what is seen"


def test_clips_and_prompts_become_films_and_pictures_beside_the_checkpoints(
    comfy, pair, vae, clip, clips, monkeypatch, tmp_path
):
    import folder_paths
    from tandem_wan.nodes.host import preview as host_preview
    from tandem_wan.nodes.host.preview import PreviewWishes
    from tandem_wan.nodes.host.run import open_run, work_of

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    roots = ([str(tmp_path / "loras")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", roots)
    monkeypatch.setattr("tandem_wan.nodes.host.run._held_out_places", lambda setup: (2,))
    monkeypatch.setattr(host_preview, "Preview", lambda **values: made(Preview(steps=2, **values)))
    previews = []

    def made(preview):
        previews.append(preview)
        return preview

    setup = rig.setup(pair, vae, clip, clips)
    still = [replace(c, frames=1) if i == 1 else c for i, c in enumerate(setup.dataset.clips)]
    setup = replace(
        setup,
        dataset=replace(setup.dataset, clips=tuple(still)),
        plan=replace(setup.plan, steps=2, swap_every=1),
    )
    job = open_run(setup, "seen")
    job.claim()
    try:
        wishes = PreviewWishes(every=2, clips=9, prompts=("A man waves.", still[0].caption))
        assert work_of(setup, job, previews=wishes)(Turns()) == "done"
    finally:
        job.release()
    listed = stored_previews(job.folder)
    names = [c.name for c in still]
    # What is held out comes first, then the others in the dataset's order; prompts begin like the first.
    assert [entry["clip"] for entry in listed] == [names[i] for i in (2, 0, 1, 2, 2)]
    assert [entry["prompt"] for entry in listed] == ["", "", "", "A man waves.", still[0].caption]
    assert [entry["file"] for entry in listed] == [
        f"previews/step_000002_preview{n}.{'png' if n == 3 else 'mp4'}" for n in range(1, 6)
    ]
    for entry in listed:
        file = job.folder / entry["file"]
        if file.suffix == ".png":
            assert Image.open(file).size == (64, 64)
        else:
            info = probe(file, fps=16.0, max_frames=100)
            assert (info.frames, info.width, info.height) == (9, 64, 64)
    log = (job.folder / "run.log").read_text(encoding="utf-8")
    assert (job.folder / "tensorboard").exists() != ("no files for TensorBoard" in log)
    shots = previews[0].clips
    assert torch.equal(shots[4].context, shots[1].context), (
        "the caption of another clip as a prompt"
    )
    assert torch.equal(shots[4].image_latent, shots[0].image_latent)


def test_a_prompt_that_cannot_be_filled_is_refused_when_it_is_queued(comfy):
    from tandem_wan.nodes.trainer import TandemTrainer

    said = TandemTrainer.validate_inputs(name="x", preview_prompts="A dog\nA {person} waves.")
    assert "{person}" in said and "A dog" not in said
    fine = "A {trigger} waves.\nA STYLE_TOKEN waves."
    assert TandemTrainer.validate_inputs(name="x", preview_prompts=fine) is True


def test_a_picture_is_what_was_decoded(comfy, tmp_path):
    from tandem_wan.nodes.host.preview import _picture

    pixels = torch.rand(4, 6, 3, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    found = torch.from_numpy(np.asarray(_picture(pixels)).copy()).float() / 255
    assert (found - pixels.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
