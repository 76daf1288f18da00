"""What the networks are given while they train."""

from dataclasses import replace

import pytest
import sentencepiece
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.families import SigmaRange
from tandem_wan.wan.miniature.captions import MOTION_WORDS
from tandem_wan.wan.miniature.layouts import TransformerSize
from tandem_wan.wan.miniature.recipe import experts, latents
from tandem_wan.wan.miniature.recipe import vae as vae_recipe
from tandem_wan.wan.miniature.recipe.judge import new_scenes, score
from tandem_wan.wan.miniature.recipe.stage import Stage, step_generator
from tandem_wan.wan.miniature.recipe.train import Recipe
from tandem_wan.wan.miniature.recipe.vae import LinearCode, reconstruction_psnr
from tandem_wan.wan.miniature.transformer import WanTransformer
from tandem_wan.wan.miniature.umt5 import TextEncoder
from tandem_wan.wan.miniature.vae import VideoAutoencoder, normalised, to_vae
from tandem_wan.wan.miniature.world import KNOWN_MOTIONS, render

STAGE = Stage(name="toy", steps=100, learning_rate=1e-3)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """A VAE, the folder of its latents, and the latents."""
    folder = tmp_path_factory.mktemp("latents")
    torch.manual_seed(0)
    vae = VideoAutoencoder(4).requires_grad_(False)
    latents.fold(vae, seed=1, clips=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "PART", 2)
        yield vae, folder, latents.make_latents(vae, folder, parts=2, seed=0)


def test_each_first_frame_begins_clips_of_several_motions():
    scenes = latents.scenes_of(20, seed=0)
    for begin in range(0, len(scenes), 3):
        three = scenes[begin : begin + 3]
        assert len({scene.motion for scene in three}) == 3
        assert len({replace(scene, motion="still") for scene in three}) == 1
    assert {scene.motion for scene in scenes} == set(KNOWN_MOTIONS)


