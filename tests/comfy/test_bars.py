"""What this trainer promises in numbers, on the host's own models. tests/README.md lists all bars."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.tiny_wan21 import write_wan21
from tandem_wan.training.cache.latent_cache import LatentCache
from tandem_wan.training.checkpoints import CheckpointStore
from tandem_wan.training.loop import train
from tandem_wan.training.monitors.held_out import HeldOutLoss, divided
from tandem_wan.training.plans.settings import LoraSettings
from tandem_wan.training.samples import EncodedClip
from tandem_wan.training.seat import Seat
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.lora.files import read_tensors
from tandem_wan.wan.lora.keys import match_lora
from tandem_wan.wan.miniature.layouts import TransformerSize
from tandem_wan.wan.miniature.random_family import write_family

pytestmark = pytest.mark.comfy
PAIR = ("high_noise", "low_noise")
LAYERS = (r"blocks\.0\.self_attn\.q", r"blocks\.3\.ffn\.2")


def nothing(*args):
    pass


def loaded(comfy, path):
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(path))


def made_up_clips(count=3):
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator)

    mask = torch.zeros(4, 3, 8, 8)
    mask[:, :1] = 1
    return [
        EncodedClip(
            name=str(number),
            x0=drawn(16, 3, 8, 8),
            context=drawn(6, 64),
            mask=mask,
            image_latent=drawn(16, 3, 8, 8),
        )
        for number in range(count)
    ]


@pytest.fixture
def clip_vision(comfy):
    """The host's own class around two layers; its features are as wide as Wan 2.1 takes them."""
    from comfy.clip_vision import ClipVisionModel

    config = {
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "image_size": 28,
        "intermediate_size": 32,
        "layer_norm_eps": 1e-5,
        "model_type": "clip_vision_model",
        "num_attention_heads": 4,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": 14,
        "projection_dim": 8,
    }
    with torch.inference_mode():
        model = ClipVisionModel(config)
        generator = torch.Generator().manual_seed(0)
        for weight in model.model.parameters():
            weight.normal_(0, 0.02, generator=generator)
    return model


def test_bar_c05_no_encoder_is_called_in_a_training_step(
    comfy, vae, clip, clips, clip_vision, tmp_path
):
    """Every forward pass of any part of VAE, text encoder and CLIP vision is counted."""
    from tandem_wan.nodes.host.encode import encoded_dataset
    from torch.nn.modules.module import register_module_forward_pre_hook

    model = loaded(comfy, write_wan21(tmp_path / "wan2.1_i2v.safetensors"))
    plan = rig.plan(steps=6, family="single model", caption_dropout=0.5, held_out=1, save_every=3)
    setup = rig.setup({"high_noise": model}, vae, clip, clips, clip_vision=clip_vision, plan=plan)
    encoders = {
        "VAE": vae.first_stage_model,
        "text encoder": clip.cond_stage_model,
        "CLIP vision": clip_vision.model,
    }
    owner = {part: name for name, whole in encoders.items() for part in whole.modules()}
    calls = []
    hook = register_module_forward_pre_hook(
        lambda module, args: calls.append(owner[module]) if module in owner else None
    )
    try:
        with encoded_dataset(setup, LatentCache(tmp_path / "cache")) as samples:
            assert set(calls) == set(encoders)
            calls.clear()
            shown, held = divided(samples, (1,))
            trainers = rig.trainers(setup.plan, {"single": model}, shown)
            measure = HeldOutLoss(setup.plan, held, shown)
            with rig.training():
                train(setup.plan, trainers, save=nothing, listen=nothing, held_out=measure)
            assert calls == []
        with encoded_dataset(setup, LatentCache(tmp_path / "cache")) as samples:
            assert len(samples) == 3 and calls == [], "the next run finds everything"
    finally:
        hook.remove()


def test_bar_c06_a_cut_run_on_the_hosts_models_equals_the_unbroken_one(pair, tmp_path):
    plan = rig.plan(steps=6, swap_every=2, accumulate=2, caption_dropout=0.0)
    plan = replace(plan, lora=LoraSettings(rank=4, alpha=2.0, dropout=0.2, targets=LAYERS))
    outcomes = []
    for cuts in ((), (3, 2)):
        store, losses = CheckpointStore(tmp_path / str(len(cuts)), "x"), []
        for pieces in (*cuts, 99):
            torch.manual_seed(pieces)
            trainers = rig.trainers(plan, pair, made_up_clips())
            with rig.training():
                train(
                    plan,
                    trainers,
                    save=lambda step, t, to=store: to.save(step, t, {}) if step else None,
                    listen=lambda e, to=losses: to.append((e.step, e.loss, e.grad_norm)),
                    first_step=store.resume(trainers),
                    turns=StopAfter(pieces),
                )
        outcomes.append((losses, [p for t in trainers.values() for p in t.adapters.parameters()]))
    (whole, weights), (parts, others) = outcomes
    assert parts == whole
    assert [step for step, _, _ in whole] == list(range(1, 7))
    assert all(map(torch.equal, weights, others))


class StopAfter(Turns):
    """Ends a run once it has done so many pieces of work."""

    def __init__(self, pieces):
        self.left = pieces

    def over(self):
        self.left -= 1
        return self.left < 0

    def wait(self):
        raise RunStopped


