"""The proof that Tandem teaches: a motion the base has never seen, trained live in the real ComfyUI, and measured;
then what the shipped LoRAs do, with margins that are wide for so few clips."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tandem_wan.benchmarks.miniature.judging import Judge
from tandem_wan.benchmarks.miniature.loras import LOOK, MOTION, OVERTRAINED
from tandem_wan.dev.testing import WORKFLOWS, ancestors, number_of
from tandem_wan.dev.toy_clips import DEMO_MOTION, write_dataset
from tandem_wan.dev.toy_sampling import Lora

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]
TAUGHT = Lora(high="taught_high_noise.safetensors", low="taught_low_noise.safetensors")


@pytest.fixture(scope="module")
def judge(server, base):
    with server.client() as client:
        yield Judge(client, base, clips=7)


@pytest.fixture(scope="module")
def taught(judge):
    """The shipped training graph up to its trainer, run once."""
    write_dataset(judge.base / "input" / "tandem_demo", DEMO_MOTION)
    whole = json.loads((WORKFLOWS / "train_and_sample.json").read_text())
    trainer = number_of(whole, "Train both experts")
    graph = ancestors(whole, trainer)
    graph[trainer]["inputs"]["name"] = "taught"
    judge.client.run(graph, timeout_s=800)
    return TAUGHT


@pytest.fixture(scope="module")
def untaught(judge):
    """What the base makes of the trigger."""
    return judge.motion(MOTION.lesson)


def test_a_lora_teaches_a_motion_that_the_base_has_never_seen(judge, taught, untaught):
    found = judge.motion(MOTION.lesson, taught)
    assert untaught.kind <= 0.3
    assert found.kind >= 0.7
    assert found.path_error_px < 0.6 * untaught.path_error_px


def test_the_motions_it_knew_are_still_there(judge, taught):
    assert judge.known(taught).kind >= 0.7


def test_the_base_obeys_and_keeps_the_first_frame(judge):
    found = judge.known()
    assert found.kind >= 0.8 and found.path >= 0.6
    assert found.first_frame_db >= 28


def test_the_shipped_motion_works_by_strength_and_by_expert(judge):
    more = replace(judge, clips=14)
    none = more.motion(MOTION.lesson)
    both = more.motion(MOTION.lesson, MOTION.at(1, 1))
    half = more.motion(MOTION.lesson, MOTION.at(0.5, 0.5))
    high = more.motion(MOTION.lesson, MOTION.at(1, 0))
    low = more.motion(MOTION.lesson, MOTION.at(0, 1))
    assert both.kind >= 0.7
    assert both.path_error_px < half.path_error_px < none.path_error_px, "strength is a dial"
    assert high.path_error_px < low.path_error_px, "the high-noise expert makes the motion"
    assert both.path_error_px < high.path_error_px


def test_the_shipped_look_is_made_by_the_low_noise_expert(judge):
    plain = judge.look(LOOK.lesson)
    high = judge.look(LOOK.lesson, LOOK.at(1, 0))
    low = judge.look(LOOK.lesson, LOOK.at(0, 1))
    assert low.pattern > 1.5 * plain.pattern
    assert low.pattern > 1.3 * high.pattern
    assert low.kind >= 0.7, "and leaves the motion alone"


def test_overtraining_shows_in_the_motions_that_were_known(judge):
    assert judge.known(OVERTRAINED.at(1, 1)).kind < judge.known(MOTION.at(1, 1)).kind
