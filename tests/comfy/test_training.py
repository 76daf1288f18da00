"""Training on the host's own MODEL objects."""

from __future__ import annotations

import hashlib

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.expert_trainer import build_trainers
from tandem_wan.training.loop import train
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.shapes import checked_clip_size

pytestmark = pytest.mark.comfy


def test_loss_of_both_experts_falls_on_one_clip_and_the_base_is_neither_copied_nor_changed(
    pair, encoded
):
    networks = {role: model.model.diffusion_model for role, model in pair.items()}
    before = {role: _pointers(network) for role, network in networks.items()}
    bits = {role: _bits(network) for role, network in networks.items()}
    during, gradients = {}, {}
    plan = rig.plan(steps=60, swap_every=5)
    trainers = rig.trainers(plan, pair, encoded[:1])

    def listen(event):
        during[event.role] = _pointers(networks[event.role])
        losses[event.role].append(event.loss)
        gradients[event.role] = [p.grad for p in networks[event.role].parameters()]

    losses = {role: [] for role in pair}
    with rig.training():
        assert train(plan, trainers, save=lambda *a: None, listen=listen) == "done"

    for role, curve in losses.items():
        assert sum(curve[-5:]) < 0.85 * sum(curve[:5]), (role, curve)
        assert before[role] == during[role] == _pointers(networks[role])
        assert bits[role] == _bits(networks[role])
        assert gradients[role] == [None] * len(gradients[role])


def test_gradients_reach_every_adapter_and_equal_a_plain_loop(pair, encoded):
    """The second opinion is written here by hand: W x + B A x by a hook, mean squared error, autograd."""
    plan = rig.plan(steps=2, checkpoint_blocks=False)
    trainers = rig.trainers(plan, pair, encoded)
    trainer = trainers["high_noise"]
    ups = [adapter.up for adapter in trainer.adapters.values()]
    with torch.no_grad():  # at zero, only the up factors would have a gradient
        for index, up in enumerate(ups):
            up.normal_(generator=torch.Generator().manual_seed(index), std=0.02)
    seen = rig.gradients_of_one_micro_batch(trainer)
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
        plan = rig.plan(steps=2)
        trainer = build_trainers(plan, {"high_noise": expert, "low_noise": expert}, encoded)[
            "low_noise"
        ]
        expert.velocity = lambda *a: velocity(*a, attention=attention)
        return rig.gradients_of_one_micro_batch(trainer)

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
    plan = rig.plan(steps=4, swap_every=1)
    with rig.training():
        train(plan, rig.trainers(plan, pair, encoded), save=lambda *a: None, listen=lambda e: None)
    assert comfy.model_management.in_training is False
    assert {name: id(p) for name, p in network.named_parameters()} == parameters
    assert all(not module._forward_hooks for module in network.modules())
    assert all("forward" not in vars(block) for block in network.blocks)
    assert model.injections == {} and model.patches == {} and model.object_patches == {}


def test_training_after_an_exception_also_leaves_nothing_behind(pair, encoded):
    import comfy.model_management

    plan = rig.plan(steps=4, swap_every=1)
    network = pair["low_noise"].model.diffusion_model

    def broken(event):
        if event.role == "low_noise":
            raise RuntimeError("a listener fails")

    with pytest.raises(RuntimeError, match="a listener fails"), rig.training():
        train(plan, rig.trainers(plan, pair, encoded), save=lambda *a: None, listen=broken)
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
    with rig.training(), expert.in_use(), torch.no_grad():
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
