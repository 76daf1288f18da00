"""A family of random weights: loadable by its own rules, the same for the same seed, at any size."""

import json

import pytest
import sentencepiece
import torch
from tandem_wan.wan.lora.files import read_metadata, read_tensors
from tandem_wan.wan.miniature.layouts import (
    TextEncoderSize,
    TransformerSize,
    transformer_layout,
    vae_layout,
)
from tandem_wan.wan.miniature.random_family import (
    CORPUS,
    FamilyFiles,
    random_tensors,
    train_tokenizer,
    write_family,
)
from tandem_wan.wan.text_encoder import text_encoder_shape

SIZES = {
    "least": (
        TransformerSize(width=32, heads=2, layers=1, ffn_width=48, text_width=16),
        TextEncoderSize(width=16, heads=2, layers=1, ffn_width=24, tokens=16),
        2,
    ),
    "text to video": (
        TransformerSize(
            width=48, heads=4, layers=3, ffn_width=64, text_width=32, input_channels=16
        ),
        TextEncoderSize(width=32, heads=4, layers=3, ffn_width=64, tokens=64),
        4,
    ),
}


@pytest.fixture(scope="module", params=SIZES.values(), ids=SIZES.keys())
def sized_family(request, tmp_path_factory):
    transformer, text_encoder, vae_width = request.param
    folder = tmp_path_factory.mktemp("models")
    files = write_family(
        folder, transformer=transformer, text_encoder=text_encoder, vae_width=vae_width, prefix="t"
    )
    return files, folder, request.param


def shapes_of(path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}


def test_the_files_lie_where_the_stock_loaders_look(sized_family):
    files, folder, _ = sized_family
    assert [str(path.relative_to(folder).as_posix()) for path in files] == [
        "diffusion_models/t_high_noise.safetensors",
        "diffusion_models/t_low_noise.safetensors",
        "vae/t_vae.safetensors",
        "text_encoders/t_umt5.safetensors",
    ]
    assert all(path.is_file() for path in files)


def test_every_file_has_the_layout_of_its_size(sized_family):
    files, _, (transformer, _, vae_width) = sized_family
    assert shapes_of(files.high_noise) == transformer_layout(transformer)
    assert shapes_of(files.low_noise) == transformer_layout(transformer)
    assert shapes_of(files.vae) == vae_layout(vae_width)


def test_the_experts_carry_what_the_host_cannot_derive(sized_family):
    files, _, (transformer, _, _) = sized_family
    for path in (files.high_noise, files.low_noise):
        assert json.loads(read_metadata(path)["config"])["transformer"] == {
            "num_heads": transformer.heads,
            "text_dim": transformer.text_width,
        }


def test_the_text_encoder_says_its_own_size(sized_family):
    files, _, (transformer, size, _) = sized_family
    shapes = shapes_of(files.text_encoder)
    shape = text_encoder_shape(shapes, read_metadata(files.text_encoder), "x")
    assert shape.tokens == size.tokens
    assert shape.config["d_model"] == size.width == transformer.text_width
    assert shape.config["num_layers"] == size.layers
    assert shape.config["num_heads"] == size.heads


def test_every_piece_of_the_tokenizer_has_an_embedding(sized_family):
    tensors = read_tensors(sized_family[0].text_encoder)
    proto = bytes(tensors["spiece_model"].tolist())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    assert pieces.get_piece_size() == tensors["shared.weight"].shape[0]
    assert (pieces.pad_id(), pieces.eos_id(), pieces.unk_id()) == (0, 1, 2)


def test_the_tokenizer_gives_back_what_it_reads_and_bytes_for_what_it_has_never_seen():
    pieces = sentencepiece.SentencePieceProcessor(model_proto=train_tokenizer(CORPUS, 320))
    for text in (*CORPUS, "a purple elephant, 42 times", "MERMAID", "Zürich - 東京 🎬"):
        tokens = pieces.encode(text)
        assert pieces.unk_id() not in tokens
        assert pieces.decode(tokens) == text
    known, unknown = CORPUS[0], "qxzjw" * 11
    assert len(pieces.encode(known)) < len(known)
    assert len(pieces.encode(unknown)) > len(pieces.encode(known)) / 2


def whole_family(files: FamilyFiles) -> list[dict[str, torch.Tensor]]:
    return [read_tensors(path) for path in files]


def test_the_seed_decides_every_byte(tmp_path):
    least = dict(zip(("transformer", "text_encoder", "vae_width"), SIZES["least"], strict=True))
    first, again, other = (
        write_family(tmp_path / str(number), seed=seed, **least)
        for number, seed in enumerate((5, 5, 6))
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    for ours, theirs in zip(whole_family(first), whole_family(other), strict=True):
        assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_two_experts_are_two(sized_family):
    high, low = (read_tensors(path) for path in sized_family[0][:2])
    assert not torch.equal(high["blocks.0.ffn.0.weight"], low["blocks.0.ffn.0.weight"])


def test_random_weights_keep_the_size_of_what_passes_through():
    size = TransformerSize(width=256, ffn_width=512, text_width=128)
    tensors = random_tensors(transformer_layout(size), torch.Generator().manual_seed(0))
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            assert tensor.abs().max() == 0, name
        elif "norm" in name:
            assert (tensor == 1).all(), name
        elif name.endswith("weight"):
            x = torch.randn(500, tensor[0].numel(), generator=torch.Generator().manual_seed(1))
            assert (x @ tensor.flatten(1).T).std() == pytest.approx(1.0, rel=0.15), name
