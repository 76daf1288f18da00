"""Wan 2.2 5B, one model for text-to-video and image-to-video: trained as the host samples with it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.tiny_wan22_5b import tiny_vae, write_5b
from tandem_wan.training.events import StepDone
from tandem_wan.training.expert_trainer import build_trainers
from tandem_wan.training.loop import train
from tandem_wan.training.preview import Preview
from tandem_wan.training.samples import EncodedClip, stack_batch
from tandem_wan.training.schedule import generator_for
from tandem_wan.training.turns import Turns
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.shapes import checked_clip_size
from tandem_wan.wan.video import read_clip

pytestmark = pytest.mark.comfy
STEPS, CFG = 4, 2.5
TASKS = ("i2v", "t2v")


@pytest.fixture
def model(comfy, tmp_path):
    """A fresh tiny 5B, as the host's loader gives it in a prompt."""
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(write_5b(tmp_path / "wan2.2_5b.safetensors")))


@pytest.fixture(scope="session")
def vae_5b(comfy):
    with torch.inference_mode():
        return tiny_vae()


def encoded(model, vae, clip, clips, task):
    return rig.encode({"high_noise": model}, vae, clip, clips, plan=rig.plan(task=task))


def random_clips(known, count=1, size=(3, 4, 4)):
    """Latents as the 48-channel VAE makes them, of clips whose first frame is given."""
    generator = torch.Generator().manual_seed(11)
    return [
        EncodedClip(
            name=f"clip {number}",
            x0=torch.randn(48, *size, generator=generator),
            context=torch.randn(8, 64, generator=generator),
            known_frames=known,
        )
        for number in range(count)
    ]


def expert_on(model):
    from tandem_wan.nodes.host.expert import HostExpert

    return HostExpert(model, "single", sigma_range("single", 0.9))


def trainer_of(model, clips, **changes):
    plan = rig.plan(family="single model", **changes)
    with rig.training():
        return plan, build_trainers(plan, {"single": expert_on(model)}, clips)


def test_clips_are_encoded_as_the_host_prepares_its_own_latent(model, vae_5b, clip, clips):
    """The host's node encodes the start frame alone; the VAE is causal, so a clip's first latent frame is the same."""
    from comfy_extras.nodes_wan import Wan22ImageToVideoLatent

    ours = encoded(model, vae_5b, clip, clips, "i2v")
    assert [tuple(item.x0.shape) for item in ours] == [(48, 3, 4, 4)] * 3
    for item, path in zip(ours, sorted(clips.glob("*.mp4")), strict=True):
        assert (item.known_frames, item.mask, item.image_latent) == (1, None, None)
        pixels = read_clip(path, checked_clip_size(64, 64, 9), fps=16)
        with torch.inference_mode():
            (latent,) = Wan22ImageToVideoLatent.execute(
                vae_5b, 64, 64, 9, 1, start_image=pixels[:1]
            ).args
            theirs = model.model.process_latent_in(latent["samples"])[0]
        torch.testing.assert_close(item.x0[:, :1], theirs[:, :1], rtol=0, atol=1e-5)
        # What the host noises is 1 in its mask: all but the first frame.
        level = torch.tensor([0.7])
        levels = stack_batch([item], torch.device("cpu")).levels(level)
        assert torch.equal(levels, latent["noise_mask"].mean(dim=(1, 3, 4)) * level)


def test_the_plan_says_whether_the_first_frame_is_given(model, vae_5b, clip, clips):
    for task in TASKS:
        setup = rig.setup({"high_noise": model}, vae_5b, clip, clips, plan=rig.plan(task=task))
        assert setup.plan.task == task and setup.clean_start is (task == "i2v")
        words = "image-to-video" if task == "i2v" else "text-to-video"
        assert f"Wan 2.2 5B is trained as {words}" in " ".join(setup.notes)
    assert encoded(model, vae_5b, clip, clips, "t2v")[0].known_frames == 0


