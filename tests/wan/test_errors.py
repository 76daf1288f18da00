"""The one error class keeps its three parts and shows them in order."""

from tandem_wan.wan.errors import UserError


def test_an_error_reads_what_came_then_what_can_be_then_what_to_do():
    error = UserError("frames is 80.", "Wan takes 4k+1 frames.", "Use 77 or 81.")
    assert str(error) == "frames is 80. Wan takes 4k+1 frames. Use 77 or 81."
    assert (error.came, error.can_be, error.to_do) == (
        "frames is 80.",
        "Wan takes 4k+1 frames.",
        "Use 77 or 81.",
    )


def test_it_is_caught_by_those_who_catch_value_errors():
    assert issubclass(UserError, ValueError)