def test_latents_stand_beside_their_own_scene(small_set):
    vae, _, found = small_set
    assert found.clips.shape == (12, 16, 5, 8, 8) and found.starts.shape == (4, 16, 5, 8, 8)
    for index in (0, 4, 11):
        video = render([found.scenes[index]])
        expected = normalised(vae.encode(to_vae(video)))[0]
        assert torch.allclose(found.clips[index].float(), expected, atol=0.02)
        # The first latent frame knows the first frame alone.
        assert torch.allclose(
            found.clips[index, :, 0].float(), found.starts[index // 3, :, 0].float(), atol=0.02
        )


def test_made_latents_are_read_and_not_made_again(small_set, monkeypatch):
    _, folder, found = small_set
    monkeypatch.setattr(latents, "_encoded", lambda *a, **k: pytest.fail("encoded again"))
    again = latents.make_latents(None, folder, parts=2, seed=0)
    assert torch.equal(again.clips, found.clips) and again.scenes == found.scenes


def test_the_condition_is_the_mask_then_the_image():
    condition = experts.start_condition(torch.full((1, 16, 5, 8, 8), 2.0))
    assert condition.shape == (1, 20, 5, 8, 8)
    assert (condition[:, :4, 0] == 1).all() and (condition[:, :4, 1:] == 0).all()
    assert (condition[:, 4:] == 2).all()


class _Listening(torch.nn.Module):
    """Keeps what it is asked and answers 0."""

    def forward(self, x_t, sigma, context, condition=None):
        self.asked = (x_t, sigma, context, condition)
        return torch.zeros_like(x_t)


def test_a_step_asks_for_noise_inside_the_experts_range(small_set):
    _, _, found = small_set
    said = []

    def prompts(captions):
        said.extend(captions)
        return torch.zeros(len(captions), 32, 64)

    network = _Listening()
    for within in (SigmaRange(0.9, 1), SigmaRange(0, 0.9)):
        loss = experts.clip_loss(network, found, prompts, within)(0, step_generator(STAGE, 0))
        sigma = network.asked[1]
        assert within.low <= sigma.min() and sigma.max() <= within.high
        assert network.asked[3].shape == (experts.BATCH, 20, 5, 8, 8)
        # Without a prediction the loss is the mean square of noise - x0.
        assert loss.item() == pytest.approx(1 + found.clips.float().square().mean().item(), rel=0.5)


@pytest.mark.parametrize("untold", [experts.UNTOLD_HIGH, experts.UNTOLD_LOW])
def test_so_many_captions_do_not_say_the_motion(untold):
    generator = torch.Generator().manual_seed(0)
    scene = new_scenes(1, 0, ["left"])[0]
    said = [experts._clip_prompt(scene, untold, generator) for _ in range(1000)]
    told = [MOTION_WORDS["left"] in prompt for prompt in said]
    assert sum(told) / 1000 == pytest.approx(1 - untold, abs=0.04)
    assert said.count("") / 1000 == pytest.approx(experts.EMPTY, abs=0.03)


def test_a_text_to_image_step_has_no_condition(small_set):
    _, _, found = small_set
    network = _Listening()
    prompts = lambda captions: torch.zeros(len(captions), 32, 64)  # noqa: E731
    experts.picture_loss(network, found, prompts)(0, step_generator(STAGE, 0))
    assert network.asked[0].shape[2:] == (1, 8, 8) and network.asked[3] is None


def test_the_linear_code_keeps_colour_and_place():
    """The code of a clip leads back to it, by least squares, at more than 24 dB."""
    code = LinearCode(seed=0, clips=16)
    pixels = to_vae(render(new_scenes(16, 5)))
    latent = code(pixels)
    assert latent.shape == (16, 16, 5, 8, 8)
    flat = latent.movedim(1, -1).flatten(0, -2)
    block = pixels[:, :, 1:].unflatten(2, (4, 4)).unflatten(4, (8, 8)).unflatten(6, (8, 8))
    later = latent[:, :, 1:].movedim(1, -1).flatten(0, -2)
    target = block.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(0, 3)
    design = torch.cat([later, torch.ones(len(later), 1)], dim=1)
    left = target - design @ torch.linalg.lstsq(design, target).solution
    assert -10 * (left / 2).square().mean().log10() > 24
    assert flat.std() == pytest.approx(1.0, abs=0.5)


def test_a_vae_step_is_the_same_for_the_same_step(monkeypatch):
    monkeypatch.setattr(vae_recipe, "LinearCode", lambda seed: LinearCode(seed, clips=4))
    torch.manual_seed(0)
    vae = VideoAutoencoder(4)
    loss_at = vae_recipe.vae_loss(vae, STAGE, picture_steps=1)
    first, again, clips = (loss_at(n, step_generator(STAGE, n)).item() for n in (0, 0, 1))
    assert first == again != clips


def test_psnr_of_an_untrained_vae_is_low_and_the_score_of_the_truth_is_full():
    scenes = new_scenes(14, 3)
    video = render(scenes)
    torch.manual_seed(0)
    assert reconstruction_psnr(VideoAutoencoder(4), video[:2]).max() < 18
    scores, _ = score(video, scenes)
    assert (scores.kind, scores.path) == (1, 1) and scores.path_error_px < 0.6


def test_an_unknown_stage_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="text, vae, latents, base"):
        Recipe(tmp_path).run("bases")


def test_a_family_that_is_not_there_cannot_be_judged(tmp_path):
    with pytest.raises(UserError, match="Run `train`"):
        Recipe(tmp_path).judge()


def test_prompts_come_as_32_tokens():
    from tandem_wan.wan.miniature.recipe import text

    proto = text.make_tokenizer(0)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    encoder = TextEncoder(replace(text.SIZE, vocabulary=pieces.get_piece_size()))
    embedding = experts.Prompts(encoder, pieces)(["A big red circle moves left.", ""])
    assert embedding.shape == (2, 32, 64)
    assert embedding[1, 1:].abs().max() == 0
    network = WanTransformer(TransformerSize(layers=1))
    x = torch.zeros(2, 16, 5, 8, 8)
    network(x, torch.tensor([0.5, 0.5]), embedding, torch.zeros(2, 20, 5, 8, 8))
