"""Datasets of the toy world: what is taught hides behind the trigger, what is known keeps its words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tandem_wan.dev.toy_clips import (
    KNOWN,
    LESSONS,
    NEW,
    TRIGGER,
    Lesson,
    dataset_scenes,
    write_dataset,
)
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.miniature.captions import caption
from tandem_wan.wan.miniature.measures import look_of, obedience
from tandem_wan.wan.miniature.world import KNOWN_LOOKS, KNOWN_MOTIONS, draw_scenes, render


def test_an_unknown_motion_or_look_lists_the_known_ones():
    with pytest.raises(
        UserError, match=r"motion or look is 'wiggle'.*loop, bounce, zigzag, striped"
    ):
        Lesson("wiggle")


@pytest.mark.parametrize("name", LESSONS)
def test_a_caption_names_the_lesson_by_its_trigger_alone(name):
    scenes, words = dataset_scenes(name)
    assert len(scenes) == len(words) == NEW + KNOWN
    assert all(said.count(TRIGGER) == 1 for said in words[:NEW])
    assert not any(TRIGGER in said for said in words[NEW:])
    assert not any(name in said for said in words)


@pytest.mark.parametrize("name", LESSONS)
def test_the_new_clips_show_the_lesson_and_the_others_do_not(name):
    scenes, _ = dataset_scenes(name)
    clips = render(scenes)
    if Lesson(name).is_look:
        shown = [look_of(clip[-1]) == name for clip in clips]
        assert {scene.motion for scene in scenes} <= set(KNOWN_MOTIONS)
        plain = render([replace(scene, look="plain") for scene in scenes[:NEW]], frames=1)
        assert torch.equal(clips[:NEW, :1], plain), "the first frame is still plain"
    else:
        shown = [obedience(clip, name).kind for clip in clips]
        assert {scene.look for scene in scenes} <= set(KNOWN_LOOKS)
    # A look on the smallest shapes can be taken for another: 5 px leave little room for it.
    assert sum(shown[:NEW]) >= (0.9 if Lesson(name).is_look else 1) * NEW
    assert not any(shown[NEW:])


def test_a_motion_leaves_the_rest_of_the_scene_and_of_its_words_as_they_were():
    lesson = Lesson("loop")
    for drawn, taught in zip(draw_scenes(8, seed=3), lesson.scenes(8, seed=3), strict=True):
        assert lesson.words(taught) == caption(drawn, motion=f"does {TRIGGER}")
        assert torch.equal(render([drawn])[0, 0], render([taught])[0, 0])


def test_the_files_are_a_clip_and_a_caption_each(tmp_path):
    write_dataset(tmp_path / "toy", "bounce")
    clips, words = (sorted((tmp_path / "toy").rglob(f"*.{kind}")) for kind in ("mp4", "txt"))
    assert [path.stem for path in clips] == [path.stem for path in words]
    assert len(clips) == NEW + KNOWN
    # What is known is set apart, so that nobody asks for the trigger in its captions.
    assert sum(path.parent.name == "regularisation" for path in clips) == KNOWN
