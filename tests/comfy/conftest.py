"""Models as the host's own loaders give them, in the mode in which the host runs nodes."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _host(comfy):
    return comfy


@pytest.fixture
def pair(comfy, family):
    """Fresh MODELs of both experts; loaded in inference mode, as a prompt does."""
    with torch.inference_mode():
        return {
            "high_noise": comfy.sd.load_diffusion_model(str(family.high_noise)),
            "low_noise": comfy.sd.load_diffusion_model(str(family.low_noise)),
        }


@pytest.fixture(scope="session")
def vae(comfy, family):
    import comfy.utils

    with torch.inference_mode():
        return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(family.vae)))


@pytest.fixture(scope="session")
def clip(comfy, family):
    from tandem_wan.nodes.host.text_encoder import load_text_encoder

    with torch.inference_mode():
        return load_text_encoder(family.text_encoder)


@pytest.fixture
def encoded(pair, vae, clip, clips):
    """The three real clips as the networks see them."""
    from tandem_wan.dev import training_rig

    return training_rig.encode(pair, vae, clip, clips)