def test_sides_that_the_host_would_pad_are_named(model, pair):
    from tandem_wan.nodes.host.setup import _size_notes

    def dataset(*widths):
        return SimpleNamespace(clips=widths, clip_size=lambda w: checked_clip_size(w, 64, 9))

    assert _size_notes(dataset(64, 96), model) == []
    (note,) = _size_notes(dataset(64, 48, 80), model)
    assert note.startswith("2 clips") and "48 x 64" in note and "32 x 32" in note
    assert _size_notes(dataset(48), pair["high_noise"]) == []


@pytest.mark.parametrize("task", TASKS)
def test_the_velocity_is_what_the_hosts_sampling_path_computes(model, task):
    clip = random_clips(int(task == "i2v"))[0]
    batch = stack_batch([clip, clip], torch.device("cpu"))
    sigma = torch.tensor([0.93, 0.2])
    levels = batch.levels(sigma)
    assert levels.shape == ((2, 3) if task == "i2v" else (2,))
    expert = expert_on(model)
    with rig.training(), expert.in_use(), torch.no_grad():
        ours = expert.velocity(batch.x0, levels, batch.context, None)
    mask = torch.ones(2, 1, 3, 4, 4)
    mask[:, :, :1] = 0
    given = {"denoise_mask": mask.expand_as(batch.x0)} if task == "i2v" else {}
    with torch.inference_mode():
        denoised = model.model.apply_model(batch.x0, sigma, c_crossattn=batch.context, **given)
    theirs = (batch.x0 - denoised) / sigma.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.std() > 0.01


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_falls_and_the_saved_lora_does_in_cores_loader_what_it_did_in_training(
    comfy, model, tmp_path, task
):
    import comfy.lora
    from tandem_wan.wan.lora.files import adapter_tensors, write_safetensors

    clips = random_clips(int(task == "i2v"))
    plan, trainers = trainer_of(model, clips, steps=50)
    losses = []
    with rig.training():
        assert train(plan, trainers, save=lambda *a: None, listen=losses.append) == "done"
    curve = [event.loss for event in losses if isinstance(event, StepDone)]
    assert sum(curve[-8:]) < 0.85 * sum(curve[:8]), curve

    trainer, path = trainers["single"], tmp_path / "taught.safetensors"
    write_safetensors(path, adapter_tensors(trainer.adapters), {})
    lora, keys = load_file(path), comfy.lora.model_lora_keys_unet(model.model)
    found = comfy.lora.load_lora(lora, keys, log_missing=False)
    assert {key for patch in found.values() for key in patch.loaded_keys} == set(lora)
    assert len(found) == len(trainer.adapters) == 20

    batch = stack_batch(clips, torch.device("cpu"))
    levels = batch.levels(torch.tensor([0.6]))
    with rig.training(), torch.no_grad():
        trainer.expert.attach(trainer.adapters)
        with trainer.expert.in_use():
            ours = trainer.expert.velocity(batch.x0, levels, batch.context, None)
        trainer.expert.detach()
    with torch.inference_mode():
        patched = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]
        theirs, plain = (_velocity(comfy, each, batch, levels) for each in (patched, model))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (ours - plain).abs().max() > 0.01


