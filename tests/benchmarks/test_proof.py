"""The proof's report: a claim is met or missed by its figures alone, and the page says which."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tandem_wan.benchmarks.miniature.claims import claims
from tandem_wan.benchmarks.miniature.figures import Figures
from tandem_wan.benchmarks.miniature.judging import Character, LookScore
from tandem_wan.benchmarks.miniature.loras import LORAS, MOTION, OVERTRAINED
from tandem_wan.benchmarks.miniature.report import page, table
from tandem_wan.wan.lora.files import read_metadata, tandem_metadata
from tandem_wan.wan.miniature.family import SHIPPED_LORAS
from tandem_wan.wan.miniature.recipe.judge import Scores

NONE, BOTH = Scores(0.0, 0.0, 12.0, 30.0), Scores(0.9, 0.5, 4.0, 30.0)
PLAIN, STRIPED = LookScore(0.04, 0.0, 1.0), LookScore(0.3, 0.8, 1.0)
GOOD = Figures(
    vae_db=[27.0, 31.0],
    base=Scores(1.0, 0.9, 1.0, 30.0),
    held_out=NONE,
    motion={
        "none": NONE,
        "both": BOTH,
        "high only": Scores(0.3, 0.0, 8.0, 30.0),
        "low only": Scores(0.0, 0.0, 10.0, 30.0),
    },
    dial={"0": NONE, "0.5": Scores(0.2, 0.0, 8.0, 30.0), "1": BOTH},
    known={
        "none": Scores(1.0, 0.9, 1.0, 30.0),
        MOTION.name: Scores(0.95, 0.9, 1.0, 30.0),
        OVERTRAINED.name: Scores(0.5, 0.3, 6.0, 30.0),
    },
    look={
        "none": PLAIN,
        "both": STRIPED,
        "high only": LookScore(0.05, 0.0, 1.0),
        "low only": LookScore(0.2, 0.4, 1.0),
    },
    look_dial={"0": PLAIN, "0.5": LookScore(0.1, 0.1, 1.0), "1": STRIPED},
    character={
        MOTION.name: Character(0.02, 20.0, 0.01, 0.9),
        OVERTRAINED.name: Character(0.019, 22.0, 0.01, 0.9),
    },
    overtrained=BOTH,
)


def test_good_figures_meet_every_claim():
    assert all(claim.met for claim in claims(GOOD))


@pytest.mark.parametrize(
    ("claim", "worse"),
    [
        ("VAE", {"vae_db": [27.0, 28.0]}),
        ("obeys", {"base": Scores(1.0, 0.79, 1.0, 30.0)}),
        ("obeys", {"base": Scores(1.0, 0.9, 1.0, 27.0)}),
        ("does not know", {"held_out": Scores(0.2, 0.0, 9.0, 30.0)}),
        ("teaches", {"motion": GOOD.motion | {"both": Scores(0.7, 0.5, 4.0, 30.0)}}),
        ("half of the base", {"motion": GOOD.motion | {"both": Scores(0.9, 0.5, 6.1, 30.0)}}),
        (
            "known motions lose",
            {"known": GOOD.known | {MOTION.name: Scores(0.85, 0.9, 1.0, 30.0)}},
        ),
        ("high-noise LoRA alone", {"motion": GOOD.motion | {"low only": BOTH}}),
        ("low-noise LoRA alone", {"look": GOOD.look | {"high only": STRIPED}}),
        ("dial", {"dial": GOOD.dial | {"0.5": Scores(0.2, 0.0, 3.0, 30.0)}}),
        ("pattern", {"look_dial": GOOD.look_dial | {"0.5": LookScore(0.4, 0.1, 1.0)}}),
        ("overtraining", {"known": GOOD.known | {OVERTRAINED.name: GOOD.known[MOTION.name]}}),
    ],
)
def test_worse_figures_miss_their_claim(claim, worse):
    found = claims(replace(GOOD, **worse))
    assert [c for c in found if not c.met and claim in c.what]
    assert "**no**" in page(replace(GOOD, **worse), "")


def test_lost_diversity_shows_overtraining_too():
    lost = replace(
        GOOD,
        known=GOOD.known | {OVERTRAINED.name: GOOD.known[MOTION.name]},
        character=GOOD.character | {OVERTRAINED.name: Character(0.01, 30.0, 0.01, 0.9)},
    )
    assert claims(lost)[-1].met


def test_the_page_has_every_table_and_picture():
    text = page(GOOD, "How.")
    for name in ("motion", "dial", "look", "overtraining"):
        assert f"](report/{name}.png)" in text
    assert text.count("\n|---") == 6
    assert "| motion, overtrained | 0.500 | 0.300 | 6.0 | 30.0 |" in text


def test_a_table_has_a_line_a_row():
    assert table(["a", "b"], [["1", "2"]]) == "\n| a | b |\n|---|---|\n| 1 | 2 |"


@pytest.mark.parametrize("lora", LORAS.values(), ids=str)
def test_a_shipped_lora_was_made_by_the_plan_that_is_written_here(lora):
    for role in ("high_noise", "low_noise"):
        made = tandem_metadata(read_metadata(SHIPPED_LORAS / lora.file(role)))
        plan = made["plan"]
        assert made["expert"] == role and made["step"] == lora.plan["steps"] == plan["steps"]
        for name, value in lora.plan.items():
            part, _, inner = name.rpartition(".")
            assert (plan[part] if part else plan)[inner] == value
