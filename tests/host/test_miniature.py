"""The proof that Tandem teaches: a motion the base has never seen, trained live in the real ComfyUI, and measured."""

from __future__ import annotations

import json

import pytest
from tandem_wan.dev.demo_proof import mean_error_px, share
from tandem_wan.dev.testing import WORKFLOWS, ancestors, number_of
from tandem_wan.dev.toy_clips import DEMO_MOTION, write_dataset
from tandem_wan.dev.toy_sampling import Lora, new_scenes, sampled_clips
from tandem_wan.wan.miniature.measures import obedience
from tandem_wan.wan.miniature.world import draw_scenes

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]
SCENES = 12
LORA = Lora(high="taught_high_noise.safetensors", low="taught_low_noise.safetensors")


@pytest.fixture(scope="module")
def taught(server, base):
    """The shipped training graph up to its trainer, run once."""
    write_dataset(base / "input" / "tandem_demo", DEMO_MOTION)
    whole = json.loads((WORKFLOWS / "train_and_sample.json").read_text())
    trainer = number_of(whole, "Train both experts")
    graph = ancestors(whole, trainer)
    graph[trainer]["inputs"]["name"] = "taught"
    with server.client() as client:
        client.run(graph, timeout_s=800)
    return LORA


def judged(client, base, scenes, **how):
    clips = sampled_clips(client, base, scenes, **how)
    return [obedience(clip, scene.motion) for clip, scene in zip(clips, scenes, strict=True)]


def test_a_lora_teaches_a_motion_that_the_base_has_never_seen(client, base, taught):
    """Found on a quiet machine: none of the clips without it, all with it, and 3.5 px off instead of 11.6."""
    scenes = new_scenes(SCENES, DEMO_MOTION, seed=50_000)
    without = judged(client, base, scenes)
    with_it = judged(client, base, scenes, lora=taught)
    assert share(without) <= 0.25
    assert share(with_it) >= 0.75
    assert mean_error_px(with_it) < 0.6 * mean_error_px(without)
    half = Lora(high=taught.high, low=taught.low, strengths=(0.5, 0.5))
    between = judged(client, base, scenes[:6], lora=half)
    assert mean_error_px(with_it[:6]) < mean_error_px(between) < mean_error_px(without[:6]), (
        "strength is a dial"
    )


def test_the_motions_it_knew_are_still_there(client, base, taught):
    scenes = draw_scenes(SCENES, seed=50_001)
    before = judged(client, base, scenes, said=None)
    after = judged(client, base, scenes, said=None, lora=taught)
    assert share(before) >= 0.8
    assert share(after) >= share(before) - 0.2
