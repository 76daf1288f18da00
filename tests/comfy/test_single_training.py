"""Wan 2.1 as one expert, from text and from a start frame: trained with what the host samples with."""

from __future__ import annotations

import json

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.tiny_wan21 import SEEN, write_wan21
from tandem_wan.training.events import StepDone
from tandem_wan.training.expert_trainer import build_trainers
from tandem_wan.training.loop import train
from tandem_wan.training.samples import EncodedClip, stack_batch
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.lora.files import write_safetensors
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout
from tandem_wan.wan.miniature.random_family import random_tensors

pytestmark = pytest.mark.comfy
TASKS = ("t2v", "i2v")


def t2v_file(path):
    size = TransformerSize(layers=2, input_channels=16)
    tensors = random_tensors(transformer_layout(size), torch.Generator().manual_seed(2))
    config = {"transformer": {"num_heads": size.heads, "text_dim": size.text_width}}
    write_safetensors(path, tensors, {"config": json.dumps(config)})
    return path


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


@pytest.fixture
def model(comfy, task, tmp_path):
    path = tmp_path / f"wan2.1_{task}.safetensors"
    written = t2v_file(path) if task == "t2v" else write_wan21(path)
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(written))


@pytest.fixture
def clip_given(task):
    generator = torch.Generator().manual_seed(4)
    size, given = (16, 3, 8, 8), {}
    if task == "i2v":
        mask = torch.zeros(4, 3, 8, 8)
        mask[:, 0] = 1
        given = {
            "mask": mask,
            "image_latent": torch.randn(*size, generator=generator),
            "clip_vision": torch.randn(257, SEEN, generator=generator),
        }
    x0, context = (torch.randn(*shape, generator=generator) for shape in (size, (8, 64)))
    return EncodedClip(name="clip", x0=x0, context=context, **given)


def expert_on(model):
    from tandem_wan.nodes.host.expert import HostExpert

    return HostExpert(model, "single", sigma_range("single", 0.9))


def test_the_velocity_is_what_the_hosts_sampler_asks_of_the_model(model, task, clip_given):
    batch = stack_batch([clip_given, clip_given], torch.device("cpu"))
    sigma, expert = torch.tensor([0.95, 0.1]), expert_on(model)
    with rig.training(), expert.in_use(), torch.no_grad():
        ours = expert.velocity(batch.x0, sigma, batch.context, batch.condition)
    given = {}
    if task == "i2v":
        features = batch.condition.clip_vision
        given = {"c_concat": batch.condition.channels(), "clip_fea": features}
    with torch.inference_mode():
        denoised = model.model.apply_model(batch.x0, sigma, c_crossattn=batch.context, **given)
    theirs = (batch.x0 - denoised) / sigma.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


def test_it_is_one_expert_over_all_of_the_noise_and_learns(model, clip_given):
    plan = rig.plan(family="single model", steps=12)
    expert, seen = expert_on(model), []
    asked, levels = expert.velocity, []

    def velocity(x_t, sigma, *others):
        levels.append(sigma.item())
        return asked(x_t, sigma, *others)

    expert.velocity = velocity
    with rig.training():
        (trainer,) = (trainers := build_trainers(plan, {"single": expert}, [clip_given])).values()
        before = loss_of(trainer, clip_given)
        levels.clear()
        assert train(plan, trainers, save=lambda *a: None, listen=seen.append) == "done"
        assert min(levels) < 0.5 and max(levels) > 0.95
        assert loss_of(trainer, clip_given) < 0.9 * before
    steps = [event for event in seen if isinstance(event, StepDone)]
    assert {event.role for event in steps} == {"single"} and len(steps) == 12


def loss_of(trainer, clip):
    """The mean squared error with the same noise at three levels."""
    batch = stack_batch([clip], torch.device("cpu"))
    noise = torch.randn(batch.x0.shape, generator=torch.Generator().manual_seed(9))
    trainer.expert.attach(trainer.adapters)
    losses = []
    with trainer.expert.in_use(), torch.no_grad():
        for sigma in (0.3, 0.7, 0.95):
            level = torch.tensor([sigma])
            x_t = (1 - sigma) * batch.x0 + sigma * noise
            velocity = trainer.expert.velocity(x_t, level, batch.context, batch.condition)
            losses.append((velocity - (noise - batch.x0)).square().mean().item())
    trainer.expert.detach()
    return sum(losses) / 3


@pytest.mark.parametrize("task", ["t2v"], indirect=True)
def test_a_text_to_video_model_has_no_start_frame(model, vae, clip, clips):
    setup = rig.setup({"high_noise": model}, vae, clip, clips)
    assert (setup.task, setup.plan.task, setup.plan.roles()) == ("t2v", "t2v", ("single",))
    assert setup.clean_start is False and setup.plan.boundary == 0.875
    encoded = rig.encode({"high_noise": model}, vae, clip, clips)
    assert encoded[0].mask is None and encoded[0].known_frames == 0
