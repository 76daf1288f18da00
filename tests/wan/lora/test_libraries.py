"""Files that PEFT and LyCORIS write, against those libraries' own forward passes."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.dev import library_loras as library
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.files import read_lora
from tandem_wan.wan.lora.keys import match_lora
from tandem_wan.wan.lora.updates import LayerPass

TOLERANCE = 1e-5
"""Of what the change adds to a layer's output, in norms: float32 on both sides, in another order."""
SHAPES = {
    "blocks.0.self_attn.q": (24, 24),
    "blocks.0.cross_attn.o": (24, 24),
    "blocks.0.ffn.0": (40, 24),
    "blocks.1.ffn.2": (24, 40),
}
PATCH = {"patch_embedding": (24, 12, 1, 2, 2)}

PEFT = {
    "LoRA": ("LoraConfig", {"lora_alpha": 10}),
    "LoRA, rank-stabilised": ("LoraConfig", {"lora_alpha": 10, "use_rslora": True}),
    "LoRA, alpha by layer": (
        "LoraConfig",
        {"lora_alpha": 10, "alpha_pattern": {"self_attn.q": 3, "ffn.0": 5}},
    ),
    "LoRA with biases": ("LoraConfig", {"lora_alpha": 10, "lora_bias": True}),
    "DoRA": ("LoraConfig", {"lora_alpha": 10, "use_dora": True}),
    "LoHa": ("LoHaConfig", {"alpha": 10}),
    "LoKr": ("LoKrConfig", {"alpha": 10}),
    "LoKr of products": ("LoKrConfig", {"alpha": 10, "decompose_both": True}),
}
LYCORIS = {
    "LoRA": ("lora", {}),
    "LoRA with a factor of its own": ("lora", {"use_scalar": True}),
    "DoRA of outputs": ("lora", {"dora_wd": True}),
    "DoRA of inputs": ("lora", {"dora_wd": True, "wd_on_output": False}),
    "LoHa": ("loha", {}),
    "LoHa with DoRA": ("loha", {"dora_wd": True}),
    "LoKr": ("lokr", {"factor": 4}),
    "LoKr of products": ("lokr", {"factor": 4, "decompose_both": True}),
    "LoKr, whole": ("lokr", {"factor": 4, "full_matrix": True}),
    "LoKr with DoRA of outputs": ("lokr", {"factor": 4, "dora_wd": True}),
    "LoKr with DoRA of inputs": ("lokr", {"factor": 4, "dora_wd": True, "wd_on_output": False}),
    "full difference": ("full", {}),
}
CONVOLUTIONS = {
    "LoRA": ("lora", {}),
    "LoRA, Tucker": ("lora", {"use_tucker": True}),
    "LoHa": ("loha", {}),
    "LoHa, Tucker": ("loha", {"use_tucker": True}),
    "LoKr": ("lokr", {"factor": 4}),
    "LoKr, Tucker": ("lokr", {"factor": 4, "use_tucker": True}),
    "DoRA of outputs": ("lora", {"dora_wd": True}),
    "DoRA of inputs": ("lora", {"dora_wd": True, "wd_on_output": False}),
}


@pytest.mark.filterwarnings("ignore:Adapter 'default'.*invalid shape")
@pytest.mark.parametrize("kind", PEFT)
def test_what_peft_saves_does_what_pefts_layers_do(tmp_path, kind):
    weights = random_weights(SHAPES)
    model, file = of_peft(tmp_path, weights, *PEFT[kind])
    assert_same_layers(file, weights, model.get_submodule)


@pytest.mark.parametrize("kind", LYCORIS)
def test_what_lycoris_saves_does_what_its_layers_do(tmp_path, kind):
    weights = random_weights(SHAPES)
    network, file = of_lycoris(tmp_path, weights, *LYCORIS[kind])
    assert_same_layers(file, weights, network.get_submodule)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_what_lycoris_saves_of_a_convolution_does_what_its_layer_does(tmp_path, kind):
    weights = random_weights(PATCH)
    network, file = of_lycoris(tmp_path, weights, *CONVOLUTIONS[kind])
    assert_same_convolution(file, weights, network)


@pytest.mark.parametrize("kind", ["LoRA", "DoRA"])
def test_what_peft_saves_of_a_convolution_does_what_its_layer_does(tmp_path, kind):
    weights = random_weights(PATCH)
    model, file = of_peft(tmp_path, weights, *PEFT[kind])
    assert_same_convolution(file, weights, model)


