"""Gradients through the host's own network are those of a plain network in float64, whatever memory is saved.

The second opinion: `WanTransformer`, plain torch, in double precision, with the LoRA written into its weights,
W + alpha / rank * up @ down, and PyTorch's autograd. It shares no code with what is tested.
"""

from __future__ import annotations

import json

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.quantised import quantise
from tandem_wan.wan.conditions import ImageCondition
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.lora.adapters import new_adapters, pick_layers
from tandem_wan.wan.lora.files import write_safetensors
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout
from tandem_wan.wan.miniature.random_family import random_tensors
from tandem_wan.wan.miniature.transformer import WanTransformer
from torch.nn import functional as F

pytestmark = pytest.mark.comfy
SIZES = {
    "i2v": TransformerSize(),
    "t2v": TransformerSize(input_channels=16),
    "5b": TransformerSize(input_channels=48, output_channels=48),
}
WAYS = {
    "kept": {"checkpoint_blocks": False},
    "recomputed": {},
    "swapped": {"swap_blocks": 3},
    "offloaded": {"offload_activations": True},
    "swapped and offloaded": {"swap_blocks": 4, "offload_activations": True},
}
RANK, ALPHA = 4, 6.0


@pytest.fixture(scope="module")
def bases(comfy, tmp_path_factory):
    """MODELs by the name of their size and the form of their weights, each loaded once."""
    folder, known = tmp_path_factory.mktemp("bases"), {}

    def load(name, form="plain"):
        if (name, form) not in known:
            path = _write(folder / f"{name}.safetensors", SIZES[name])
            if form != "plain":
                quantise(path, folder / f"{name}_{form}.safetensors", form)
                path = folder / f"{name}_{form}.safetensors"
            with torch.inference_mode():
                known[name, form] = comfy.sd.load_diffusion_model(str(path))
        return known[name, form]

    return load


@pytest.fixture(scope="module")
def truth(bases):
    """Gradients in float64, computed once for each base."""
    known = {}

    def of(name, form="plain"):
        if (name, form) not in known:
            known[name, form] = _float64(bases(name, form), SIZES[name])
        return known[name, form]

    return of


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("i2v", "plain"),
        ("t2v", "plain"),
        ("5b", "plain"),
        ("i2v", "scaled_fp8"),
        ("t2v", "comfy_quant"),
    ],
)
def test_every_factor_s_gradient_is_the_float64_one_to_a_thousandth(bases, truth, name, form, way):
    ours = _ours(bases(name, form), SIZES[name], **WAYS[way])
    assert len(ours) == 2 * 10 * SIZES[name].layers
    errors = {layer: _error(got, truth(name, form)[layer]) for layer, got in ours.items()}
    assert max(errors.values()) < 1e-3, sorted(errors.items(), key=lambda pair: -pair[1])[:4]


def test_the_second_opinion_knows_a_wrong_scale_and_a_wrong_layer(bases, truth):
    """A test of the test: 1 % more alpha is seen in every factor, and so is another layer's gradient."""
    ours = _ours(bases("t2v"), SIZES["t2v"], alpha=ALPHA * 1.01)
    assert min(_error(got, truth("t2v")[layer]) for layer, got in ours.items()) > 1e-3
    layers = list(truth("t2v"))
    assert _error(truth("t2v")[layers[0]], truth("t2v")[layers[20]]) > 0.1


def test_dropout_draws_the_same_numbers_when_a_block_is_computed_again(bases):
    found = []
    for memory in ({"checkpoint_blocks": False}, {"swap_blocks": 4, "offload_activations": True}):
        torch.manual_seed(7)
        found.append(_ours(bases("t2v"), SIZES["t2v"], dropout=0.3, **memory))
    torch.manual_seed(8)
    other = _ours(bases("t2v"), SIZES["t2v"], dropout=0.3)
    for layer, kept in found[0].items():
        torch.testing.assert_close(found[1][layer], kept, rtol=1e-5, atol=1e-8)
        assert not torch.equal(other[layer], kept)


def _ours(model, size, *, alpha=ALPHA, dropout=0.0, **memory):
    from tandem_wan.nodes.host.expert import HostExpert

    expert = HostExpert(model, "single", sigma_range("single", 0.9), **memory)
    with rig.training():
        adapters = _adapters(size, alpha, dropout)
        x_t, sigma, context, condition, target = _batch(size)
        image = None
        if condition is not None:
            image = ImageCondition(mask=condition[:, :4], latent=condition[:, 4:])
        expert.attach(adapters)
        try:
            with expert.in_use():
                loss = F.mse_loss(expert.velocity(x_t, sigma, context, image), target)
                found = torch.autograd.grad(loss, adapters.parameters())
        finally:
            expert.detach()
    names = [f"{layer}.{factor}" for layer in adapters for factor in ("down", "up")]
    return dict(zip(names, found, strict=True))


def _float64(model, size):
    """No code of ours between the weights and the gradient but the plain network."""
    network = WanTransformer(size).double()
    weights = {name: _double(p) for name, p in model.model.diffusion_model.named_parameters()}
    factors = {}
    for layer, adapter in _adapters(size, ALPHA).items():
        down, up = (f.detach().double().requires_grad_() for f in (adapter.down, adapter.up))
        factors |= {f"{layer}.down": down, f"{layer}.up": up}
        weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + ALPHA / RANK * (up @ down)
    x_t, sigma, context, condition, target = (
        None if t is None else t.double() for t in _batch(size)
    )
    out = torch.func.functional_call(network, weights, (x_t, sigma, context, condition))
    found = torch.autograd.grad(F.mse_loss(out, target), list(factors.values()))
    return dict(zip(factors, found, strict=True))


def _double(weight):
    with torch.inference_mode():
        values = weight.dequantize() if hasattr(weight, "dequantize") else weight
        values = values.double()
    return values.clone().detach()


def _adapters(size, alpha, dropout=0.0):
    """With `up` away from zero, where `down` would have no gradient."""
    shapes = transformer_layout(size)
    layers = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]
    sizes = {n: shapes[f"{n}.weight"][::-1] for n in pick_layers(layers)}
    adapters = new_adapters(sizes, rank=RANK, alpha=alpha, seed=1, dropout=dropout)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.up.normal_(std=0.05, generator=generator)
    return adapters


def _batch(size):
    """Two samples at different noise: what goes in, and the velocity that should come out."""
    generator = torch.Generator().manual_seed(3)
    channels, extra = size.output_channels, size.input_channels - size.output_channels
    x_t, target = (torch.randn(2, channels, 3, 4, 6, generator=generator) for _ in range(2))
    context = torch.randn(2, 7, size.text_width, generator=generator)
    condition = torch.randn(2, extra, 3, 4, 6, generator=generator) if extra else None
    return x_t, torch.tensor([0.31, 0.87]), context, condition, target


def _write(path, size):
    """Weights of which none is 0 or 1, so that none can be left out unseen."""
    generator = torch.Generator().manual_seed(4)
    tensors = random_tensors(transformer_layout(size), generator)
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            tensors[name] = tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
    config = {"transformer": {"num_heads": size.heads, "text_dim": size.text_width}}
    write_safetensors(path, tensors, {"config": json.dumps(config)})
    return path


def _error(ours, truth):
    return ((ours.double() - truth.double()).norm() / truth.double().norm()).item()
