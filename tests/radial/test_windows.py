"""Parts of a schedule by noise, as a person writes them."""

from __future__ import annotations

import pytest
from tandem_wan.radial_attention.errors import SettingsError
from tandem_wan.radial_attention.windows import parse_windows


def test_a_percentage_is_of_the_schedule_without_its_shift():
    (window,) = parse_windows("0-25%")
    # A quarter of a schedule with shift 5 ends at 5 * 0.75 / (1 + 4 * 0.75) = 0.9375.
    assert [window.holds(sigma, 5.0) for sigma in (1.0001, 1.0, 0.94, 0.9375, 0.93)] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert window.holds(0.76, 1.0) and not window.holds(0.75, 1.0)


def test_sigmas_fall_and_several_parts_are_one_list():
    first, last = parse_windows(" sigma 1-0.9, 95 - 100% ")
    assert first.holds(0.91, 8.0) and not first.holds(0.9, 8.0)
    assert last.holds(0.01, 1.0) and not last.holds(0.06, 1.0)
    assert parse_windows("") == ()


@pytest.mark.parametrize(
    "text", ["25%", "0-25", "sigma 0-25%", "25-10%", "0-101%", "sigma 0.5-0.9", "first"]
)
def test_what_is_no_such_list_is_refused(text):
    with pytest.raises(SettingsError, match="dense_window has"):
        parse_windows(text)
