"""Training on the host's own MODEL objects."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tandem_wan.training.dataset import load_dataset
from tandem_wan.training.loop import build_trainers, train
from tandem_wan.training.plan import OptimizerSettings, RateSettings, TrainingPlan
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout
from tandem_wan.wan.miniature.random_family import random_tensors
from tandem_wan.wan.shapes import checked_clip_size

pytestmark = pytest.mark.comfy


def test_loss_of_both_experts_falls_on_one_clip_and_the_base_is_neither_copied_nor_changed(
    pair, encoded
):
    networks = {role: model.model.diffusion_model for role, model in pair.items()}
    before = {role: _pointers(network) for role, network in networks.items()}
    bits = {role: _bits(network) for role, network in networks.items()}
    during, gradients = {}, {}
    plan = _plan(steps=60, swap_every=5)
    trainers = _trainers(plan, pair, encoded[:1])

    def listen(event):
        during[event.role] = _pointers(networks[event.role])
        losses[event.role].append(event.loss)
        gradients[event.role] = [p.grad for p in networks[event.role].parameters()]

    losses = {role: [] for role in pair}
    with _training():
        assert train(plan, trainers, save=lambda *a: None, listen=listen) == "done"

    for role, curve in losses.items():
        assert sum(curve[-5:]) < 0.85 * sum(curve[:5]), (role, curve)
        assert before[role] == during[role] == _pointers(networks[role])
        assert bits[role] == _bits(networks[role])
        assert gradients[role] == [None] * len(gradients[role])


def test_gradients_reach_every_adapter_and_equal_a_plain_loop(pair, encoded):
    """The second opinion is written here by hand: W x + B A x by a hook, mean squared error, autograd."""
    plan = _plan(steps=2, checkpoint_blocks=False)
    trainers = _trainers(plan, pair, encoded)
    trainer = trainers["high_noise"]
    ups = [adapter.up for adapter in trainer.adapters.values()]
    with torch.no_grad():  # at zero, only the up factors would have a gradient
        for index, up in enumerate(ups):
            up.normal_(generator=torch.Generator().manual_seed(index), std=0.02)
    seen = _gradients_of_one_micro_batch(trainer)
    expected = _gradients_by_hand(pair["high_noise"], trainer)
    assert len(seen) == 2 * len(trainer.adapters) == 80
    for ours, theirs in zip(seen, expected, strict=True):
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-7)


def test_block_checkpointing_changes_no_gradient_and_every_block_keeps_its_index(pair, encoded):
    from tandem_wan.nodes.host.expert import HostExpert

    indices = []

    def attention(q, k, v, *, block, grid, sigma):
        indices.append(block)
        assert grid == (3, 4, 4) and sigma.shape == (1,)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    def gradients(checkpoint_blocks):
        expert = HostExpert(
            pair["low_noise"],
            "low_noise",
            sigma_range("low_noise", 0.9),
            checkpoint_blocks=checkpoint_blocks,
        )
        velocity = expert.velocity
        plan = _plan(steps=2)
        trainer = build_trainers(plan, {"high_noise": expert, "low_noise": expert}, encoded)[
            "low_noise"
        ]
        expert.velocity = lambda *a: velocity(*a, attention=attention)
        return _gradients_of_one_micro_batch(trainer)

    plain, recomputed = gradients(False), gradients(True)
    for ours, theirs in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)
    # Forward without, forward with, and the recomputation, which goes from the last block to the first.
    assert indices == [0, 1, 2, 3] * 2 + [3, 2, 1, 0]


def test_training_leaves_no_flag_no_hook_and_no_patch_behind(pair, encoded):
    import comfy.model_management

    model = pair["high_noise"]
    network = model.model.diffusion_model
    parameters = {name: id(p) for name, p in network.named_parameters()}
    plan = _plan(steps=4, swap_every=1)
    with _training():
        train(plan, _trainers(plan, pair, encoded), save=lambda *a: None, listen=lambda e: None)
    assert comfy.model_management.in_training is False
    assert {name: id(p) for name, p in network.named_parameters()} == parameters
    assert all(not module._forward_hooks for module in network.modules())
    assert all("forward" not in vars(block) for block in network.blocks)
    assert model.injections == {} and model.patches == {} and model.object_patches == {}


def test_training_after_an_exception_also_leaves_nothing_behind(pair, encoded):
    import comfy.model_management

    plan = _plan(steps=4, swap_every=1)
    network = pair["low_noise"].model.diffusion_model

    def broken(event):
        if event.role == "low_noise":
            raise RuntimeError("a listener fails")

    with pytest.raises(RuntimeError, match="a listener fails"), _training():
        train(plan, _trainers(plan, pair, encoded), save=lambda *a: None, listen=broken)
    assert comfy.model_management.in_training is False
    assert all(not module._forward_hooks for module in network.modules())
    assert all(p.is_inference() for p in network.parameters())


def test_conditioning_equals_what_the_host_builds_for_sampling(pair, vae, clips):
    from comfy_extras.nodes_wan import WanImageToVideo
    from tandem_wan.nodes.host.encode import image_condition
    from tandem_wan.wan.conditions import ImageCondition
    from tandem_wan.wan.video import read_clip

    model = pair["high_noise"]
    for frames in (9, 5):
        size = checked_clip_size(64, 48, frames)
        pixels = read_clip(sorted(clips.glob("*.mp4"))[0], size, fps=16)
        with torch.inference_mode():
            mask, latent = image_condition(pixels, vae, model)
            ours = ImageCondition(mask=mask[None], latent=latent[None]).channels()
            text = [[torch.zeros(1, 1, 64), {}]]
            positive, _, empty = WanImageToVideo.execute(
                text, text, vae, 64, 48, frames, 1, start_image=pixels[:1]
            ).args
            values = positive[0][1]
            theirs = model.model.concat_cond(
                noise=empty["samples"],
                device=torch.device("cpu"),
                concat_latent_image=values["concat_latent_image"],
                concat_mask=values["concat_mask"],
            )
        assert torch.equal(ours[:, :4], theirs[:, :4])
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_velocity_equals_what_the_hosts_sampler_asks_of_the_model(pair, encoded):
    from tandem_wan.nodes.host.expert import HostExpert
    from tandem_wan.training.samples import stack_batch

    model = pair["high_noise"]
    batch = stack_batch(encoded[:1], torch.device("cpu"))
    sigma = torch.tensor([0.93])
    expert = HostExpert(model, "high_noise", sigma_range("high_noise", 0.9))
    with _training(), expert.in_use(), torch.no_grad():
        ours = expert.velocity(batch.x0, sigma, batch.context, batch.condition)
    with torch.inference_mode():
        denoised = model.model.apply_model(
            batch.x0,
            sigma,
            c_concat=batch.condition.channels(),
            c_crossattn=batch.context,
        )
    theirs = (batch.x0 - denoised) / sigma.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("role", ["high_noise", "low_noise"])
def test_a_family_chosen_by_hand_makes_a_lone_model_the_expert_of_its_socket(
    pair, vae, clip, clips, role
):
    from tandem_wan.nodes.host.setup import check_setup, models_by_role

    assert list(models_by_role("auto", pair[role], None)) == ["single"]
    sockets = {"high_noise": "model_high", "low_noise": "model_low"}
    models = {"model_high": None, "model_low": None, sockets[role]: pair[role]}
    dataset = _setup(pair, vae, clip, clips).dataset
    with torch.inference_mode():
        setup = check_setup(
            _plan(steps=4, family="wan 2.2 A14B"), dataset, clip=clip, vae=vae, **models
        )
        encoded = _encoded(pair, vae, clip, clips)
    assert setup.plan.roles() == (role,) and "takes all 4 steps" in " ".join(setup.notes)
    seen = []
    with _training():
        trainers = _trainers(setup.plan, {role: pair[role]}, encoded)
        train(
            setup.plan, trainers, save=lambda *a: None, listen=lambda event: seen.append(event.role)
        )
    assert seen == [role] * 4


def test_wan_2_1_image_to_video_trains_with_the_image_features_it_samples_with(
    comfy, family, vae, clip, clips, tmp_path
):
    """A 2.1 I2V network wants features of the first frame; another first frame gives another velocity."""
    from tandem_wan.training.samples import stack_batch

    model = _wan_2_1_i2v(comfy, tmp_path)
    with pytest.raises(UserError, match="clip_vision is not connected"):
        _encoded({"high_noise": model}, vae, clip, clips)
    encoded = _encoded({"high_noise": model}, vae, clip, clips, clip_vision=_FakeClipVision())
    assert encoded[0].clip_vision.shape == (257, 1280)
    plan = _plan(steps=2, family="single model")
    trainer = _trainers(plan, {"single": model}, encoded)["single"]
    gradients = _gradients_of_one_micro_batch(trainer)
    assert all(torch.isfinite(g).all() for g in gradients)
    batch = stack_batch(encoded[:1], torch.device("cpu"))
    velocities = []
    for factor in (1.0, 2.0):
        condition = replace(batch.condition, clip_vision=batch.condition.clip_vision * factor)
        with _training(), trainer.expert.in_use(), torch.no_grad():
            velocities.append(
                trainer.expert.velocity(batch.x0, torch.tensor([0.5]), batch.context, condition)
            )
    assert not torch.equal(*velocities)


def test_models_that_the_host_streams_are_refused(pair, vae, clip, clips, monkeypatch):
    """Their layers share a buffer, so gradients would be wrong without a sign."""
    monkeypatch.setattr(pair["low_noise"], "is_dynamic", lambda: True)
    with pytest.raises(UserError, match="--disable-dynamic-vram"):
        _setup(pair, vae, clip, clips)


def test_an_fp8_scaled_base_trains_through_its_quantised_weights(
    comfy, family, pair, vae, clip, clips, tmp_path
):
    """The form in which the public 14B files come: gradients are those of the dequantised base."""
    from tandem_wan.nodes.host.wan_models import model_digest

    scaled = {
        role: _fp8_scaled(comfy, getattr(family, role), tmp_path / f"{role}.safetensors")
        for role in ("high_noise", "low_noise")
    }
    weight = scaled["high_noise"].model.diffusion_model.blocks[0].self_attn.q.weight
    assert type(weight.data) is not torch.Tensor, "the host has not quantised it"
    digests = {model_digest(model) for model in (*scaled.values(), *pair.values())}
    assert len(digests) == 4
    encoded = _encoded(scaled, vae, clip, clips)
    plan = _plan(steps=30, swap_every=3)
    losses = {role: [] for role in scaled}
    with _training():
        trainers = _trainers(plan, scaled, encoded[:1])
        train(
            plan,
            trainers,
            save=lambda *a: None,
            listen=lambda event: losses[event.role].append(event.loss),
        )
    for curve in losses.values():
        assert sum(curve[-4:]) < 0.95 * sum(curve[:4])
    # The next prompt samples: weights that training had touched outside inference mode would fail here.
    with torch.inference_mode():
        x = torch.randn(1, 36, 3, 8, 8)
        comfy.model_management.load_models_gpu([scaled["high_noise"]])
        network = scaled["high_noise"].model.diffusion_model
        out = network(
            x, torch.tensor([900.0]), context=torch.randn(1, 8, 64), transformer_options={}
        )
    assert torch.isfinite(out).all()


@pytest.fixture
def encoded(pair, vae, clip, clips):
    return _encoded(pair, vae, clip, clips)


def _encoded(models, vae, clip, clips, **more):
    from tandem_wan.nodes.host.encode import encode_dataset

    with torch.inference_mode():
        return encode_dataset(_setup(models, vae, clip, clips, **more))


def _setup(models, vae, clip, clips, **more):
    from tandem_wan.nodes.host.setup import check_setup

    dataset = load_dataset(clips, "video", trigger="X", size=checked_clip_size(64, 64, 9), fps=16.0)
    sockets = {"model_high": models.get("high_noise"), "model_low": models.get("low_noise")}
    with torch.inference_mode():
        return check_setup(_plan(), dataset, clip=clip, vae=vae, **{**sockets, **more})


def _plan(**changes):
    rates = RateSettings(rate=2e-3)
    values = {"high": rates, "low": rates, "optimizer": OptimizerSettings(name="adamw")}
    return TrainingPlan(**{"save_every": 1000, **values, **changes})


def _trainers(plan, pair, encoded):
    from tandem_wan.nodes.host.expert import HostExpert

    experts = {
        role: HostExpert(
            model,
            role,
            sigma_range(role, plan.boundary),
            checkpoint_blocks=plan.checkpoint_blocks,
        )
        for role, model in pair.items()
    }
    with _training():
        return build_trainers(plan, experts, encoded)


def _training():
    from tandem_wan.nodes.host.borders import gradients

    return gradients()


def _gradients_of_one_micro_batch(trainer):
    with _training():
        trainer.expert.attach(trainer.adapters)
        with trainer.expert.in_use():
            trainer._micro_batch(0)
        trainer.expert.detach()
    found = [p.grad.clone() for p in trainer.adapters.parameters()]
    trainer.optimizer.zero_grad()
    return found


def _gradients_by_hand(model, trainer):
    """No code of ours but the draws: clip, noise and sigma of micro-batch 0."""
    import comfy.model_management
    from tandem_wan.training.schedule import batch_indices, generator_for, sigmas_at

    plan = trainer.plan
    index = batch_indices(trainer.shapes, 1, 0, seed=plan.seed, role="high_noise")[0]
    item = trainer.clips[index]
    noise = torch.randn(
        (1, *item.x0.shape), generator=generator_for(plan.seed, "high_noise", "noise", 0)
    )
    sigma = sigmas_at(plan, "high_noise", 0, 1)
    with torch.inference_mode(False), torch.enable_grad():
        import copy

        network = copy.deepcopy(model.model.diffusion_model)
        for module in network.modules():
            for name, p in list(module._parameters.items()):
                if p is not None:
                    module._parameters[name] = torch.nn.Parameter(p.detach().clone(), False)
        factors, modules = [], dict(network.named_modules())
        for layer, adapter in trainer.adapters.items():
            down, up = (t.detach().clone().requires_grad_() for t in (adapter.down, adapter.up))
            factors += [down, up]
            modules[layer].register_forward_hook(
                lambda m, x, y, down=down, up=up: y + x[0] @ down.T @ up.T
            )
        x_t = (1 - sigma) * item.x0[None] + sigma * noise
        x = torch.cat([x_t, item.mask[None], item.image_latent[None]], 1)
        comfy.model_management.in_training = True
        try:
            out = network(x, 1000 * sigma, context=item.context[None], transformer_options={})
        finally:
            comfy.model_management.in_training = False
        ((out - (noise - item.x0[None])) ** 2).mean().backward()
    return [factor.grad for factor in factors]


def _pointers(network):
    return {name: p.data_ptr() for name, p in network.named_parameters()}


def _bits(network):
    return {
        name: hashlib.sha256(p.detach().numpy().tobytes()).hexdigest()
        for name, p in network.named_parameters()
    }


class _FakeClipVision:
    """The host's CLIP vision model has no small form; its output is all that is taken from it."""

    def encode_image(self, image):
        import comfy.clip_vision

        output = comfy.clip_vision.Output()
        generator = torch.Generator().manual_seed(int(image.sum().item() * 1000))
        output.penultimate_hidden_states = torch.randn(1, 257, 1280, generator=generator)
        return output


