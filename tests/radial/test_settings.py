"""Presets, lists of layers, and how the rule shrinks with the video."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.radial_attention.backends import (
    BACKENDS,
    FLEX,
    GATHER,
    BackendError,
    choose_backend,
)
from tandem_wan.radial_attention.grid import TokenGrid
from tandem_wan.radial_attention.layout import density
from tandem_wan.radial_attention.plan import RadialPlan
from tandem_wan.radial_attention.reference_layout import ReferenceLayout
from tandem_wan.radial_attention.settings import (
    PRESETS,
    RadialSettings,
    SettingsError,
    any_sparse,
    chosen_settings,
    layer_numbers,
    scaled_tile,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        ("0-1", {0, 1}),
        ("0, 3 ,-1", {0, 3, 29}),
        ("-2--1", {28, 29}),
        ("5 - 7", {5, 6, 7}),
        ("0-29", set(range(30))),
    ],
)
def test_lists_of_layers(text, expected):
    assert layer_numbers(text, 30) == expected


@pytest.mark.parametrize("text", ["30", "-31", "1-", "a", "5-2", "0-1-2", "0;1", "28-30"])
def test_layers_that_are_not_there_are_named(text):
    with pytest.raises(SettingsError, match="dense_layers"):
        layer_numbers(text, 30)


@pytest.mark.parametrize(
    "changes",
    [{"decay": -0.1}, {"decay": 0.0}, {"dense_steps": -1}, {"dense_share": 1.5}, {"tile": -1}],
)
def test_impossible_settings_are_named(changes):
    with pytest.raises(SettingsError, match=next(iter(changes))):
        RadialSettings(**changes)


def test_what_a_person_sets_goes_before_the_preset():
    assert chosen_settings("balanced") == PRESETS["balanced"] == RadialSettings()
    mine = chosen_settings("paper", decay=0.5, dense_layers="none", dense_steps=0)
    assert (mine.decay, mine.dense_layers, mine.dense_first(50)) == (0.5, "", 0)
    assert PRESETS["paper"].dense_first(50) == 12
    assert PRESETS["quality"].dense_first(40) == 10
    assert PRESETS["balanced"].dense_first(1) == 1


def test_at_real_sizes_the_rule_is_the_published_one():
    settings = RadialSettings()
    for frame in (1560, 3600):
        rule = settings.rule(frame)
        assert (rule.floor, rule.decimation, scaled_tile(frame)) == (128, 128, 64)


@given(frame=st.integers(1, 1559))
def test_below_them_everything_shrinks_and_nothing_is_lost(frame):
    rule, tile = RadialSettings().rule(frame), scaled_tile(frame)
    assert 1 <= rule.floor == rule.decimation <= 128
    assert 4 <= tile <= 64 and tile & (tile - 1) == 0


def test_a_tiny_video_is_still_sparse():
    layout = RadialSettings().layout(TokenGrid(9, 4, 4))
    assert isinstance(layout, RadialPlan)
    assert 0.2 < density(layout) < 0.8


def test_the_reference_is_a_layout_of_its_own():
    assert isinstance(PRESETS["reference parity"].layout(TokenGrid(5, 8, 16)), ReferenceLayout)


def test_whether_anything_is_sparse():
    settings = RadialSettings(dense_layers="0-1", dense_steps=2, last_dense_steps=1)
    assert any_sparse(settings, 30, range(4), 4)
    assert not any_sparse(settings, 30, range(3), 3)
    assert not any_sparse(settings, 30, range(2), 20)
    assert not any_sparse(settings, 2, range(20), 20)


def test_a_cpu_gets_gather_and_is_told_why_not_the_others():
    cpu = torch.device("cpu")
    backend = choose_backend("auto", cpu, training=True)
    assert backend.name == GATHER
    assert "backwards" in backend.why and "GPU" in backend.why
    with pytest.raises(BackendError, match="needs a GPU"):
        choose_backend(FLEX, cpu)
    with pytest.raises(BackendError, match="it can be auto, gather"):
        choose_backend("triton2", cpu)


@pytest.mark.parametrize("name", [n for n in BACKENDS if n != FLEX])
def test_all_that_run_here_compute_the_same(name):
    layout = RadialSettings().layout(TokenGrid(7, 4, 5, before=3))
    q, k, v = torch.randn(3, 1, layout.tokens, 2, 8, generator=torch.Generator().manual_seed(1))
    backend = choose_backend(name, torch.device("cpu"))
    expected = choose_backend("dense reference", torch.device("cpu"))(q, k, v, layout)
    torch.testing.assert_close(backend(q, k, v, layout), expected, rtol=1e-4, atol=1e-5)