def test_bar_c08_the_boundary_is_the_model_types_and_belongs_to_the_high_expert(
    comfy, pair, vae, clip, clips, tmp_path
):
    from tandem_wan.nodes.host.sampling import high_steps, make_schedule
    from tandem_wan.training.preview import _role

    files = write_family(tmp_path, transformer=TransformerSize(input_channels=16, layers=1))
    t2v = {role: loaded(comfy, getattr(files, role)) for role in PAIR}
    for models, boundary in ((pair, 0.9), (t2v, 0.875)):
        # Whatever the plan was made for, the model decides.
        for task, planned in (("i2v", 0.9), ("t2v", 0.875)):
            plan = rig.plan(task=task, boundary=planned)
            setup = rig.setup(models, vae, clip, clips, plan=plan)
            assert setup.plan.boundary == boundary
            assert sigma_range("high_noise", setup.plan.boundary) == (boundary, 1.0)
            assert sigma_range("low_noise", setup.plan.boundary) == (0.0, boundary)
        with torch.inference_mode():
            schedule = make_schedule(
                models["high_noise"],
                steps=20,
                scheduler="simple",
                sampler_name="euler",
                denoise=1.0,
                boundary=0.0,
            )
        assert schedule.boundary == boundary
        # t == boundary is the high expert's, in float32 too (0.9 there is less than 0.9).
        at = torch.tensor([1.0, boundary, boundary - 1e-6, 0.0])
        assert high_steps(at, boundary) == 2
        assert _role(setup.plan, boundary) == "high_noise"
        assert _role(setup.plan, boundary - 1e-9) == "low_noise"
    for models in (pair, t2v):
        lone = {"high_noise": models["low_noise"]}
        single = rig.setup(lone, vae, clip, clips, plan=rig.plan()).plan
        assert single.roles() == ("single",)
        assert sigma_range("single", single.boundary) == (0.0, 1.0)


@pytest.mark.parametrize("rank", [4, 16, 64])
@pytest.mark.parametrize("alpha", [1.0, 8.0, 16.0, 32.0])
def test_bar_c11_alpha_over_rank_survives_saving_loading_and_resuming(pair, tmp_path, alpha, rank):
    import comfy.lora

    plan = replace(rig.plan(steps=1), lora=LoraSettings(rank=rank, alpha=alpha, targets=LAYERS))
    trainers = rig.trainers(plan, pair, made_up_clips())
    generator = torch.Generator().manual_seed(5)
    for trainer in trainers.values():
        for adapter in trainer.adapters.values():
            with torch.no_grad():
                adapter.up.normal_(generator=generator)
    store = CheckpointStore(tmp_path, "x")
    store.save(1, trainers, {})
    again = rig.trainers(plan, pair, made_up_clips())
    assert store.resume(again) == 1
    for role, trainer in trainers.items():
        model, tensors = pair[role], read_tensors(store.file(1, role))
        shapes = {f"{n}.weight": (s.outputs, s.inputs) for n, s in trainer.expert.layers().items()}
        ours = match_lora(tensors, shapes).updates
        keys = comfy.lora.model_lora_keys_unet(model.model, {})
        theirs = comfy.lora.load_lora(tensors, keys, log_missing=False)
        assert len(trainer.adapters) == len(ours) == len(theirs) == 2
        for name, adapter in trainer.adapters.items():
            up, down = adapter.up.detach().double(), adapter.down.detach().double()
            expected = alpha / rank * (up @ down)
            empty, key = torch.zeros(expected.shape), f"diffusion_model.{name}.weight"
            patches = [(1.0, theirs[key], 1.0, None, None)]
            x = torch.eye(expected.shape[1])
            found = {
                "the host": comfy.lora.calculate_weight(patches, empty.clone(), key),
                "a stack": ours[f"{name}.weight"].delta(empty),
                "training": adapter(x).detach().T,
                "a resumed run": again[role].adapters[name](x).detach().T,
            }
            for who, change in found.items():
                error = (change.double() - expected).norm() / expected.norm()
                assert error.item() <= 1e-6, (who, role, name)


def test_bar_c13_the_held_out_loss_of_each_expert_is_the_same_to_the_last_bit_each_time(pair):
    plan = rig.plan(steps=4, swap_every=1)
    plan = replace(plan, lora=LoraSettings(rank=4, alpha=4.0, dropout=0.5, targets=LAYERS))
    samples = divided(build_samples(), (0, 2))
    trainers = rig.trainers(plan, pair, samples[0])
    measure, heard = HeldOutLoss(plan, samples[1], samples[0]), []
    with rig.training():
        train(plan, trainers, save=nothing, listen=nothing)
        for trainer in trainers.values():
            trainer.expert.attach(trainer.adapters)
        try:
            for seed in (1, 2):
                torch.manual_seed(seed)
                with Seat(trainers, Turns()) as seat:
                    measure(4, trainers, seat, heard.append)
        finally:
            for trainer in trainers.values():
                trainer.expert.detach()
    first, again = heard[:2], heard[2:]
    assert [event.role for event in first] == list(PAIR)
    assert first == again
    assert first[0].loss != first[1].loss and first[0].loss != first[0].trained


def build_samples():
    from tandem_wan.training.samples import ListedSamples

    return ListedSamples(made_up_clips(5))
