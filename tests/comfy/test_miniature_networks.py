"""The plain networks that we train give the host's own numbers on the same files."""

from __future__ import annotations

import pytest
import sentencepiece
import torch
from tandem_wan.wan.lora.files import read_tensors
from tandem_wan.wan.miniature.layouts import TextEncoderSize, TransformerSize
from tandem_wan.wan.miniature.transformer import WanTransformer
from tandem_wan.wan.miniature.umt5 import TextEncoder, tokenize
from tandem_wan.wan.miniature.vae import VideoAutoencoder, normalised

pytestmark = pytest.mark.comfy


@pytest.fixture(scope="module")
def our_vae(family):
    vae = VideoAutoencoder(4)
    vae.load_state_dict(read_tensors(family.vae))
    return vae.requires_grad_(False)


@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_the_vae_encodes_and_decodes_as_the_host_does(vae, our_vae, frames):
    """The host goes through a clip in pieces with caches, ours in one pass."""
    video = torch.rand(frames, 32, 48, 3, generator=torch.Generator().manual_seed(frames))
    with torch.inference_mode():
        theirs = vae.encode(video)
        ours = our_vae.encode(video.permute(3, 0, 1, 2)[None] * 2 - 1)
        assert torch.allclose(ours, theirs.float(), atol=1e-4 * theirs.abs().max().item())
        pixels = our_vae.decode(ours).clamp(-1, 1)[0].permute(1, 2, 3, 0) / 2 + 0.5
        assert torch.allclose(pixels, vae.decode(theirs).float()[0], atol=1e-4)


def test_the_networks_see_the_latents_in_the_hosts_scale(comfy):
    from comfy.latent_formats import Wan21

    latents = torch.randn(1, 16, 2, 3, 3)
    assert torch.allclose(normalised(latents), Wan21().process_in(latents), atol=1e-6)


def test_the_transformer_gives_the_velocity_of_the_hosts_model(pair, family):
    from comfy.model_management import load_models_gpu

    ours = WanTransformer(TransformerSize())
    ours.load_state_dict(read_tensors(family.high_noise))
    generator = torch.Generator().manual_seed(0)
    x_t, condition, context = (
        torch.randn(*shape, generator=generator)
        for shape in ((2, 16, 3, 8, 6), (2, 20, 3, 8, 6), (2, 32, 64))
    )
    sigma = torch.tensor([0.4, 0.95])
    with torch.inference_mode():
        load_models_gpu([pair["high_noise"]])
        network = pair["high_noise"].model.diffusion_model
        theirs = network(torch.cat([x_t, condition], dim=1), 1000 * sigma, context)
        assert theirs.std() > 0.1
        assert torch.allclose(
            ours(x_t, sigma, context, condition), theirs, atol=1e-4 * theirs.abs().max().item()
        )


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "A big red circle moves left.",
        "A woman does a MERMAID, 42 times; long and unknown: more than 32 tokens",
    ],
)
def test_the_text_encoder_gives_the_hosts_embedding(clip, family, prompt):
    tensors = read_tensors(family.text_encoder)
    proto = tensors.pop("spiece_model").numpy().tobytes()
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    size = TextEncoderSize()
    ours = TextEncoder(TextEncoderSize(vocabulary=pieces.get_piece_size()))
    ours.load_state_dict(tensors)
    with torch.inference_mode():
        tokens = clip.tokenize(prompt)
        theirs = clip.encode_from_tokens_scheduled(tokens)[0][0]
        wide = max(size.tokens, theirs.shape[1] + 1)
        found = ours(tokenize(pieces, [prompt], wide))
    assert theirs.shape[1] >= size.tokens
    assert torch.allclose(found[:, : theirs.shape[1]], theirs.float(), atol=1e-3)
