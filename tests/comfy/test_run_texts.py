"""What a run says where somebody asks: to a page, a prompt that waits, a resume."""

import json

import pytest
from tandem_wan.training.events import CheckpointSaved, StateChanged
from tandem_wan.wan.errors import UserError

pytestmark = pytest.mark.comfy


@pytest.fixture
def teller(comfy):
    from tandem_wan.nodes.host.jobs import Teller

    return Teller()


@pytest.fixture
def again(comfy):
    from tandem_wan.nodes.host import queue_again

    return queue_again


def told(teller, *events):
    for event in events:
        teller._note("demo", event)
    return teller.fingerprint("demo")


def state(name):
    return StateChanged(state=name, step=1)


def test_a_trainer_is_asked_again_when_its_run_has_come_further_and_not_otherwise(teller):
    seen = [teller.fingerprint("demo")]
    for events in (
        [state("queued")],
        [CheckpointSaved(step=10, files={})],
        [state("paused")],
        [state("running")],
        [state("done")],
    ):
        seen.append(told(teller, *events))
    assert len(set(seen)) == len(seen)
    assert teller.fingerprint("demo") == seen[-1]
    assert teller.fingerprint("other") == 0


def test_prompts_that_a_run_makes_room_for_are_no_news(teller):
    before = told(teller, state("queued"), state("running"))
    assert told(teller, state("parked"), state("running"), state("parked")) == before


def test_a_prompt_that_has_waited_for_the_end_is_not_done_again(teller):
    began = teller.fingerprint("demo")
    told_of = [state("queued"), state("running"), CheckpointSaved(step=9, files={}), state("done")]
    for event in told_of:
        teller._note("demo", event)
    teller.awaited("demo")
    assert teller.fingerprint("demo") == began
    assert told(teller, state("queued")) != began


def test_a_clip_that_is_gone_or_another_is_named_before_anything_is_queued(tmp_path, again):
    clips = [tmp_path / f"clip_{i}.mp4" for i in range(3)]
    for clip in clips:
        clip.write_bytes(b"12345")
    again.require_clips(tmp_path, "demo")  # an earlier version kept no list
    again.keep_clips(tmp_path, [*clips, clips[0]])
    assert len(json.loads((tmp_path / "clips.json").read_text())) == 3
    again.require_clips(tmp_path, "demo")
    clips[0].unlink()
    clips[1].write_bytes(b"123")
    with pytest.raises(UserError, match=r"clip_0.mp4 gone; .*clip_1.mp4 changed.*Put them back"):
        again.require_clips(tmp_path, "demo")


def test_one_sentence_about_several_inputs_is_said_once(again):
    def error(name, reason):
        return {
            "message": "Custom validation failed for node",
            "details": f"{name} - {reason}",
            "extra_info": {"input_name": name},
        }

    names = ("folder", "media", "width", "height", "frames")
    said = again._once(
        [*(error(name, "clips is not there.") for name in names), error("fps", "odd.")]
    )
    assert len(said) == 2 and "clips is not there." in said[0] and "odd." in said[1]
