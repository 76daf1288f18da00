"""Every kind of update on every kind of parameter, as it runs beside the weights: against the weights themselves."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tandem_wan.dev import training_rig
from tandem_wan.dev import update_rig as rig
from tandem_wan.dev.quantised import FORMS, quantise
from tandem_wan.dev.update_rig import FFN, Q
from tandem_wan.wan.lora.strength import parse_strength
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = pytest.mark.comfy


@pytest.mark.parametrize("role", ["high_noise", "low_noise"])
def test_each_kind_of_update_does_what_it_does_in_the_weight(pair, fresh, role):
    for kind, update in rig.kinds().items():
        files = [rig.file({Q: update}, 0.7)]
        ours, reference = (
            rig.output(rig.stacked(pair[role], files)),
            rig.output(rig.changed(fresh(role), files)),
        )
        plain = rig.output(pair[role])
        assert _difference(ours, reference) < 1e-5 * _difference(reference, plain) + 2e-6, kind


def test_every_other_parameter_follows_its_update_and_its_strength(pair, fresh):
    model = pair["high_noise"]
    for name, update in rig.elsewhere().items():
        files = [rig.file({name: update}, -0.6)]
        ours, reference = (
            rig.output(rig.stacked(model, files)),
            rig.output(rig.changed(fresh("high_noise"), files)),
        )
        plain = rig.output(model)
        assert _difference(reference, plain) > 1e-4, name
        assert _difference(ours, reference) < 1e-4 * _difference(reference, plain) + 2e-6, name


def test_files_that_change_one_parameter_add_up_in_any_order(pair, fresh):
    """DoRA looks at the weight: at the base model's, not at what another file made of it."""
    kinds = list(rig.kinds().values())
    files = [rig.file({Q: update}, 0.3 + 0.1 * number) for number, update in enumerate(kinds)]
    files += [rig.file(rig.elsewhere(seed), 0.4) for seed in (3, 4)]
    model = pair["high_noise"]
    forward, backward = (
        rig.output(rig.stacked(model, files)),
        rig.output(rig.stacked(model, files[::-1])),
    )
    one_by_one = model
    for file in files:
        one_by_one = rig.stacked(one_by_one, [file])
    assert torch.equal(rig.output(one_by_one), forward)
    torch.testing.assert_close(forward, backward, rtol=1e-5, atol=1e-5)
    reference = rig.output(rig.changed(fresh("high_noise"), files))
    torch.testing.assert_close(forward, reference, rtol=1e-4, atol=1e-4)


def test_many_loras_on_one_layer_are_one_product_and_one_copy_of_their_factors(pair):
    rand = rig.random(5)
    files = [rig.file({Q: rig.lora(rand, 128, 128, rank)}, 0.5) for rank in (4, 8, 2, 16)]
    model = pair["high_noise"]
    plain, stacked = _products(model), _products(rig.stacked(model, files))
    assert stacked - plain == 2
    joined = {
        factor.untyped_storage().data_ptr()
        for file in files
        for factor in file.updates[Q].parameters()
    }
    assert len(joined) == 2, "one joined `down`, one joined `up`"


@pytest.mark.parametrize("other", [torch.float16, torch.bfloat16, torch.float32, torch.float8_e5m2])
def test_loras_of_short_and_long_floats_share_a_layer(pair, fresh, other):
    rand = rig.random(6)
    files = [
        rig.file({Q: rig.lora(rand, 128, 128, 4).to(dtype)}, strength)
        for dtype, strength in ((torch.float8_e4m3fn, 0.7), (other, 0.4), (other, 0.2))
    ]
    model = pair["high_noise"]
    plain, ours = rig.output(model), rig.output(rig.stacked(model, files))
    reference = rig.output(rig.changed(fresh("high_noise"), files))
    assert _difference(ours, reference) < 1e-5 * _difference(reference, plain) + 2e-6


def test_a_strength_of_zero_puts_nothing_on_the_model(pair):
    from tandem_wan.nodes.host.injection import AppliedFile

    model = pair["high_noise"]
    assert rig.stacked(model, [rig.file({Q: rig.kinds()["LoRA"]}, 0.0)]) is model
    file = rig.file({Q: rig.kinds()["LoRA"]})
    assert rig.stacked(model, [AppliedFile(file.updates, parse_strength("0"))]) is model


