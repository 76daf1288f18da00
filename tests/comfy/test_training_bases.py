"""Training on every kind of base: a lone expert, Wan 2.1, quantised weights; and the one that is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.quantised import quantise
from tandem_wan.dev.tiny_wan21 import write_wan21
from tandem_wan.training.loop import train
from tandem_wan.wan.errors import UserError

pytestmark = pytest.mark.comfy


@pytest.mark.parametrize("role", ["high_noise", "low_noise"])
def test_a_family_chosen_by_hand_makes_a_lone_model_the_expert_of_its_socket(
    pair, vae, clip, clips, role
):
    from tandem_wan.nodes.host.setup import check_setup, models_by_role

    assert list(models_by_role("auto", pair[role], None)) == ["single"]
    sockets = {"high_noise": "model_high", "low_noise": "model_low"}
    models = {"model_high": None, "model_low": None, sockets[role]: pair[role]}
    dataset = rig.setup(pair, vae, clip, clips).dataset
    with torch.inference_mode():
        setup = check_setup(
            rig.plan(steps=4, family="wan 2.2 A14B"), dataset, clip=clip, vae=vae, **models
        )
        encoded = rig.encode(pair, vae, clip, clips)
    assert setup.plan.roles() == (role,) and "takes all 4 steps" in " ".join(setup.notes)
    seen = []
    with rig.training():
        trainers = rig.trainers(setup.plan, {role: pair[role]}, encoded)
        train(
            setup.plan, trainers, save=lambda *a: None, listen=lambda event: seen.append(event.role)
        )
    assert seen == [role] * 4


def test_of_two_connected_experts_the_plan_may_train_one(pair, vae, clip, clips):
    from tandem_wan.nodes.host.setup import check_setup

    dataset = rig.setup(pair, vae, clip, clips).dataset
    sockets = {"model_high": pair["high_noise"], "model_low": pair["low_noise"]}
    given = {"clip": clip, "vae": vae}
    with torch.inference_mode():
        for train in ("high", "low"):
            plan = rig.plan(steps=4, train=train)
            setup = check_setup(plan, dataset, **sockets, **given)
            assert setup.plan.roles() == tuple(setup.models) == (f"{train}_noise",)
            assert f"Only the {train}-noise expert is trained" in " ".join(setup.notes)
        alone = sockets | {"model_high": None}
        for family in ("wan 2.2 A14B", "auto"):
            with pytest.raises(UserError, match="only model_low is connected"):
                check_setup(rig.plan(family=family, train="high"), dataset, **alone, **given)
        setup = check_setup(rig.plan(train="low"), dataset, **alone, **given)
        assert tuple(setup.models) == setup.plan.roles() == ("low_noise",)


def test_wan_2_1_image_to_video_trains_with_the_image_features_it_samples_with(
    comfy, family, vae, clip, clips, tmp_path
):
    """A 2.1 I2V network wants features of the first frame; another first frame gives another velocity."""
    from tandem_wan.training.samples import stack_batch

    model = _wan_2_1_i2v(comfy, tmp_path)
    with pytest.raises(UserError, match="clip_vision is not connected"):
        rig.encode({"high_noise": model}, vae, clip, clips)
    encoded = rig.encode({"high_noise": model}, vae, clip, clips, clip_vision=_FakeClipVision())
    assert encoded[0].clip_vision.shape == (257, 1280)
    plan = rig.plan(steps=2, family="single model")
    trainer = rig.trainers(plan, {"single": model}, encoded)["single"]
    gradients = rig.gradients_of_one_micro_batch(trainer)
    assert all(torch.isfinite(g).all() for g in gradients)
    batch = stack_batch(encoded[:1], torch.device("cpu"))
    velocities = []
    for factor in (1.0, 2.0):
        condition = replace(batch.condition, clip_vision=batch.condition.clip_vision * factor)
        with rig.training(), trainer.expert.in_use(), torch.no_grad():
            velocities.append(
                trainer.expert.velocity(batch.x0, torch.tensor([0.5]), batch.context, condition)
            )
    assert not torch.equal(*velocities)


def test_models_that_the_host_streams_are_refused(pair, vae, clip, clips, monkeypatch):
    """Their layers share a buffer, so gradients would be wrong without a sign."""
    monkeypatch.setattr(pair["low_noise"], "is_dynamic", lambda: True)
    with pytest.raises(UserError, match="--disable-dynamic-vram"):
        rig.setup(pair, vae, clip, clips)


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
    encoded = rig.encode(scaled, vae, clip, clips)
    plan = rig.plan(steps=30, swap_every=3)
    losses = {role: [] for role in scaled}
    with rig.training():
        trainers = rig.trainers(plan, scaled, encoded[:1])
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


def test_a_digest_knows_what_is_patched_onto_a_model_and_not_where_it_lies(
    comfy, family, pair, tmp_path
):
    from comfy.model_management import load_models_gpu
    from tandem_wan.nodes.host.injection import with_adapters
    from tandem_wan.nodes.host.wan_models import model_digest
    from tandem_wan.wan.lora.adapters import new_adapters

    model = pair["high_noise"]
    plain = model_digest(model)

    def merged(value):
        key = "diffusion_model.blocks.0.self_attn.q"
        lora = {
            f"{key}.lora_A.weight": torch.full((2, 128), value),
            f"{key}.lora_B.weight": torch.ones(128, 2),
        }
        with torch.inference_mode():
            return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]

    def stacked(seed):
        layer = {"blocks.0.self_attn.q": (128, 128)}
        return with_adapters(model, [new_adapters(layer, rank=2, alpha=2, seed=seed)])

    variants = [
        plain,
        *(model_digest(merged(v)) for v in (0.1, 0.2)),
        *(model_digest(stacked(s)) for s in (1, 2)),
    ]
    assert len(set(variants)) == 5
    with torch.inference_mode():
        load_models_gpu([merged(0.1)])  # the shared weights now hold another clone's patch
    assert model_digest(model) == plain


def test_a_stack_of_a_prompt_stays_in_while_training_also_in_the_models_own_dtype(
    pair, vae, clip, clips
):
    """Its adapters are inference tensors; in the dtype of the activations no copy is made on the way."""
    from tandem_wan.nodes.host.injection import with_adapters
    from tandem_wan.wan.lora.adapters import AdapterSet, LoraAdapter

    with torch.inference_mode():
        adapter = LoraAdapter(torch.ones(2, 128) / 9, torch.ones(128, 2) / 9, 2.0)
        adapter.requires_grad_(False)
    assert adapter.down.is_inference()
    stacked = {
        role: with_adapters(model, [AdapterSet({"blocks.2.self_attn.o": adapter})])
        for role, model in pair.items()
    }
    setup = rig.setup(stacked, vae, clip, clips)
    assert "came with LoRA patches" in " ".join(setup.notes)
    trainer = rig.trainers(rig.plan(steps=2), stacked, rig.encode(stacked, vae, clip, clips))[
        "high_noise"
    ]
    with_stack = rig.gradients_of_one_micro_batch(trainer)
    plain = rig.trainers(rig.plan(steps=2), pair, rig.encode(pair, vae, clip, clips))["high_noise"]
    without = rig.gradients_of_one_micro_batch(plain)
    assert any(not torch.equal(a, b) for a, b in zip(with_stack, without, strict=True))
    assert adapter.down.is_inference()


def test_a_variant_of_wan_is_refused_by_name(pair, vae, clip, clips, monkeypatch):
    from comfy.ldm.wan.model import VaceWanModel

    monkeypatch.setattr(pair["high_noise"].model.diffusion_model, "__class__", VaceWanModel)
    with pytest.raises(
        UserError, match=r"model .high_noise. is a VaceWanModel with 36 input channels"
    ):
        rig.setup(pair, vae, clip, clips)


class _FakeClipVision:
    """The host's CLIP vision model has no small form; its output is all that is taken from it."""

    patcher = SimpleNamespace(model=torch.nn.Linear(1, 1), backup={}, patches={})

    def encode_image(self, image):
        import comfy.clip_vision

        output = comfy.clip_vision.Output()
        generator = torch.Generator().manual_seed(int(image.sum().item() * 1000))
        output.penultimate_hidden_states = torch.randn(1, 257, 1280, generator=generator)
        return output


def _wan_2_1_i2v(comfy, folder):
    path = write_wan21(folder / "wan2.1_i2v.safetensors")
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(path))


def _fp8_scaled(comfy, source, target):
    quantise(source, target, "scaled_fp8")
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(target))
