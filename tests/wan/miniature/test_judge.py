"""Clips for judging: a perfect network gives what the VAE keeps of the truth, from pure noise or part of it."""

import pytest
import torch
from tandem_wan.wan.miniature.captions import caption
from tandem_wan.wan.miniature.recipe import figures
from tandem_wan.wan.miniature.recipe.judge import make_clips, make_pictures, new_scenes, score
from tandem_wan.wan.miniature.vae import VideoAutoencoder, from_vae, normalised, raw, to_vae
from tandem_wan.wan.miniature.world import KNOWN_MOTIONS, render


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return VideoAutoencoder(4).requires_grad_(False)


def no_words(said):
    return torch.zeros(len(said), 32, 64)


@pytest.mark.parametrize("begin", [1.0, 0.7])
def test_a_perfect_network_gives_what_the_vae_keeps(vae, begin):
    scenes = new_scenes(2, 7)
    truth = normalised(vae.encode(to_vae(render(scenes))))

    def perfect(x_t, sigma, context, condition):
        return (x_t - truth) / sigma.view(-1, 1, 1, 1, 1)

    clips = make_clips((perfect, perfect), vae, no_words, scenes, seed=0, begin=begin)
    assert torch.allclose(clips, from_vae(vae.decode(raw(truth))), atol=1e-3)


def test_the_network_is_asked_with_caption_first_frame_and_the_noise_that_is_left(vae):
    scenes, asked = new_scenes(1, 7), []

    def prompts(said):
        asked.append(said)
        return no_words(said)

    def network(x_t, sigma, context, condition):
        asked.append((sigma.item(), condition))
        return torch.zeros_like(x_t)

    make_clips((network, network), vae, prompts, scenes, seed=0, begin=0.7)
    assert asked[0] == [caption(scenes[0])]
    assert asked[1][0] == pytest.approx(0.7)
    start = render(scenes)
    start[:, 1:] = 0.5
    expected = normalised(vae.encode(to_vae(start)))
    assert torch.allclose(asked[1][1][:, 4:], expected, atol=1e-4)


def test_a_perfect_painter_gives_what_the_vae_keeps(vae):
    scenes, asked = new_scenes(2, 7), []
    truth = normalised(vae.encode(to_vae(render(scenes, frames=1))))

    def perfect(x_t, sigma, context, condition):
        asked.append(condition)
        return (x_t - truth) / sigma.view(-1, 1, 1, 1, 1)

    pictures = make_pictures(perfect, vae, no_words, ["", ""], seed=0)
    assert torch.allclose(pictures, from_vae(vae.decode(raw(truth))), atol=1e-3)
    assert set(asked) == {None}


def test_asked_motions_take_turns_on_scenes_that_stay():
    seven = new_scenes(7, 3)
    assert [scene.motion for scene in seven] == list(KNOWN_MOTIONS)
    again = new_scenes(7, 3, ["loop"])
    assert {scene.motion for scene in again} == {"loop"}
    assert [s.start_px for s in again] == [s.start_px for s in seven]


def test_a_score_counts_kind_apart_from_path():
    """Clips of the motion before the asked one: no kind is right, and each is told by its name."""
    scenes = new_scenes(7, 3)
    wrong = new_scenes(7, 3, [KNOWN_MOTIONS[-1], *KNOWN_MOTIONS[:-1]])
    scores, each = score(render(wrong), scenes)
    assert (scores.kind, scores.path) == (0, 0) and scores.path_error_px > 3
    assert figures._came("right", scenes, each) == {"left": 1}
