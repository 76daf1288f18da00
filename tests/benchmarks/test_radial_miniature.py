"""The page of radial attention: what it computes follows from the rule, and its verdicts from the figures alone."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import pytest
import torch
from tandem_wan.benchmarks.miniature import radial_runs
from tandem_wan.benchmarks.miniature.radial_figures import (
    SIZES,
    Band,
    Measured,
    bands,
    followed,
    gain_at,
    grid_of,
    likeness_db,
)
from tandem_wan.benchmarks.miniature.radial_page import PAGE, page, verdicts
from tandem_wan.benchmarks.miniature.radial_parts import AT, RESTS_ON, SIZE, STEPS, left_of
from tandem_wan.benchmarks.miniature.radial_runs import (
    ATTENTION,
    DENSE,
    KNOWN,
    ROWS,
    SPARSE,
    TAUGHT,
    layout,
    row_density,
    with_radial,
)
from tandem_wan.dev.toy_sampling import node
from tandem_wan.radial_attention.layout import dense_mask
from tandem_wan.radial_attention.rule import RadialRule
from tandem_wan.radial_attention.settings import BALANCED, PRESETS
from tandem_wan.wan.miniature.recipe.judge import Scores

GOOD = Scores(0.9, 0.8, 1.2, 30.0)
REPORT = "Settings.\n16 calls of self-attention: 16 sparse.\n\nSettings.\n8 calls of self-attention: 8 sparse."
FACTS = {"high_noise": {"decay": 0.2, "dense_layers": "", "dense_steps": 0, "tile": 1}}


def _page(found):
    return page(found, dict.fromkeys(ROWS, REPORT), "Planned.", FACTS, "2000-01-01")


@pytest.fixture
def found():
    return {row: Measured(GOOD, None if row.sampled == DENSE else 20.0) for row in ROWS}


@pytest.mark.parametrize("decay", [0.2, 1.0])
@pytest.mark.parametrize("frame", [16, 1560, 3600])
def test_a_band_is_what_the_rule_says_at_each_of_its_distances(decay, frame):
    rule = RadialRule(decay=decay)
    seen = {}
    for nearest, furthest, tokens, every in bands(rule, frame, 81):
        for distance in range(nearest, furthest + 1):
            reach = frame if tokens is None else tokens
            seen[distance] = reach if every and distance % every == 0 else None
    assert seen == {
        d: None if (r := rule.reach(d, frame)) is None else min(r, frame) for d in range(81)
    }


def test_bands_of_a_clip_of_two_frames_are_one():
    assert bands(RadialRule(), 1560, 2) == [Band(0, 1, None, 1)]


def test_what_is_left_of_the_pairs_beyond_neighbours_is_counted_in_the_mask():
    found, grid = layout(SPARSE, 17)
    mask, size = dense_mask(found), grid.frame
    pairs = [(i, j) for i in range(grid.frames) for j in range(1, grid.frames) if abs(i - j) > 1]
    blocks = [mask[i * size : (i + 1) * size, j * size : (j + 1) * size] for i, j in pairs]
    kept = sum(block.sum() for block in blocks) / (len(blocks) * size**2)
    assert left_of(float(mask.mean()), grid.frames) == pytest.approx(float(kept))
    assert 0 < kept < 0.25


def test_the_harsh_setting_is_sparse_where_nothing_is_dense():
    harsh = radial_runs.settings(SPARSE)
    assert not harsh.dense_layers and not harsh.dense_first(16)
    shares = [row_density(row) for row in KNOWN]
    assert shares[0] == 1 and sorted(shares, reverse=True) == shares and shares[-1] < 0.75


def test_the_arithmetic_is_that_of_the_plan_node():
    said = re.search(r"The whole run: ([\d.]+) times", PAGE.read_text(encoding="utf-8"))
    ours = gain_at(PRESETS[BALANCED], grid_of(*SIZES[SIZE], AT), STEPS).whole
    assert said and said[1] == f"{ours:.2f}"


def test_every_sampler_gets_both_experts_through_the_node():
    graph = {"high": node("UNETLoader"), "low": node("UNETLoader")}
    for number in range(2):
        models = {"model_high": ["high", 0], "model_low": ["low", 0]}
        graph[f"sample_{number}"] = node("TandemDualSampler", seed=number, **models)
    before = copy.deepcopy(graph)
    changed = with_radial(graph, ATTENTION[SPARSE])
    assert graph == before and with_radial(graph, {}) == before
    for number in range(2):
        inputs = changed[f"sample_{number}"]["inputs"]
        assert inputs["model_high"] == ["radial_high", 0] and inputs["seed"] == number
        assert inputs["model_low"] == ["radial_low", 0]
    assert changed["radial_low"]["inputs"] == {"model": ["low", 0], **ATTENTION[SPARSE]}


def test_other_settings_are_other_clips(monkeypatch):
    keys = {row: row.key for row in ROWS}
    assert len(set(keys.values())) == len(ROWS)
    harsher = ATTENTION | {SPARSE: ATTENTION[SPARSE] | {"decay_factor": 0.1}}
    monkeypatch.setattr(radial_runs, "ATTENTION", harsher)
    for row in ROWS:
        depends = row.sampled == SPARSE or row.trained == "radial"
        assert (row.key != keys[row]) == depends


@pytest.mark.parametrize(
    ("worse", "met"),
    [
        (GOOD, True),
        (GOOD._replace(kind=0.8, path_error_px=2.2), True),
        (GOOD._replace(kind=0.79), False),
        (GOOD._replace(path_error_px=2.3), False),
        (GOOD._replace(kind=1.0, path_error_px=0.1), True),
    ],
)
def test_sparse_clips_may_be_a_little_worse(worse, met):
    assert followed("", worse, GOOD).met is met


def test_a_missed_claim_is_said(found):
    assert "**no**" not in _page(found)
    for row in (KNOWN[-1], TAUGHT[-1]):
        spoilt = found | {row: replace(found[row], scores=GOOD._replace(kind=0.2))}
        assert sum(not verdict.met for verdict in verdicts(spoilt)) == 1
        assert _page(spoilt).count("**no**") == 1


def test_likeness_of_a_tenth_off_is_20_db():
    dense = torch.full((3, 2, 4, 4, 3), 0.5)
    assert likeness_db(dense + 0.1, dense) == pytest.approx(20, abs=1e-4)


def test_every_picture_of_the_page_is_there_and_small(found):
    text = _page(found)
    names = re.findall(r"\]\((radial_\w+\.png)\)", text)
    assert len(names) == len(set(names)) == 7
    assert names == re.findall(r"\]\((radial_\w+\.png)\)", PAGE.read_text(encoding="utf-8"))
    assert all((PAGE.parent / name).stat().st_size < 300_000 for name in names)
    for link in re.findall(r"\]\((\.\./[^)]+)\)", text):
        assert (PAGE.parent / link).is_file(), link


def test_each_preset_says_what_it_rests_on():
    assert list(RESTS_ON) == list(PRESETS)