@pytest.mark.parametrize("form", [*FORMS, "float8", "bfloat16", "float16"])
def test_quantised_and_short_weights_take_what_float_weights_take(
    comfy, family, pair, tmp_path, form
):
    """The base is coarser; the updates are as exact as its activations, and its weights are not touched."""
    options = {}
    path = family.high_noise
    if form in FORMS:
        path = tmp_path / "quantised.safetensors"
        quantise(family.high_noise, path, form)
    elif form == "float8":
        options = {"dtype": torch.float8_e4m3fn}
    else:
        options = {"dtype": getattr(torch, form)}
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(path), model_options=options)
    weight = model.model.diffusion_model.blocks[0].self_attn.q.weight
    kept = weight.clone()
    base = _as_numbers(model, Q)
    x = torch.randn(64, 128, generator=torch.Generator().manual_seed(3))
    for kind, update in rig.kinds().items():
        gained = rig.layer_output(
            rig.stacked(model, [rig.file({Q: update})]), Q, x
        ) - rig.layer_output(model, Q, x)
        expected = x @ update.delta(base).T
        scale = expected.norm() if "DoRA" not in kind else rig.layer_output(model, Q, x).norm()
        error = (gained - expected).norm() / scale
        assert error < (0.05 if form in FORMS and "DoRA" in kind else 0.02), (kind, error)
    now = model.model.diffusion_model.blocks[0].self_attn.q.weight
    assert type(now.data) is type(kept) or now.dtype == kept.dtype
    assert torch.equal(_stored(now), _stored(kept))


def test_gradients_flow_beside_every_kind_of_update_also_through_recomputed_blocks(
    pair, vae, clip, clips
):
    files = [rig.file({Q: u}, 0.5) for u in rig.kinds().values()] + [rig.file(rig.elsewhere(), 0.5)]
    with torch.inference_mode():
        made_in_a_prompt = [rig.file({FFN: rig.lora(rig.random(9), 128, 256, 4)})]
    stacked = {
        role: rig.stacked(model, [*files, *made_in_a_prompt]) for role, model in pair.items()
    }
    gradients = []
    for recompute in (True, False):
        plan = training_rig.plan(steps=2, checkpoint_blocks=recompute)
        trainers = training_rig.trainers(
            plan, stacked, training_rig.encode(stacked, vae, clip, clips)
        )
        gradients.append(training_rig.gradients_of_one_micro_batch(trainers["high_noise"]))
    assert any(g.abs().max() > 0 for g in gradients[0])
    for recomputed, kept in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept, rtol=1e-4, atol=1e-7)


def test_factors_in_training_stay_the_optimizers_and_get_gradients_beside_a_stack(pair):
    from tandem_wan.nodes.host.borders import differentiable_ops, gradients
    from tandem_wan.nodes.host.injection import with_adapters
    from tandem_wan.wan.lora.adapters import new_adapters

    layer = Q.removesuffix(".weight")
    adapters = new_adapters({layer: (128, 128)}, rank=2, alpha=2, seed=1)
    with gradients():
        torch.nn.init.normal_(adapters[layer].up)
    model = with_adapters(
        rig.stacked(pair["high_noise"], [rig.file({Q: rig.kinds()["LoRA"]})]), [adapters]
    )
    before = rig.output(model)
    with gradients(), differentiable_ops():
        module = model.model.diffusion_model.get_submodule(layer)
        weight = module.weight
        module._parameters["weight"] = torch.nn.Parameter(weight.clone(), requires_grad=False)
        module(torch.randn(3, 128)).sum().backward()
        module._parameters["weight"] = weight
        assert adapters[layer].down.grad.abs().max() > 0
        adapters[layer].up.data.mul_(2)
    assert not torch.equal(rig.output(model), before)


@pytest.fixture
def fresh(comfy, family):
    """A MODEL whose weights nobody else uses."""

    def load(role):
        with torch.inference_mode():
            return comfy.sd.load_diffusion_model(str(getattr(family, role)))

    return load


def _as_numbers(model, name):
    from tandem_wan.nodes.host.parameters import base_weight

    return base_weight(model, name).float()


def _stored(weight):
    stored = getattr(weight, "_qdata", weight)
    return stored.view(torch.uint8) if stored.element_size() == 1 else stored


def _difference(one, other):
    return (one - other).abs().max().item()


class _Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def _products(model):
    from comfy.model_management import load_models_gpu

    load_models_gpu([model])
    # Outside inference mode, where a linear layer is dispatched as the product that it is.
    with torch.no_grad(), _Count() as count:
        model.model.diffusion_model.get_submodule(Q.removesuffix(".weight"))(torch.ones(3, 128))
    return sum(count.calls[name] for name in ("mm", "addmm", "bmm", "matmul", "linear"))
