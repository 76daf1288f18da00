"""Traps around the host's models: which expert is which, inference mode, fused kernels, keys of files. tests/README.md
lists all 16."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.checkpoints import CheckpointStore
from tandem_wan.training.loop import train
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.lora.files import read_tensors
from tandem_wan.wan.lora.stack import LoraStack, Row

pytestmark = pytest.mark.comfy
LAYER = "blocks.1.self_attn.q"


def factors(seed, rank=2, width=128):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, width, generator=generator), torch.randn(
        width, rank, generator=generator
    )


def test_trap_01_diffusers_transformer_is_the_high_noise_expert(host, pair):
    from tandem_wan.nodes.host.injection import applied_files
    from tandem_wan.nodes.host.stack import apply_stack

    # Their word for the model that works while t >= boundary; read, since an import takes seconds.
    folder = Path(importlib.util.find_spec("diffusers").origin).parent
    source = (folder / "pipelines" / "wan" / "pipeline_wan_i2v.py").read_text(encoding="utf-8")
    rule = r"t >= boundary_timestep:.{0,80}current_model = self\.transformer\n"
    assert re.search(rule, source, re.DOTALL)

    words = {"high_noise": "transformer", "low_noise": "transformer_2"}
    tensors = {}
    for seed, word in enumerate(words.values()):
        down, up = factors(seed)
        tensors[f"{word}.blocks.1.attn1.to_q.lora_A.weight"] = down
        tensors[f"{word}.blocks.1.attn1.to_q.lora_B.weight"] = up
    save_file(tensors, host.folder / "both.safetensors")
    row = Row(lora="both.safetensors", lora_low=None, high=1.0, low=1.0)
    patched, _ = apply_stack(LoraStack((row,)), pair, "error", "inject")
    for seed, role in enumerate(words):
        [file] = applied_files(patched[role])
        down, up = factors(seed)
        [(name, update)] = file.updates.items()
        assert name == f"{LAYER}.weight"
        found = update.strength * update.delta(torch.empty(128, 128))
        torch.testing.assert_close(found, up @ down, rtol=1e-5, atol=1e-5)


def test_trap_08_alpha_stands_where_readers_look_for_it(pair, encoded, tmp_path):
    """Beside lora_A as LAYER.alpha; anywhere else the host would read no alpha and scale by 1."""
    plan = rig.plan(steps=1)
    plan = plan.__class__(**{**vars(plan), "lora": plan.lora.__class__(rank=4, alpha=1.0)})
    trainers = rig.trainers(plan, pair, encoded)
    store = CheckpointStore(tmp_path, "x")
    store.save(1, trainers, {})
    tensors = read_tensors(store.file(1, "high_noise"))
    stem = f"diffusion_model.{LAYER}"
    own = {key for key in tensors if key.startswith(f"{stem}.")}
    assert own == {f"{stem}.lora_A.weight", f"{stem}.lora_B.weight", f"{stem}.alpha"}
    alphas = [key for key in tensors if key.endswith("alpha")]
    assert len(alphas) == len(trainers["high_noise"].adapters)
    assert core_scale(pair["high_noise"], tensors, stem) == pytest.approx(0.25, rel=1e-6)
    for wrong in (f"{stem}.weight.alpha", f"{stem}.lora_A.alpha"):
        moved = {wrong if key == f"{stem}.alpha" else key: t for key, t in tensors.items()}
        assert core_scale(pair["high_noise"], moved, stem) == pytest.approx(1.0, rel=1e-6)


def core_scale(model, tensors, stem):
    """What the host multiplies the product of the factors with."""
    import comfy.lora

    tensors = {**tensors, f"{stem}.lora_B.weight": factors(3, rank=4)[1]}
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(tensors, keys, log_missing=False)
    patch = patches[f"{stem}.weight"]
    weight = comfy.lora.calculate_weight(
        [(1.0, patch, 1.0, None, None)], torch.zeros(128, 128), f"{stem}.weight"
    )
    product = tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
    return (weight.norm() / product.norm()).item()


def test_trap_10_models_and_clips_of_a_prompt_are_trained_through_and_given_back_as_they_were(
    pair, vae, clip, clips
):
    """A node runs in inference mode, and what is made there is saved for no backward pass."""
    networks = {role: model.model.diffusion_model for role, model in pair.items()}
    weights = {role: dict(network.named_parameters()) for role, network in networks.items()}
    assert all(w.is_inference() for named in weights.values() for w in named.values())
    layer = networks["high_noise"].blocks[0].ffn[0]
    with pytest.raises(RuntimeError, match=r"[Ii]nference tensors"):
        layer(torch.ones(1, 128, requires_grad=True))

    plan = rig.plan(steps=4, swap_every=1)
    encoded = rig.encode(pair, vae, clip, clips)
    with torch.inference_mode():
        trainers = rig.trainers(plan, pair, encoded)
        with rig.training():
            losses = []
            train(plan, trainers, save=lambda *a: None, listen=lambda e: losses.append(e.loss))
        # The next prompt goes on with the host's own weights.
        pair["high_noise"].model.diffusion_model.blocks[0].ffn[0](torch.ones(1, 128))
    assert len(losses) == 4
    for item in encoded:
        parts = (item.x0, item.context, item.mask, item.image_latent)
        assert not any(part.is_inference() for part in parts)
    for role, trainer in trainers.items():
        held = [t for state in trainer.optimizer.state.values() for t in state.values()]
        assert not any(t.is_inference() for t in (*trainer.adapters.parameters(), *held))
        assert all(adapter.up.abs().max() > 0 for adapter in trainer.adapters.values())
        after = dict(networks[role].named_parameters())
        assert all(after[name] is weight for name, weight in weights[role].items())


def test_trap_11_training_never_meets_the_fused_rotary_embedding_and_sampling_always_does(
    comfy, pair, encoded, monkeypatch
):
    """It has no backward pass; the host takes it whenever `in_training` is off."""
    import comfy.model_management
    import comfy.quant_ops
    from tandem_wan.nodes.host.expert import HostExpert
    from tandem_wan.training.samples import stack_batch

    calls = []
    kernels = comfy.quant_ops.ck
    for name in ("apply_rope", "apply_rope1"):
        fused = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, spied(fused, calls))
    batch = stack_batch(encoded[:1], torch.device("cpu"))

    def sampled():
        """How often a forward pass of the host's meets the kernel."""
        before = len(calls)
        with torch.inference_mode():
            pair["high_noise"].model.apply_model(
                batch.x0,
                torch.tensor([0.95]),
                c_concat=batch.condition.channels(),
                c_crossattn=batch.context,
            )
        return len(calls) - before

    usual = sampled()
    assert usual > 0
    plan = rig.plan(steps=4, swap_every=1)
    trainers = rig.trainers(plan, pair, encoded)
    before = len(calls)
    with rig.training():
        train(plan, trainers, save=lambda *a: None, listen=lambda e: None)
    assert len(calls) == before
    assert sampled() == usual

    # Without the flag the gradient ends there: the trap is real.
    expert = HostExpert(pair["high_noise"], "high_noise", sigma_range("high_noise", 0.9))
    x = batch.x0.clone().requires_grad_()
    with rig.training(), expert.in_use(), pytest.raises((RuntimeError, NotImplementedError)):
        monkeypatch.setattr(comfy.model_management, "in_training", False)
        velocity = expert.velocity(x, torch.tensor([0.95]), batch.context, batch.condition)
        velocity.sum().backward()