def _wan_2_1_i2v(comfy, folder):
    size = TransformerSize()
    shapes = transformer_layout(size)
    width = size.width
    for index, (out, into) in {1: (1280, 1280), 3: (width, 1280)}.items():
        shapes[f"img_emb.proj.{index}.weight"] = (out, into)
        shapes[f"img_emb.proj.{index}.bias"] = (out,)
    for index, wide in {0: 1280, 4: width}.items():
        shapes[f"img_emb.proj.{index}.norm.weight"] = (wide,)
    for block in range(size.layers):
        for name in ("k_img", "v_img"):
            shapes[f"blocks.{block}.cross_attn.{name}.weight"] = (width, width)
            shapes[f"blocks.{block}.cross_attn.{name}.bias"] = (width,)
        shapes[f"blocks.{block}.cross_attn.norm_k_img.weight"] = (width,)
    tensors = random_tensors(shapes, torch.Generator().manual_seed(3))
    for index, wide in {0: 1280, 4: width}.items():
        tensors[f"img_emb.proj.{index}.weight"] = tensors.pop(f"img_emb.proj.{index}.norm.weight")
        tensors[f"img_emb.proj.{index}.bias"] = torch.zeros(wide)
    config = {"transformer": {"num_heads": size.heads, "text_dim": size.text_width}}
    path = folder / "wan2.1_i2v.safetensors"
    save_file(tensors, path, metadata={"config": json.dumps(config)})
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(path))


def _fp8_scaled(comfy, source, target):
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(source)
    for key in [k for k in tensors if k.startswith("blocks.") and tensors[k].ndim == 2]:
        scale = tensors[key].abs().max() / 448
        tensors[key] = (tensors[key] / scale).to(torch.float8_e4m3fn)
        tensors[key.replace(".weight", ".scale_weight")] = scale
    tensors["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(tensors, target, metadata=metadata)
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(target))
