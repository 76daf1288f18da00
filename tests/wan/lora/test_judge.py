"""Which reports may pass: nothing matched is always an error, the rest is the user's choice."""

import pytest
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.judge import judge
from tandem_wan.wan.lora.measure import UpdateSize
from tandem_wan.wan.lora.report import FileReport, KeyGroup

POLICIES = ("error", "warn", "ignore")
FATAL = KeyGroup(cause="no such layer", detail="", count=4, example="blocks.99.ffn.0.lora_A.weight")
HARMLESS = KeyGroup(cause="no such layer", detail="", count=8, example="k_img", expected=True)


def report(matched: int = 20, total: int = 20, **changes) -> FileReport:
    given = {"file": "x.safetensors", "expert": "high_noise", "row": 1} | changes
    return FileReport(
        reason="", strength=1.0, layout="diffusion_model.*", matched=matched, total=total, **given
    )


def low(matched: int = 20, total: int = 20, **changes) -> FileReport:
    return report(matched, total, **({"expert": "low_noise"} | changes))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_file_that_matches_nothing_anywhere_is_always_an_error_that_names_its_row(policy):
    fine = report(row=1)
    for zero in (
        [report(0, row=2, file="y.safetensors"), low(0, row=2, file="y.safetensors")],
        [report(0, row=2, file="y.safetensors"), low(0, 0, row=2, file="y.safetensors")],
        [low(0, row=2, file="y.safetensors"), report(20, row=2, file="other half")],
    ):
        with pytest.raises(UserError, match=r"^Row 2: y\.safetensors matches nothing\."):
            judge([fine, *zero], policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_expert_that_the_file_has_nothing_for_is_no_zero_match(policy):
    assert judge([report(20), low(0, 0)], policy) == ()


@pytest.mark.parametrize("policy", POLICIES)
def test_harmless_keys_pass_under_every_policy(policy):
    assert judge([report(20, 24, groups=(HARMLESS,))], policy) == ()


@pytest.mark.parametrize("policy", POLICIES)
def test_no_reports_give_no_warnings(policy):
    assert judge([], policy) == ()


@pytest.mark.parametrize(
    "doubtful",
    [
        report(20, 22, groups=(FATAL,), row=3),
        report(20, trained_for="low_noise", row=3),
    ],
)
def test_what_does_not_fit_as_it_is_stops_or_warns_or_passes_as_the_policy_says(doubtful):
    with pytest.raises(UserError, match=r"^Row 3 does not fit as it is\.\nx\.safetensors -> high"):
        judge([report(), doubtful], "error")
    (warning,) = judge([report(), doubtful], "warn")
    assert warning.startswith("Row 3 does not fit as it is.\nx.safetensors -> high_noise")
    assert judge([report(), doubtful], "ignore") == ()


def test_a_part_that_matches_on_one_expert_only_is_a_doubt_not_a_zero_match():
    with pytest.raises(UserError, match="does not fit as it is"):
        judge([report(20), low(0)], "error")
    assert len(judge([report(20), low(0)], "warn")) == 1


def test_a_zero_update_warns_but_does_not_stop():
    zero = report(size=UpdateSize(0.0, 20, 20, zero=True))
    for policy in ("error", "warn"):
        (warning,) = judge([zero], policy)
        assert "does nothing, it is zero" in warning
    assert judge([zero], "ignore") == ()


def test_the_error_for_another_model_names_both_and_says_what_to_do():
    remark = "it was made for Wan 2.2 5B (width 3072), and this is Wan 2.2 14B i2v (width 5120)"
    with pytest.raises(UserError) as raised:
        judge([report(0, fit="other model", remark=remark)], "warn")
    assert remark in raised.value.can_be
    assert raised.value.to_do.startswith("Load the file that was made for this model")


def test_a_file_of_nan_is_called_a_failed_training_and_not_one_for_another_model():
    nan = KeyGroup(cause="not a number", detail="x holds NaN or infinity", count=60, example="x")
    with pytest.raises(UserError, match="NaN") as raised:
        judge([report(0, groups=(nan,)), low(0, groups=(nan,))], "ignore")
    assert raised.value.to_do.startswith("Its training failed: take an earlier checkpoint")
    assert "trained for this Wan model" not in str(raised.value)


def test_a_file_for_the_other_expert_alone_is_told_where_it_belongs():
    with pytest.raises(UserError, match="trained for the low_noise expert") as raised:
        judge([report(0, 0, trained_for="low_noise")], "ignore")
    assert "route to the expert that it was trained for" in raised.value.to_do
    assert "0 of 0" not in str(raised.value)


def test_a_strength_that_may_differ_warns_but_does_not_stop():
    unsure = report(expressions=(r"blocks\.\d",))
    for policy in ("error", "warn"):
        (warning,) = judge([unsure], policy)
        assert r"not followed: blocks\.\d" in warning and "strength may differ" in warning
    assert judge([unsure], "ignore") == ()


def test_a_lora_without_a_row_is_called_the_lora():
    with pytest.raises(UserError, match=r"^The LoRA: x\.safetensors matches nothing"):
        judge([report(0, row=0)], "ignore")
