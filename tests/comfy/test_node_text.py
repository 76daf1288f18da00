"""What stands under a node is the beginning of a long text, and says what it leaves out."""

import pytest

pytestmark = pytest.mark.comfy


@pytest.fixture(autouse=True)
def host(comfy):
    """The module imports it."""


def beginning(text):
    from tandem_wan.nodes.host.progress import beginning

    return beginning(text)


@pytest.mark.parametrize("text", ["", "one line", "a\nb\nc\nd\ne\nf"])
def test_a_short_text_is_shown_whole(text):
    assert beginning(text) == text


def test_a_long_text_begins_and_says_how_much_is_left():
    lines = [f"line {n}" for n in range(20)]
    shown = beginning("\n".join(lines)).splitlines()
    assert shown[:-1] == lines[:6]
    assert shown[-1] == "... 14 more lines in the text output"


def test_long_lines_count_by_their_letters():
    shown = beginning("\n".join(["x" * 200] * 3)).splitlines()
    assert shown == ["x" * 200, "... 2 more lines in the text output"]
    assert beginning("y" * 1000) == "y" * 360 + " ..."
