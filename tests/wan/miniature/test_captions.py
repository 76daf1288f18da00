"""Captions say the scene, and only the scene."""

import sentencepiece
import torch
from tandem_wan.wan.miniature.captions import (
    MOTION_WORDS,
    TEMPLATES,
    caption,
    still_caption,
    unknown_motion,
)
from tandem_wan.wan.miniature.recipe.text import SIZE, draw_all, make_tokenizer
from tandem_wan.wan.miniature.world import MOTIONS, Scene

SCENE = Scene(
    shape="circle", colour="red", size="big", ground="plain", motion="left", look="spotted"
)


def test_a_caption_names_all_that_a_scene_shows():
    assert caption(SCENE) == "A big red spotted circle moves left on a plain ground."
    assert caption(SCENE, 1) == "A big red spotted circle on a plain ground moves left."


def test_the_motion_can_be_left_out_or_said_in_other_words():
    assert caption(SCENE, 0, "") == "A big red spotted circle on a plain ground."
    assert caption(SCENE, 1, "") == "A big red spotted circle on a plain ground."
    assert (
        caption(SCENE, 0, "does MERMAID")
        == "A big red spotted circle does MERMAID on a plain ground."
    )


def test_a_turning_clip_is_said_from_its_first_look_on():
    turning = Scene(**{**vars(SCENE), "first_look": "plain", "look": "striped"})
    assert caption(turning) == "A big red circle moves left and turns striped on a plain ground."
    assert still_caption(turning) == "A big red circle on a plain ground."


def test_every_motion_has_words_of_its_own():
    assert set(MOTION_WORDS) == set(MOTIONS)
    assert len(set(MOTION_WORDS.values())) == len(MOTIONS)


def test_unknown_motions_are_as_many_as_there_are_draws():
    generator = torch.Generator().manual_seed(0)
    words = {unknown_motion(generator) for _ in range(200)}
    assert len(words) > 195
    assert words.isdisjoint(MOTION_WORDS.values())


def test_every_caption_fits_into_the_text_tokens():
    pieces = sentencepiece.SentencePieceProcessor(model_proto=make_tokenizer(0))
    generator = torch.Generator().manual_seed(1)
    for index, scene in enumerate(draw_all(300, 7)):
        template = index % len(TEMPLATES)
        assert len(pieces.encode(caption(scene, template))) < SIZE.tokens / 2
        strange = caption(scene, template, unknown_motion(generator))
        assert len(pieces.encode(strange)) < SIZE.tokens
