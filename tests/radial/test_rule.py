"""The token rule against its own words, written out pair by pair."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.radial_attention.rule import RadialRule


def slow_reach(rule: RadialRule, distance: int, tokens: int) -> int | None:
    """Half width of the band, from the definition alone."""
    if distance in (0, 1):
        return tokens
    power = 1
    while power <= tokens:
        power *= 2
    octave = math.floor(math.log2(distance)) + 1
    width = power / 2**octave
    if width < rule.decimation and distance % int(rule.decimation / width) != 0:
        return None
    return min(tokens, math.floor(max(width * rule.decay, rule.floor)))


@given(
    decay=st.floats(0.01, 2),
    floor=st.integers(0, 200),
    decimation=st.integers(1, 256),
    distance=st.integers(0, 400),
    tokens=st.integers(1, 5000),
)
def test_the_band_is_what_its_definition_says(decay, floor, decimation, distance, tokens):
    rule = RadialRule(decay=decay, floor=floor, decimation=decimation)
    assert rule.reach(distance, tokens) == slow_reach(rule, distance, tokens)


@pytest.mark.parametrize(("tokens", "first"), [(1560, 16), (3600, 32), (3840, 32)])
def test_pairs_are_left_out_from_the_published_distances_on(tokens, first):
    rule = RadialRule()
    kept = [rule.reach(d, tokens) is not None for d in range(2 * first + 1)]
    assert all(kept[: first + 1])
    assert kept[first : 2 * first + 1] == [d % 2 == 0 for d in range(first, 2 * first)] + [True]


@pytest.mark.parametrize(
    ("sink", "frames", "expected"),
    [
        ("first", 5, (0,)),
        ("first and last", 5, (0, 4)),
        ("first and last", 1, (0,)),
        ("none", 5, ()),
    ],
)
def test_frames_that_all_tokens_see(sink, frames, expected):
    assert RadialRule(sink=sink).sinks(frames) == expected
