"""One caption, two captions."""

from __future__ import annotations

import pytest
from tandem_wan.wan.wording import counted


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (0, ("caption",), "0 captions"),
        (1, ("caption",), "1 caption"),
        (2, ("caption",), "2 captions"),
        (1, ("is back", "are back"), "1 is back"),
        (2, ("is back", "are back"), "2 are back"),
    ],
)
def test_a_count_has_its_form(count, words, said):
    assert counted(count, *words) == said
