"""What the cache holds as first-frame conditioning is what samplers give the model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.cache.latent_cache import LatentCache
from tandem_wan.training.data.dataset import ONE_SIZE, DatasetSettings
from tandem_wan.training.data.reader import load_dataset
from tandem_wan.wan.video import read_clip

pytestmark = pytest.mark.comfy
WIDTH, HEIGHT = 64, 48


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A folder with one clip of 81 frames, each another picture."""
    folder = tmp_path_factory.mktemp("film")
    draw = np.random.default_rng(0)
    with av.open(str(folder / "noise.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=16)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(81):
            blocks = draw.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
            picture = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return folder


def cached(pair, vae, clip, clips, film, frames, folder):
    """The clip as a run reads it from the cache, and its pixels as the dataset reads them."""
    from tandem_wan.nodes.host.encode import encoded_dataset

    settings = DatasetSettings(folder=film, width=WIDTH, height=HEIGHT, frames=frames, fit=ONE_SIZE)
    setup = replace(rig.setup(pair, vae, clip, clips), dataset=load_dataset(settings))
    [item] = setup.dataset.clips
    with encoded_dataset(setup, LatentCache(folder)) as samples:
        return samples[0], read_clip(item.path, setup.dataset.clip_size(item), fps=16)


@pytest.mark.parametrize("frames", [17, 49, 81])
def test_conditioning_equals_what_the_host_builds_for_sampling(
    pair, vae, clip, clips, film, frames, tmp_path
):
    from comfy_extras.nodes_wan import WanImageToVideo

    ours, pixels = cached(pair, vae, clip, clips, film, frames, tmp_path)
    model = pair["high_noise"]
    with torch.inference_mode():
        text = [[torch.zeros(1, 1, 64), {}]]
        positive, _, empty = WanImageToVideo.execute(
            text, text, vae, WIDTH, HEIGHT, frames, 1, start_image=pixels[:1]
        ).args
        theirs = model.model.concat_cond(
            noise=empty["samples"],
            device=torch.device("cpu"),
            **{k: positive[0][1][k] for k in ("concat_latent_image", "concat_mask")},
        )[0]
    assert torch.equal(ours.mask, theirs[:4])
    torch.testing.assert_close(ours.image_latent, theirs[4:], rtol=0, atol=1e-6)
    assert ours.x0.shape == ours.image_latent.shape == (16, (frames - 1) // 4 + 1, 6, 8)
    # The picture and the pictures after it are there to be seen, far above the tolerance.
    assert (ours.image_latent[:, 0] - ours.image_latent[:, -1]).abs().max() > 1e-2
    assert (ours.x0 - ours.image_latent)[:, 1:].abs().max() > 1e-2


@pytest.mark.parametrize("frames", [17, 49, 81])
def test_conditioning_equals_what_diffusers_builds_for_sampling(
    pair, vae, clip, clips, film, frames, tmp_path
):
    """Their pipeline's own method over their VAE, with the weights of the one that is in the graph."""
    from diffusers import AutoencoderKLWan
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
    from diffusers.video_processor import VideoProcessor

    ours, pixels = cached(pair, vae, clip, clips, film, frames, tmp_path)
    weights = {k: v.clone() for k, v in vae.first_stage_model.state_dict().items()}
    width = weights["encoder.conv1.weight"].shape[0]
    network = AutoencoderKLWan(base_dim=width)
    network.load_state_dict(convert_wan_vae_to_diffusers(weights))
    pipeline = SimpleNamespace(
        vae=network,
        vae_scale_factor_temporal=4,
        vae_scale_factor_spatial=8,
        config=SimpleNamespace(expand_timesteps=False),
    )
    picture = VideoProcessor(vae_scale_factor=8).preprocess(
        pixels[:1].movedim(-1, 1), height=HEIGHT, width=WIDTH
    )
    with torch.no_grad():
        _, theirs = WanImageToVideoPipeline.prepare_latents(
            pipeline,
            picture,
            1,
            height=HEIGHT,
            width=WIDTH,
            num_frames=frames,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
    assert torch.equal(ours.mask, theirs[0, :4])
    torch.testing.assert_close(ours.image_latent, theirs[0, 4:], rtol=0, atol=1e-6)