def test_every_adapter_has_a_gradient_and_the_given_frame_none_of_it(model):
    """The reference differentiates the squared error of the later frames alone."""
    clips = random_clips(1)
    _, trainers = trainer_of(model, clips, steps=1, checkpoint_blocks=False)
    trainer = trainers["single"]
    with torch.no_grad():
        for number, adapter in enumerate(trainer.adapters.values()):
            adapter.up.normal_(generator=torch.Generator().manual_seed(number), std=0.02)
    ours = rig.gradients_of_one_micro_batch(trainer)
    x0, sigma = clips[0].x0[None], _sigma(trainer.plan)
    noise = torch.randn(x0.shape, generator=generator_for(trainer.plan.seed, "single", "noise", 0))
    levels = torch.tensor([[0.0, sigma, sigma]])
    x_t = x0.clone()
    x_t[:, :, 1:] = (1 - sigma) * x0[:, :, 1:] + sigma * noise[:, :, 1:]
    with rig.training():
        trainer.expert.attach(trainer.adapters)
        with trainer.expert.in_use():
            velocity = trainer.expert.velocity(x_t, levels, clips[0].context[None], None)
            loss = (velocity - (noise - x0))[:, :, 1:].square().mean()
            theirs = torch.autograd.grad(loss, trainer.adapters.parameters())
        trainer.expert.detach()
    for one, other in zip(ours, theirs, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("task", TASKS)
def test_a_preview_is_what_the_hosts_sampler_makes_of_the_start_frame(comfy, model, task):
    clips = random_clips(int(task == "i2v"), count=2)
    plan, trainers = trainer_of(model, clips, steps=4)
    shown = []
    preview = Preview(
        every=4,
        clips=clips[:1],
        negative=clips[1].context,
        show=lambda step, number, latent: shown.append(latent),
        steps=STEPS,
        cfg=CFG,
    )
    with rig.training():
        train(plan, trainers, save=lambda *a: None, listen=lambda e: None, preview=preview)
    expected = _sampled_by_the_host(comfy, model, trainers["single"], clips, plan)
    scale = expected.abs().mean()
    assert (shown[0] - expected).abs().max() < 1e-3 * scale
    if task == "i2v":
        assert torch.equal(shown[0][:, :1], clips[0].x0[:, :1])


def _sampled_by_the_host(comfy, model, trainer, clips, plan):
    """Euler steps of the host's own sampler from its own latent, with the start frame under its noise mask."""
    from tandem_wan.nodes.host.injection import with_adapters
    from tandem_wan.nodes.host.sampling import with_shift

    noise = torch.randn(clips[0].x0.shape, generator=generator_for(7, "preview"))[None]
    with torch.inference_mode():
        patched = with_shift(with_adapters(model, [trainer.adapters]), plan.shift)
        start = torch.zeros_like(noise)
        given, mask = clips[0].known_frames, torch.ones(1, 1, 3, 4, 4)
        start[:, :, :given] = clips[0].x0[None, :, :given]
        mask[:, :, :given] = 0
        sampled = comfy.sample.sample(
            patched, noise, STEPS, CFG, "euler", "simple",
            [[clips[0].context[None], {}]], [[clips[1].context[None], {}]],
            model.model.process_latent_out(start) if given else start,
            noise_mask=mask if given else None, disable_pbar=True,
        )  # fmt: skip
        return model.model.process_latent_in(sampled)[0]


@pytest.mark.parametrize("task", TASKS)
def test_a_run_goes_from_films_to_files(
    comfy, model, vae_5b, clip, clips, task, monkeypatch, tmp_path
):
    import folder_paths
    from tandem_wan.nodes.host.preview import PreviewWishes
    from tandem_wan.nodes.host.run import open_run, work_of
    from tandem_wan.wan.lora.files import read_metadata, tandem_metadata

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    roots = ([str(tmp_path / "loras")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", roots)
    plan = rig.plan(task=task, steps=2, save_every=2)
    setup = rig.setup({"high_noise": model}, vae_5b, clip, clips, plan=plan)
    job = open_run(setup, f"small_{task}")
    assert work_of(setup, job, previews=PreviewWishes(every=2))(Turns()) == "done"
    saved = tandem_metadata(read_metadata(tmp_path / "loras" / f"small_{task}.safetensors"))
    assert (saved["expert"], saved["step"], saved["plan"]["task"]) == ("single", 2, task)
    assert list((job.folder / "previews").glob("*.mp4"))


def _velocity(comfy, model, batch, levels):
    comfy.model_management.load_models_gpu([model])
    times = model.get_model_object("model_sampling").timestep(levels).float()
    return model.model.diffusion_model(
        batch.x0, times, context=batch.context, transformer_options={}
    )


def _sigma(plan):
    from tandem_wan.training.schedule import sigmas_at

    return sigmas_at(plan, "single", 0, 1).item()
