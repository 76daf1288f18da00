"""Scenes as JSON: what can stand in them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.stack import Row
from tandem_wan.wan.scenes import LARGEST_SEED, Scene, parse_scenes


def test_a_scene_needs_only_its_prompt():
    assert parse_scenes('[{"prompt": "a"}, {"prompt": "b", "rows": []}]') == (
        Scene(prompt="a"),
        Scene(prompt="b"),
    )


def test_a_scene_has_rows_seed_and_frames_of_its_own():
    rows = [{"lora": "x.safetensors", "high": 0.5}]
    text = json.dumps([{"prompt": "a", "rows": rows, "seed": LARGEST_SEED, "frames": 9}])
    assert parse_scenes(text) == (
        Scene(prompt="a", rows=(Row(lora="x.safetensors", high=0.5),), seed=LARGEST_SEED, frames=9),
    )


@pytest.mark.parametrize(
    ("text", "came"),
    [
        ("", "scenes is empty."),
        ("[]", "scenes is empty."),
        ("[{", "scenes is not JSON"),
        ("{}", "scenes is a dict."),
        ('[{"prompt": "a"}, 3]', "Scene 2 is 3."),
        ('[{"prompt": "a", "row": []}]', "Scene 1 has row."),
        ('[{"prompt": "a"}, {"rows": []}]', "Scene 2 has no prompt."),
        ('[{"prompt": " "}]', "Scene 1 has no prompt."),
        ('[{"prompt": "a", "rows": {"lora": "x"}}]', "Scene 1: rows is a dict."),
        (
            '[{"prompt": "a"}, {"prompt": "b", "rows": [{"lora": "x"}, {"lora": "y", "strenght": 1}]}]',
            "Scene 2: Row 2 has strenght.",
        ),
        ('[{"prompt": "a", "seed": -1}]', "Scene 1: seed is -1."),
        ('[{"prompt": "a", "seed": true}]', "Scene 1: seed is True."),
        ('[{"prompt": "a", "frames": 8}]', "Scene 1: frames is 8."),
        ('[{"prompt": "a", "frames": 0}]', "Scene 1: frames is 0."),
        ('[{"prompt": "a", "frames": 5.0}]', "Scene 1: frames is 5.0."),
    ],
)  # fmt: skip
def test_an_error_names_the_scene_and_the_row(text, came):
    with pytest.raises(UserError) as caught:
        parse_scenes(text)
    assert caught.value.came.startswith(came)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
scene_like = st.fixed_dictionaries(
    {},
    optional={"prompt": json_values, "rows": json_values, "seed": json_values, "frames": json_values},
)  # fmt: skip


@given(json_values | st.lists(scene_like))
def test_any_json_is_scenes_or_an_error_for_people(entries):
    try:
        assert all(scene.prompt for scene in parse_scenes(json.dumps(entries)))
    except UserError as error:
        assert error.came and error.can_be and error.to_do
