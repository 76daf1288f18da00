"""Advice: every sign has its words, and a report shows the signs that it can know."""

from dataclasses import replace
from typing import get_args

import pytest
from tandem_wan.wan.lora.advice import ADVICE, Sign, signs_of_stack
from tandem_wan.wan.lora.measure import UpdateSize
from tandem_wan.wan.lora.report import FileReport, KeyGroup, LoadReport

BOTH = ("high_noise", "low_noise")
NAN = KeyGroup(cause="not a number", detail="x holds NaN or infinity", count=3, example="x")


def report(**changes) -> FileReport:
    given = {"file": "x.safetensors", "expert": "high_noise", "strength": 1.0, "matched": 20}
    return FileReport(**({"reason": "", "layout": "", "total": 20} | given | changes))


def pair(name: str, row: int = 0, **changes) -> list[FileReport]:
    return [
        report(file=f"{name}_{role}.safetensors", expert=role, named_for=role, row=row, **changes)
        for role in BOTH
    ]


def test_every_sign_has_a_full_sentence_and_a_remedy():
    assert set(ADVICE) == set(get_args(Sign))
    for advice in ADVICE.values():
        assert advice.sign.endswith(".") and advice.say.endswith((".", "?"))
        assert advice.sign[0].isupper() and advice.say[0].isupper()


def test_a_plain_report_shows_no_sign():
    assert report().signs == ()
    assert signs_of_stack([report(), report(expert="low_noise")], BOTH) == {}


@pytest.mark.parametrize(
    ("sign", "changes"),
    [
        ("no match", {"matched": 0}),
        ("other model", {"matched": 0, "fit": "other model"}),
        ("not a number", {"matched": 0, "groups": (NAN,)}),
        ("not a number", {"matched": 19, "groups": (NAN,)}),
        ("zero update", {"size": UpdateSize(0.0, 20, 20, zero=True)}),
        ("zero update", {"size": UpdateSize(9e-6, 20, 20, zero=False)}),
        ("huge update", {"size": UpdateSize(0.6, 20, 20, zero=False), "strength": -2.0}),
        ("other expert", {"trained_for": "low_noise"}),
        ("other expert", {"named_for": "low_noise"}),
        (
            "2.1 on 2.2",
            {"fit": "other generation", "made_for": "Wan 2.1 14B, says ss_sd_model_name"},
        ),
        ("unknown strength", {"expressions": (r"blocks\.\d+\.ffn\.0",)}),
        ("scheduled to zero", {"schedule": "0", "peak": 0.0}),
    ],
)
def test_a_file_shows_the_sign_that_it_has_and_no_other(sign, changes):
    assert report(**changes).signs == (sign,)
    assert ADVICE[sign].say in report(**changes).text()


def test_a_file_of_unknown_layers_and_some_nan_matches_nothing_for_two_reasons():
    unknown = replace(NAN, cause="no such layer")
    assert report(matched=0, groups=(NAN, unknown)).signs == ("no match", "not a number")


def test_metadata_go_before_the_name_of_a_file():
    assert report(trained_for="high_noise", named_for="low_noise").signs == ()


def test_half_a_pair_is_a_file_for_one_expert_without_its_other_half():
    high, low = pair("dance")
    assert signs_of_stack([high], BOTH) == {"half a pair": ("dance_high_noise.safetensors",)}
    assert signs_of_stack([high, low], BOTH) == {}
    assert signs_of_stack([high, report(file="other.safetensors", expert="low_noise")], BOTH)
    assert signs_of_stack([high], ("high_noise",)) == {}, "the other expert is not connected"


def test_halves_belong_together_by_row_or_by_pair_id_or_by_name():
    ours, theirs = pair("dance"), pair("swim")
    assert "half a pair" in signs_of_stack([ours[0], theirs[1]], BOTH)
    by_row = [pair("dance", row=1)[0], pair("swim", row=1)[1]]
    assert signs_of_stack(by_row, BOTH) == {}
    by_id = [pair("dance", pair_id="p")[0], pair("swim", pair_id="p")[1]]
    assert signs_of_stack(by_id, BOTH) == {}
    others = [pair("dance", pair_id="p")[0], pair("dance", pair_id="q")[1]]
    assert "half a pair" in signs_of_stack(others, BOTH)


def test_a_file_twice_on_one_expert_is_told_once_by_name_or_by_content():
    one, copy = report(content="a"), report(file="copy.safetensors", content="a")
    assert signs_of_stack([one, one, one], BOTH) == {"loaded twice": ("x.safetensors",)}
    assert signs_of_stack([one, copy], BOTH) == {
        "loaded twice": ("x.safetensors = copy.safetensors",)
    }
    assert signs_of_stack([one, report(content="a", expert="low_noise")], BOTH) == {}
    assert signs_of_stack([report(), report(file="y.safetensors")], BOTH) == {}, "content unknown"


def test_more_than_four_loras_on_one_expert_are_too_many():
    files = [report(file=f"{i}.safetensors", strength=0.5) for i in range(5)]
    assert signs_of_stack(files[:4], BOTH) == {}
    assert signs_of_stack(files, BOTH) == {"too many": ("high_noise",)}
    idle = [report(file=f"{i}.safetensors", strength=0.0) for i in range(9)]
    assert signs_of_stack(idle, BOTH) == {}, "strength 0 is not applied"


def test_strengths_that_add_up_to_more_than_three_are_told_speed_left_out():
    files = [report(file=f"{i}.safetensors", strength=1.5) for i in range(3)]
    assert signs_of_stack(files[:2], BOTH) == {}
    assert signs_of_stack(files, BOTH) == {"total strength": ("high_noise",)}
    negative = [report(file=f"{i}.safetensors", strength=-1.5) for i in range(3)]
    assert signs_of_stack(negative, BOTH) == {"total strength": ("high_noise",)}
    speed = report(file="speed.safetensors", strength=1.5, kind="speed")
    assert signs_of_stack([*files[:2], speed], BOTH) == {}
    fading = report(file="fading.safetensors", strength=1.5, schedule="0.1", peak=0.0)
    assert signs_of_stack([*files[:2], fading], BOTH) == {}


def test_the_advice_for_a_stack_stands_in_its_report():
    text = LoadReport((pair("dance")[0],), roles=("high_noise", "low_noise")).text()
    assert "Only one half of a pair is loaded. Put the other file into the row's lora_low" in text
    assert text.endswith("(dance_high_noise.safetensors)")
