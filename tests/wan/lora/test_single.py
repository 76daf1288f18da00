"""Rows that speak of one expert, on a model that is taken as a single one."""

import pytest
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.experts import Evidence
from tandem_wan.wan.lora.single import one_sided, single_model_warnings
from tandem_wan.wan.lora.stack import Blend, Row


def sides(*rows, evidence=None):
    found = one_sided(rows, lambda _: evidence or Evidence())
    return [(each.number, each.file, each.side) for each in found]


@pytest.mark.parametrize(
    ("row", "evidence", "side"),
    [
        (Row(lora="a", route="low"), None, "low"),
        (Row(lora="a_low_noise", route="high"), None, "high"),
        (Row(lora="a_high_noise"), None, "high"),
        (Row(lora="a"), Evidence("low_noise"), "low"),
        (Row(lora="a"), Evidence(None, "high_noise"), "high"),
        (Row(lora="a_high_noise", route="both"), None, None),
        (Row(lora="a", kind="quality"), None, None),
        (Row(lora="a"), Evidence("single"), None),
        (Row(lora="a_high_noise", on=False), None, None),
        (Row(lora="a_high_noise", high=0.0), None, None),
    ],
)
def test_a_row_speaks_of_one_expert_by_route_keys_metadata_or_name(row, evidence, side):
    assert sides(row, evidence=evidence) == ([] if side is None else [(1, row.lora, side)])


def test_a_file_that_is_mixed_in_speaks_for_itself():
    rows = (Row(lora="a"), Row(lora="b_high_noise", blend=Blend(lora="c_low_noise")))
    assert sides(*rows) == [(2, "b_high_noise", "high"), (2, "c_low_noise", "low")]


def test_one_side_is_a_warning_that_says_what_to_set():
    found = one_sided([Row(lora="a_low_noise")], lambda _: Evidence())
    (warning,) = single_model_warnings(found, "error")
    assert warning.startswith(
        "Row 1: a_low_noise is meant for the low-noise expert (its name says low)"
    )
    assert "at the strength high" in warning and "set family to wan 2.2 A14B" in warning


def test_both_sides_on_one_model_are_refused_and_with_warn_they_are_warnings():
    rows = [Row(lora="a_high_noise"), Row(lora="b", route="low")]
    found = one_sided(rows, lambda _: Evidence())
    with pytest.raises(UserError, match=r"(?s)row 1: a_high_noise.*row 2: b \(route is low\)"):
        single_model_warnings(found, "error")
    assert len(single_model_warnings(found, "warn")) == 2
    assert single_model_warnings((), "error") == ()
