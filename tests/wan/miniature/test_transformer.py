"""The plain transformer: Wan's keys, and what its inputs can and cannot change."""

import pytest
import torch
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout
from tandem_wan.wan.miniature.transformer import WanTransformer, start_quietly, without_image

SIZE = TransformerSize(width=48, heads=2, layers=2, ffn_width=64, text_width=16)


@pytest.fixture
def network():
    network = WanTransformer(SIZE).requires_grad_(False)
    start_quietly(network, 0)
    generator = torch.Generator().manual_seed(1)
    network.head.head.weight.normal_(0, 0.1, generator=generator)
    return network


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return draw(2, 16, 3, 8, 6), torch.tensor([0.3, 0.9]), draw(2, 5, 16), draw(2, 20, 3, 8, 6)


def test_its_state_has_the_keys_and_shapes_of_the_layout(network):
    state = network.state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == transformer_layout(SIZE)


def test_a_quiet_start_predicts_nothing(inputs):
    network = WanTransformer(SIZE)
    start_quietly(network, 0)
    assert network(*inputs).abs().max() == 0


def test_every_input_changes_the_velocity(network, inputs):
    velocity = network(*inputs)
    assert velocity.shape == inputs[0].shape
    for index in range(4):
        others = list(inputs)
        others[index] = others[index] + 0.5
        assert (network(*others) - velocity).abs().max() > 1e-4, index


def test_a_clip_does_not_see_its_neighbours_in_the_batch(network, inputs):
    alone = torch.cat([network(*(x[i : i + 1] for x in inputs)) for i in range(2)])
    assert torch.allclose(network(*inputs), alone, atol=1e-5)


def test_attention_knows_places(network, inputs):
    """Without the rotation a row of tokens could be exchanged with another one unnoticed."""
    x, sigma, context, condition = inputs
    # A token holds 2 x 2 cells, so only a flip of whole tokens says anything about places.
    rows = torch.tensor([6, 7, 4, 5, 2, 3, 0, 1])
    moved = network(x[:, :, :, rows], sigma, context, condition[:, :, :, rows])
    assert (moved[:, :, :, rows] - network(*inputs)).abs().max() > 1e-4


def test_without_the_image_it_is_the_same_network_on_no_image(network, inputs):
    x, sigma, context, condition = inputs
    smaller = without_image(network)
    assert smaller.patch_embedding.weight.shape[1] == 16
    assert torch.allclose(
        smaller(x, sigma, context), network(x, sigma, context, 0 * condition), atol=1e-5
    )
