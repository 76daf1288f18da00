"""What the doctor says of how many clips there are, of what kind, and how often they are shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tandem_wan.training.data.dataset import Clip, Dataset
from tandem_wan.training.doctor.findings import Ward
from tandem_wan.training.doctor.guidance import PRESETS, advice, counted, whole_findings
from tandem_wan.training.plans.presets import PRESETS as TRAINING_PRESETS
from tandem_wan.wan.shapes import ClipSize

FILM = Clip(path=Path("film.mp4"), caption="A man waves.", frames=81, digest="")
PICTURE = replace(FILM, path=Path("picture.png"), frames=1)


def ward(*alike: Clip) -> Ward:
    """Each is another part of its file."""
    clips = tuple(replace(clip, start=100 * number) for number, clip in enumerate(alike))
    folder, size = Path("films"), ClipSize(832, 480, 81)
    dataset = Dataset(folder=folder, clips=clips, size=size, fps=16.0)
    return Ward(dataset, tuple(clip.name for clip in clips), (None,) * len(clips))


def verdicts(found: Ward, preset: str) -> dict[str, str]:
    return {finding.kind: finding.verdict for finding in whole_findings(found, preset)}


@pytest.mark.parametrize(
    ("preset", "clip", "count", "kind", "verdict"),
    [
        ("image style", PICTURE, 7, "too few", "bad"),
        ("image style", PICTURE, 8, "too few", "warning"),
        ("image style", PICTURE, 15, "too few", "warning"),
        ("image style", PICTURE, 16, None, None),
        ("image style", PICTURE, 60, None, None),
        ("image style", PICTURE, 61, "too many", "warning"),
        ("any", PICTURE, 15, "too few", "warning"),
        ("character", PICTURE, 10, None, None),
        ("character", FILM, 20, None, None),
        ("character", FILM, 9, "too few", "warning"),
        ("motion", FILM, 9, "too few", "bad"),
        ("motion", FILM, 29, "too few", "warning"),
        ("motion", FILM, 30, None, None),
        ("motion", FILM, 50, None, None),
        ("video effect", FILM, 9, "too few", "warning"),
        ("video effect", FILM, 10, None, None),
        ("video effect", FILM, 20, None, None),
        ("general video", FILM, 50, None, None),
        ("any", FILM, 10, None, None),
        ("any", FILM, 50, None, None),
        # Only of pictures is it said that more do harm.
        ("any", PICTURE, 61, "too many", "warning"),
        ("character", PICTURE, 45, None, None),
        ("character", PICTURE, 61, "too many", "warning"),
        ("character", FILM, 61, None, None),
        ("motion", FILM, 200, None, None),
        ("video effect", FILM, 200, None, None),
        ("any", FILM, 200, None, None),
    ],
)
def test_the_number_of_clips_is_judged_by_what_is_to_be_learnt(preset, clip, count, kind, verdict):
    assert verdicts(ward(*[clip] * count), preset) == ({kind: verdict} if kind else {})


def test_every_preset_of_the_doctor_is_a_kind_of_training():
    others = {name.removesuffix(" 4x").removesuffix(" 3x") for name in TRAINING_PRESETS}
    assert set(PRESETS) - {"any"} <= others


def test_regularisation_does_not_count_as_clips_and_is_at_most_half():
    kept = replace(FILM, regularisation=True)
    assert verdicts(ward(*[FILM] * 10, *[kept] * 10), "any") == {}
    assert verdicts(ward(*[FILM] * 10, *[kept] * 11), "any") == {"regularisation": "warning"}
    assert verdicts(ward(*[FILM] * 9, *[kept] * 2), "any") == {"too few": "warning"}
    # It is what is shown that counts.
    often = replace(kept, repeats=6.0)
    assert verdicts(ward(*[FILM] * 10, *[often] * 2), "any") == {"regularisation": "warning"}


def test_pictures_among_clips_freeze_motion_and_pictures_alone_hold_none():
    (finding,) = whole_findings(ward(*[FILM] * 10, PICTURE), "any")
    assert finding.kind == "pictures among clips" and "high-noise expert" in finding.fix
    assert [fault.clip for fault in finding.faults] == [10]
    assert verdicts(ward(*[PICTURE] * 40), "any") == {}
    assert verdicts(ward(*[PICTURE] * 40), "motion") == {"pictures only": "bad"}


def test_clips_of_the_rare_shapes_are_named_when_there_are_more_than_four():
    sizes = [(832, 480)] * 8 + [(480, 832)] * 4 + [(640, 640)] * 2 + [(960, 416)]
    clips = [replace(FILM, size=size) for size in sizes]
    assert verdicts(ward(*clips), "any") == {}
    (finding,) = whole_findings(ward(*clips, replace(FILM, size=(736, 544))), "any")
    assert finding.kind == "mixed aspect"
    assert [fault.clip for fault in finding.faults] == [12, 13, 14, 15]


def test_missing_captions_are_counted():
    (finding,) = whole_findings(ward(*[FILM] * 9, replace(FILM, caption=" ")), "any")
    assert (finding.kind, len(finding.faults), finding.faults[0].clip) == ("caption missing", 1, 9)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_advised_number_is_told_once(preset):
    few, enough = ward(FILM), ward(*[FILM] * 40)
    assert not any("clips that teach" in said for said in advice(few, preset))
    assert any("40 clips that teach" in said for said in advice(enough, preset))


def test_clips_and_pictures_are_counted_apart():
    (few, _) = whole_findings(ward(*[FILM] * 6, PICTURE), "any")
    assert few.faults[0].value == "6 clips and 1 picture"
    (few,) = whole_findings(ward(PICTURE), "any")
    assert few.faults[0].value == "1 picture"
    assert counted([]) == "0 clips" and counted([False]) == "1 clip"


def test_what_to_do_about_too_many_does_not_contradict_the_advice():
    for preset, kept in (("image style", "30-50"), ("any", "30-50"), ("character", "10-20")):
        (finding,) = whole_findings(ward(*[PICTURE] * 61), preset)
        assert f"Keep the best {kept}:" in finding.fix
    assert advice(ward(*[PICTURE] * 45), "character") == [
        "45 pictures that teach: 10-20 pictures or clips for a character"
    ]


def test_in_a_style_of_pictures_a_clip_is_the_odd_one():
    (finding,) = whole_findings(ward(*[PICTURE] * 20, FILM), "image style")
    assert (finding.kind, finding.verdict) == ("clips among pictures", "warning")
    assert [fault.clip for fault in finding.faults] == [20]
    assert "frame" in finding.fix
