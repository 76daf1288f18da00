"""A plan's memory estimate against every tensor that lives while a micro-batch is trained."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.accounting import Account
from tandem_wan.training.plans.estimate_memory import (
    device_bytes,
    gradient_bytes,
    lora_params,
    number_bytes,
    offloaded_bytes,
    remembered_bytes,
    swapped_bytes,
)
from tandem_wan.training.plans.settings import LoraSettings, OptimizerSettings
from tandem_wan.training.samples import EncodedClip
from tandem_wan.wan.miniature.layouts import TransformerSize
from tandem_wan.wan.miniature.random_family import write_family

pytestmark = pytest.mark.comfy
# Heads as wide as Wan's own, so that the rotation weighs what it weighs there.
SIZE = TransformerSize(width=256, heads=2, layers=4, ffn_width=704, text_width=32)
LATENT, TOKENS, TEXT = (3, 16, 16), 192, 16
SMALL = LoraSettings(rank=8, alpha=8.0)
PLANS = {
    "recomputed": {"lora": SMALL},
    "kept": {"lora": SMALL, "checkpoint_blocks": False},
    "half of the blocks swapped": {"lora": SMALL, "swap_blocks": 2},
    "all blocks swapped, activations in main memory": {
        "lora": SMALL,
        "swap_blocks": 4,
        "offload_activations": True,
    },
    "activations in main memory": {"lora": SMALL, "offload_activations": True, "batch": 2},
    "two samples, two micro-batches": {"lora": SMALL, "batch": 2, "accumulate": 2},
    "a high rank in bfloat16": {"lora": LoraSettings(rank=64, alpha=64.0, dtype="bfloat16")},
    "an average": {"lora": SMALL, "optimizer": OptimizerSettings(name="adamw", ema=0.99)},
}


@pytest.fixture(scope="module")
def model(comfy, tmp_path_factory):
    files = write_family(tmp_path_factory.mktemp("wide"), transformer=SIZE)
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(files.high_noise))


@pytest.mark.parametrize("name", PLANS)
def test_the_estimate_is_within_15_percent_of_what_lives(model, monkeypatch, name):
    plan = rig.plan(steps=2, family="single model", **PLANS[name])
    account = _trained(model, plan, monkeypatch)
    network = _network(model)
    needed = device_bytes(network, plan, TOKENS)
    weights = network.weight_bytes - swapped_bytes(network, plan)
    # The base's own weights are left out on both sides: they are known exactly and would hide the rest.
    assert account["peak"] == pytest.approx(needed.total - weights, rel=0.15)
    assert account["elsewhere"] == pytest.approx(offloaded_bytes(network, plan, TOKENS), rel=0.15)


@pytest.mark.parametrize("name", ["recomputed", "a high rank in bfloat16", "an average"])
def test_adapters_optimizer_and_gradients_are_counted_to_the_number(model, monkeypatch, name):
    plan = rig.plan(steps=2, family="single model", **PLANS[name])
    account = _trained(model, plan, monkeypatch)
    network = _network(model)
    kept = lora_params(network, plan) * (number_bytes(plan) + remembered_bytes(plan))
    assert account["between"] == pytest.approx(kept, rel=0.03)
    assert account["gradients"] == gradient_bytes(network, plan)


def test_recomputed_blocks_keep_at_most_a_quarter_of_eight_blocks_activations(comfy, tmp_path):
    files = write_family(tmp_path, transformer=TransformerSize(layers=8))
    with torch.inference_mode():
        eight = comfy.sd.load_diffusion_model(str(files.high_noise))
    kept, recomputed = (
        _kept_at_the_end_of_the_forward_pass(eight, checkpoint_blocks=again)
        for again in (False, True)
    )
    assert 0 < recomputed <= 0.25 * kept


def _kept_at_the_end_of_the_forward_pass(model, **memory):
    account = Account(model.model.diffusion_model.parameters())
    plan = rig.plan(steps=2, family="single model", lora=SMALL, **memory)
    generator, seen = torch.Generator().manual_seed(0), []
    noise = torch.randn(2, 16, *LATENT, generator=generator)
    clip = EncodedClip(
        name="0",
        x0=noise[0],
        context=torch.randn(TEXT, 64, generator=generator),
        mask=torch.zeros(4, *LATENT),
        image_latent=noise[1],
    )
    with account, rig.training():
        (trainer,) = rig.trainers(plan, {"single": model}, [clip]).values()
        velocity = trainer.expert.velocity

        def watched(*args, **kwargs):
            before = account.now
            out = velocity(*args, **kwargs)
            seen.append(account.now - before)
            return out

        trainer.expert.velocity = watched
        rig.gradients_of_one_micro_batch(trainer)
    return seen[0]


def test_an_account_forgets_what_nobody_has_and_knows_what_was_there():
    known = torch.ones(10)
    with Account([known]) as account:
        first = torch.ones(100)
        view = first[:50]
        known.mul_(2)
        twice = first + 1
        assert (account.now, account.peak) == (800, 800)
        del first, twice
        gc.collect()
        assert (account.now, account.peak) == (400, 800)
        account.reset()
        with account.apart():
            away = torch.ones(25)
        assert (account.now, account.peak, account.elsewhere) == (400, 400, 100)
        del view, away
        assert (account.now, account.elsewhere) == (0, 0)


def _trained(model, plan, monkeypatch):
    """Two optimizer steps, so that the optimizer remembers; the second is what counts."""
    from tandem_wan.nodes.host.checkpointing import InputsInRam

    account, seen = Account(model.model.diffusion_model.parameters()), {}
    put_away = InputsInRam._put_away

    def put_apart(store, tensor):
        with account.apart():
            return put_away(store, tensor)

    monkeypatch.setattr(InputsInRam, "_put_away", put_apart)
    clips = _clips()
    with account, rig.training():
        (trainer,) = rig.trainers(plan, {"single": model}, clips).values()
        trainer.expert.attach(trainer.adapters)
        with trainer.expert.in_use():
            velocity = trainer.expert.velocity

            def watched(*args, **kwargs):
                out = velocity(*args, **kwargs)
                seen["elsewhere"] = account.elsewhere
                return out

            trainer.expert.velocity = watched
            for step in range(2):
                account.reset()
                for index in range(plan.accumulate):
                    trainer._micro_batch(index)
                seen["peak"] = account.peak
                gradients = [p.grad.nbytes for p in trainer.adapters.parameters()]
                seen["gradients"] = sum(gradients)
                trainer.optimizer.step()
                if trainer.average:
                    trainer.average.update(trainer.adapters.parameters(), step)
                trainer.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        seen["between"] = account.now
        trainer.expert.detach()
    return seen


def _network(model):
    from tandem_wan.nodes.host.machine import network_of

    return replace(network_of(model), text_tokens=TEXT)


def _clips():
    """Made outside the account: they are the dataset's."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(shape, generator=generator)

    return [
        EncodedClip(
            name=str(n),
            x0=noise(16, *LATENT),
            context=noise(TEXT, SIZE.text_width),
            mask=torch.zeros(4, *LATENT),
            image_latent=noise(16, *LATENT),
        )
        for n in range(2)
    ]
