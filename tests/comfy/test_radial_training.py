"""A MODEL that carries radial attention trains with it: by the same mask, both ways, and it is recorded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tandem_wan.dev import radial_rig
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.start_rig import own_folders
from tandem_wan.radial_attention.dense import masked_attention
from tandem_wan.radial_attention.grid import TokenGrid
from tandem_wan.training.expert_trainer import build_trainers
from tandem_wan.training.loop import train
from tandem_wan.training.turns import Turns
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.lora.files import read_metadata, tandem_metadata

pytestmark = pytest.mark.comfy
SPARSE = {"dense_timesteps": 0, "dense_layers": "0", "sink": "none", "decay_factor": 0.05}
"""Really sparse at three latent frames."""


@pytest.fixture
def radial_pair(pair):
    return {role: radial_rig.patched(model, **SPARSE)[0] for role, model in pair.items()}


@pytest.mark.parametrize("checkpoint_blocks", [True, False])
def test_gradients_equal_those_of_attention_masked_in_double_precision(
    pair, radial_pair, encoded, checkpoint_blocks
):
    """The second opinion is a mask written out, handed to the plain MODEL block by block."""
    from tandem_wan.nodes.host.radial import radial_of

    settings = radial_of(radial_pair["low_noise"]).patch.settings

    def by_hand(q, k, v, *, block, grid, sigma):
        if block == 0:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return out.transpose(1, 2)
        return masked_attention(q, k, v, settings.layout(TokenGrid(*grid))).to(q.dtype)

    ours = _gradients(radial_pair["low_noise"], encoded, checkpoint_blocks)
    theirs = _gradients(pair["low_noise"], encoded, checkpoint_blocks, by_hand)
    dense = _gradients(pair["low_noise"], encoded, checkpoint_blocks)
    apart = 0.0
    for one, two, three in zip(ours, theirs, dense, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)
        apart = max(apart, ((one - three).norm() / three.norm()).item())
    assert apart > 0.02, "a mask that changes nothing would prove nothing"


def test_noise_levels_of_dense_steps_see_everything(pair):
    """Of 20 steps at the MODEL's shift 8, two are dense: down to sigma 0.986. A batch may hold both kinds."""
    from tandem_wan.nodes.host.radial_training import training_attention

    model, radial = radial_rig.patched(pair["high_noise"], **{**SPARSE, "dense_timesteps": 2})
    attention = training_attention(model)
    q, k, v = torch.randn(3, 2, 48, 4, 32)

    def at(*sigmas):
        return attention(q, k, v, block=1, grid=(3, 4, 4), sigma=torch.tensor(sigmas))

    dense = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in (q, k, v))
    ).transpose(1, 2)
    sparse = masked_attention(q, k, v, radial.patch.settings.layout(TokenGrid(3, 4, 4))).float()
    torch.testing.assert_close(at(0.999, 0.99), dense)
    torch.testing.assert_close(at(0.98, 0.1), sparse, rtol=1e-5, atol=1e-5)
    mixed = at([0.0, 0.99, 0.99], [0.0, 0.5, 0.5])
    torch.testing.assert_close(mixed[0], dense[0])
    torch.testing.assert_close(mixed[1], sparse[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(
        attention(q, k, v, block=0, grid=(3, 4, 4), sigma=torch.tensor([0.1, 0.1])), dense
    )


def test_the_loss_of_both_experts_falls(radial_pair, encoded):
    plan = rig.plan(steps=40, swap_every=5)
    losses = {role: [] for role in radial_pair}
    with rig.training():
        train(
            plan,
            rig.trainers(plan, radial_pair, encoded[:1]),
            save=lambda *a: None,
            listen=lambda event: losses[event.role].append(event.loss),
        )
    for role, curve in losses.items():
        assert sum(curve[-5:]) < 0.85 * sum(curve[:5]), (role, curve)


def test_a_run_says_and_records_what_it_was_trained_with(
    pair, radial_pair, vae, clip, clips, tmp_path, monkeypatch
):
    from tandem_wan.nodes.host import run as module

    monkeypatch.setattr(module, "save_pictures", lambda job: None)
    own_folders(tmp_path, monkeypatch)
    setup = _setup(radial_pair, vae, clip, clips)
    said = "radial attention (balanced: decay 0.05, block 0 dense, frames seen by all: none)"
    assert any(said in note for note in setup.notes)
    assert any("3 x 4 x 4 tokens: density 0." in note for note in setup.notes)
    job = module.open_run(setup, "radial")
    job.claim()
    for state in ("queued", "running"):
        job.set_state(state)
    assert module.work_of(setup, job)(Turns()) == "done"
    job.set_state("done")
    job.release()
    for role in pair:
        said = tandem_metadata(read_metadata(job.store.file(2, role)))["radial"]
        assert said[role]["decay"] == 0.05 and said[role]["sink"] == "none", json.dumps(said)
    with pytest.raises(UserError, match="radial"):
        module.open_run(_setup(pair, vae, clip, clips), "radial")


def test_a_digest_changes_with_the_settings_and_not_with_how_they_are_computed(pair):
    from tandem_wan.nodes.host.wan_models import model_digest

    model = pair["high_noise"]
    digests = [
        model_digest(radial_rig.patched(model, **inputs)[0])
        for inputs in ({}, {"decay_factor": 0.4}, {"backend": "gather"}, {"probe": True})
    ]
    assert len({model_digest(model), *digests[:2]}) == 3
    assert digests[0] == digests[2] == digests[3]


def test_a_backend_that_cannot_train_is_refused(pair, vae, clip, clips):
    models = {r: radial_rig.patched(m, backend="dense reference")[0] for r, m in pair.items()}
    with pytest.raises(UserError, match=r"dense reference cannot train.*Take auto or gather"):
        _setup(models, vae, clip, clips)


def test_clips_of_as_many_tokens_as_the_text_train_dense(pair):
    """Self- and cross-attention have one shape there, and only one of them may be sparse."""
    from tandem_wan.nodes.host.attention_override import attention_override

    def never(*args, **kwargs):
        raise AssertionError("not told apart")

    q = torch.randn(1, 48, 128)
    options = {"grid_sizes": torch.Size((3, 4, 4)), "block_index": 1}
    override = attention_override(never, torch.tensor([0.5]), text={48})
    assert override(None, q, q, q, 4, transformer_options=options).shape == q.shape


@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_the_hosts_own_training_keeps_the_blocks_apart_when_it_computes_them_again(pair):
    """Core computes a block again in the backward pass; by then its options name the last block for all of them."""
    from comfy_extras.nodes_train import TrainLoraNode

    model, radial = radial_rig.patched(pair["high_noise"], **SPARSE)
    size = (radial_rig.FRAMES, 8, 8)
    positive, _ = radial_rig.conditioning(size)
    numbers = []
    attention = radial_rig.watched(radial, numbers)
    with torch.inference_mode(), attention:
        TrainLoraNode.execute(
            model=[model], latents=[{"samples": torch.randn(1, 16, *size)}], positive=[positive],
            batch_size=[1], grad_accumulation_steps=[1], steps=[1], learning_rate=[1e-3], rank=[2],
            optimizer=["AdamW"], loss_function=["MSE"], seed=[0], training_dtype=["fp32"],
            lora_dtype=["fp32"], quantized_backward=[False], algorithm=["LoRA"],
            gradient_checkpointing=[True], checkpoint_depth=[2], offloading=[False],
            existing_lora=["[None]"], bucket_mode=[False], bypass_mode=[False],
        )  # fmt: skip
    assert numbers == [0, 1, 2, 3, 3, 2, 1, 0]


def _gradients(model, clips, checkpoint_blocks, attention=None):
    from tandem_wan.nodes.host.expert import HostExpert

    expert = HostExpert(
        model, "low_noise", sigma_range("low_noise", 0.9), checkpoint_blocks=checkpoint_blocks
    )
    if attention:
        velocity = expert.velocity
        expert.velocity = lambda *a: velocity(*a, attention=attention)
    trainer = build_trainers(rig.plan(steps=2), {"high_noise": expert, "low_noise": expert}, clips)[
        "low_noise"
    ]
    with torch.no_grad():  # at zero, only the up factors would have a gradient
        for index, adapter in enumerate(trainer.adapters.values()):
            adapter.up.normal_(generator=torch.Generator().manual_seed(index), std=0.02)
    return rig.gradients_of_one_micro_batch(trainer)


def _setup(models, vae, clip, clips):
    setup = rig.setup(models, vae, clip, clips)
    plan = replace(setup.plan, steps=2, swap_every=1, save_every=2)
    return replace(setup, plan=plan)
