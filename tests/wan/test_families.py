"""Which expert owns which noise, and which family a number of models means."""

import pytest
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.families import (
    A14B,
    AUTO,
    BOUNDARIES,
    SINGLE,
    resolve_family,
    sigma_range,
    task_of,
)


def owns(role: str, sigma: float, boundary: float) -> bool:
    low, high = sigma_range(role, boundary)
    return low <= sigma < high or sigma == high == 1.0


@pytest.mark.parametrize("boundary", BOUNDARIES.values())
def test_the_boundary_itself_belongs_to_the_high_expert(boundary):
    assert owns("high_noise", boundary, boundary)
    assert not owns("low_noise", boundary, boundary)


@pytest.mark.parametrize("boundary", BOUNDARIES.values())
def test_every_sigma_has_exactly_one_of_two_experts(boundary):
    for sigma in [i / 1000 for i in range(1001)]:
        # The reference's rule: wan/image2video.py compares t >= boundary.
        assert owns("high_noise", sigma, boundary) == (sigma >= boundary)
        assert owns("low_noise", sigma, boundary) == (sigma < boundary)
        assert owns("single", sigma, boundary)


@pytest.mark.parametrize(
    ("role", "ends"),
    [("high_noise", (0.9, 1.0)), ("low_noise", (0.0, 0.9)), ("single", (0.0, 1.0))],
)
def test_together_the_experts_cover_all_noise_and_no_more(role, ends):
    assert sigma_range(role, 0.9) == ends


def test_the_boundaries_are_those_of_the_reference():
    assert BOUNDARIES == {"i2v": 0.9, "t2v": 0.875}


def test_36_input_channels_are_image_to_video_and_16_text_to_video():
    assert task_of(36, 16) == "i2v"
    assert task_of(16, 16) == "t2v"


@pytest.mark.parametrize(
    ("choice", "models", "family"),
    [(AUTO, 2, A14B), (AUTO, 1, SINGLE), (A14B, 1, A14B), (A14B, 2, A14B), (SINGLE, 1, SINGLE)],
)
def test_auto_counts_the_models_and_a_choice_by_hand_is_kept(choice, models, family):
    assert resolve_family(choice, models) == family


def test_two_models_cannot_be_a_single_model():
    with pytest.raises(UserError, match=r"Disconnect model_low, or set family to 'wan 2\.2 A14B'"):
        resolve_family(SINGLE, 2)


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'wan 3'.*auto, wan 2\.2 A14B, single model"):
        resolve_family("wan 3", 1)
