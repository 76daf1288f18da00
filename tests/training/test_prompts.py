"""Preview prompts: the trigger wherever a placeholder stands, and an error for every one that nobody fills."""

from __future__ import annotations

import pytest
from tandem_wan.training.prompts import filled_prompts, require_fillable
from tandem_wan.wan.errors import UserError


def test_each_line_is_a_prompt_and_empty_ones_are_none():
    assert filled_prompts("  one dog\n\n \ttwo dogs  \n", "X") == ("one dog", "two dogs")
    assert filled_prompts("", "") == filled_prompts(" \n ", "X") == ()


def test_both_placeholders_become_the_trigger_as_often_as_they_stand_there():
    text = "portrait, STYLE_TOKEN | street at night, STYLE_TOKEN\nA man turns into a {trigger}, {trigger}"
    assert filled_prompts(text, " MERMAID ") == (
        "portrait, MERMAID | street at night, MERMAID",
        "A man turns into a MERMAID, MERMAID",
    )


def test_a_trigger_is_put_in_as_it_is():
    for trigger in (r"a\1b", "{x}", "STYLE_TOKEN", "[ICE]"):
        assert filled_prompts("a {trigger} on STYLE_TOKEN", trigger) == (
            f"a {trigger} on {trigger}",
        )


@pytest.mark.parametrize("text", ["a dog\na {trigger}", "STYLE_TOKEN, at night"])
def test_a_placeholder_without_a_trigger_is_refused_by_its_prompt(text):
    for trigger in ("", "  "):
        with pytest.raises(UserError, match="has no trigger") as caught:
            filled_prompts(text, trigger)
        assert text.splitlines()[-1] in str(caught.value)
    require_fillable(text)


@pytest.mark.parametrize(
    "text", ["a {person}", "a [PERSON] and {trigger}", "MY_STYLE_TOKEN", "TOKEN here", "by <name>"]
)
def test_a_placeholder_that_nobody_fills_is_refused_before_anything_is_queued(text):
    with pytest.raises(UserError, match="left in it"):
        require_fillable(text)
    with pytest.raises(UserError, match="left in it"):
        filled_prompts(text, "MERMAID")


def test_a_prompt_without_placeholders_needs_no_trigger():
    assert filled_prompts("A man waves.", "") == ("A man waves.",)