@pytest.mark.parametrize(
    ("algo", "kind"),
    [
        ("diag-oft", "OFT or BOFT"),
        ("glora", "GLoRA"),
        ("ia3", "IA3"),
        ("tlora", "T-LoRA"),
    ],
)
def test_a_kind_of_lycoris_that_is_not_read_is_named(tmp_path, algo, kind):
    with pytest.raises(UserError, match=f"a kind that is not read, {kind}"):
        matched(of_lycoris(tmp_path, random_weights(SHAPES), algo, {})[1], {})


@pytest.mark.parametrize(("config", "kind"), [("OFTConfig", "OFT"), ("IA3Config", "IA3")])
def test_a_kind_of_peft_that_is_not_read_is_named(tmp_path, config, kind):
    import peft

    weights = random_weights(SHAPES)
    settings = {
        "OFTConfig": {"oft_block_size": 4, "r": 0},
        "IA3Config": {"feedforward_modules": []},
    }
    made = getattr(peft, config)(target_modules=list(weights), **settings[config])
    model = peft.get_peft_model(library.network_of(weights), made)
    with pytest.raises(UserError, match=f"a kind that is not read, {kind}"):
        read_lora(library.save_peft(tmp_path, model))


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_pefts_factors_that_were_taken_out_of_the_model_are_refused(tmp_path, start):
    settings = {"lora_alpha": 10, "init_lora_weights": start}
    _, file = of_peft(tmp_path, random_weights(SHAPES), "LoraConfig", settings)
    with pytest.raises(UserError, match=start):
        read_lora(file)


def of_peft(folder, weights, config, settings):
    """PEFT's network and its file."""
    import peft

    model = peft.get_peft_model(
        library.network_of(weights),
        getattr(peft, config)(r=4, target_modules=list(weights), **settings),
    )
    disturb(model)
    return model.base_model.model, library.save_peft(folder, model)


def of_lycoris(folder, weights, algo, settings):
    """The network that LyCORIS works in, and its file."""
    network = library.network_of(weights)
    made = library.lycoris_network(
        network, algo, prefix="lora_unet", linear_dim=4, linear_alpha=2.0, **settings
    )
    disturb(made)
    return network, library.save_lycoris(folder / "x.safetensors", made)


def random_weights(shapes):
    torch.manual_seed(3)
    return {name: torch.randn(shape) / shape[1] ** 0.5 for name, shape in shapes.items()}


def disturb(module):
    """Away from the start, at which an adapter changes nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 5


def matched(file, weights):
    parameters = {f"{name}.weight": tuple(weight.shape) for name, weight in weights.items()}
    parameters |= {f"{name}.bias": (len(weight),) for name, weight in weights.items()}
    lora = read_lora(file)
    match = match_lora(lora.tensors, parameters, lora.header.settings)
    assert match.leftovers == ()
    assert {f"{name}.weight" for name in weights} <= set(match.updates)
    return match


def assert_same_layers(file, weights, layer_of):
    """x W^T, with what the updates of the file add to it, is the library's output."""
    updates = matched(file, weights).updates
    for name, weight in weights.items():
        x = torch.randn(2, 5, weight.shape[1])
        update, bias = updates[f"{name}.weight"], updates.get(f"{name}.bias")
        with torch.no_grad():
            plain = x @ weight.T
            update.prepare(weight)
            ours = plain + update(x, LayerPass(plain, lambda other, w=weight: other @ w.T))
            if bias is not None:
                ours += bias.delta(torch.zeros(len(weight)))
            assert_close(ours, layer_of(name)(x), plain)


def assert_same_convolution(file, weights, network):
    (update,) = matched(file, weights).updates.values()
    (weight,) = weights.values()
    x = torch.randn(1, 12, 2, 6, 6)
    with torch.no_grad():
        theirs = network.get_submodule("patch_embedding")(x)
        changed = torch.conv3d(x, weight + update.delta(weight), None, weight.shape[2:])
        assert_close(changed, theirs, torch.conv3d(x, weight, None, weight.shape[2:]))


def assert_close(ours, theirs, plain):
    effect = (theirs - plain).norm()
    assert effect > 0.01 * plain.norm()
    assert (ours - theirs).norm() <= TOLERANCE * effect
