"""The plain text encoder: UMT5's keys; padding says nothing."""

import pytest
import sentencepiece
import torch
from tandem_wan.wan.miniature.layouts import TextEncoderSize, text_encoder_layout
from tandem_wan.wan.miniature.random_family import CORPUS, train_tokenizer
from tandem_wan.wan.miniature.umt5 import TextEncoder, tokenize

SIZE = TextEncoderSize(width=16, heads=2, layers=2, ffn_width=24, tokens=16)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return TextEncoder(SIZE).requires_grad_(False)


def test_its_state_has_the_keys_and_shapes_of_the_layout(encoder):
    state = encoder.state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == text_encoder_layout(SIZE)


def test_padding_is_zero_and_changes_nothing(encoder):
    short = torch.tensor([[5, 9, 7, 1]])
    padded = torch.tensor([[5, 9, 7, 1, 0, 0, 0]])
    found = encoder(padded)
    assert torch.allclose(found[:, :4], encoder(short), atol=1e-5)
    assert found[:, 4:].abs().max() == 0


def test_the_order_of_the_words_matters(encoder):
    one, other = encoder(torch.tensor([[5, 9, 7, 1], [9, 5, 7, 1]]))
    assert (one[0] - other[1]).abs().max() > 1e-3
    assert (one[2] - other[2]).abs().max() > 1e-4


def test_a_prompt_is_its_pieces_its_end_and_padding():
    pieces = sentencepiece.SentencePieceProcessor(model_proto=train_tokenizer(CORPUS, 320))
    tokens = tokenize(pieces, ["A big rabbit", ""], 12)
    assert tokens.shape == (2, 12)
    count = len(pieces.encode("A big rabbit"))
    assert tokens[0, :count].tolist() == pieces.encode("A big rabbit")
    assert tokens[0, count:].tolist() == [1] + [0] * (11 - count)
    assert tokens[1].tolist() == [1] + [0] * 11


def test_whole_words_become_pieces_however_rare():
    proto = train_tokenizer(CORPUS, 330, ["zigzags", "circle"])
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    assert pieces.encode("A circle zigzags", out_type=str)[-2:] == ["▁circle", "▁zigzags"]
    assert pieces.decode(pieces.encode("A circle zigzags")) == "A circle zigzags"