def spied(fused, calls):
    def spy(*args, **kwargs):
        calls.append(args)
        return fused(*args, **kwargs)

    return spy


@pytest.mark.parametrize("shift", [3.0, 5.0, 8.0, 12.0])
def test_trap_15_the_sampler_is_split_where_the_shifted_schedule_meets_the_boundary(pair, shift):
    """Not after (1 - boundary) of the steps. Previews and training give the high expert the same share."""
    from tandem_wan.nodes.host.sampling import make_schedule, with_shift
    from tandem_wan.training.expert_turns import expert_steps
    from tandem_wan.training.preview import schedule as preview_schedule

    with torch.inference_mode():
        model = with_shift(pair["high_noise"], shift)
    for steps in (4, 20, 40):
        schedule = make_schedule(
            model, steps=steps, scheduler="simple", sampler_name="euler", denoise=1.0, boundary=0.0
        )
        # By hand: u falls evenly from 1; sigma = s u / (1 + (s - 1) u).
        even = [1 - int(i * 1000 / steps) / 1000 for i in range(steps)]
        expected = sum(shift * u / (1 + (shift - 1) * u) >= 0.9 for u in even)
        assert schedule.high_steps == expected
        assert sum(s >= 0.9 for s in preview_schedule(steps, shift)[:-1]) == expected
        assert expected > round(0.1 * steps) + steps // 10, "far from the naive tenth"
    plan = rig.plan(steps=1000, swap_every=1, shift=shift)
    trained = expert_steps(plan)["high_noise"] / 1000
    assert trained == pytest.approx(expected / steps, abs=1.1 / steps)
