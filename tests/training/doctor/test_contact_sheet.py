"""The picture of a dataset: what is framed in which colour, and what is left out of a big one."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageColor
from tandem_wan.training.doctor.borders import Bars
from tandem_wan.training.doctor.contact_sheet import (
    COLOURS,
    LAYOUTS,
    MOST_TILES,
    WIDTH,
    _facts,
    _title,
    _wrapped,
    contact_sheet,
)
from tandem_wan.training.doctor.examination import DoctorReport, Unused
from tandem_wan.training.doctor.findings import Fault, Finding
from tandem_wan.training.doctor.look import ClipLook

BLUE = (20, 60, 200)


def look(colour=BLUE, size=(336, 63)) -> ClipLook:
    out = BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG", quality=95)
    return ClipLook(
        width=1280,
        height=720,
        fps=24.0,
        distinct_fps=24.0,
        uneven=0.0,
        seconds=5.0,
        frames=120,
        still_s=0.0,
        cuts_s=(),
        blank=0,
        blank_head=0,
        blank_tail=0,
        black=False,
        bars=Bars(),
        logos=(),
        hashes=np.zeros((5, 64), bool),
        tints=np.zeros((5, 12, 12, 3), np.uint8),
        corners=np.zeros((4, 24, 24), np.uint8),
        strip=out.getvalue(),
    )


def report(looks, *findings: Finding, unused=()) -> DoctorReport:
    names = tuple(f"clip_{n}.mp4" for n in range(len(looks)))
    return DoctorReport(
        names=names, looks=tuple(looks), unused=unused, findings=findings, advice=()
    )


def finding(verdict, *clips: int) -> Finding:
    faults = tuple(Fault(f"clip_{n}.mp4", "black", "a picture", n) for n in clips)
    return Finding(kind="blank", verdict=verdict, faults=faults, fix="Take it out")


def where(sheet: np.ndarray, colour: str) -> np.ndarray:
    return (sheet == np.array(ImageColor.getrgb(colour))).all(axis=2)


def tiles(sheet: np.ndarray, colour: str) -> int:
    """Frames of a colour: above and below three lines as wide as a tile."""
    sums = np.cumsum(np.pad(where(sheet, colour), ((0, 0), (1, 0))), axis=1)
    lines = (sums[:, WIDTH:] - sums[:, :-WIDTH] == WIDTH).sum()
    assert lines % 6 == 0
    return int(lines) // 6


def test_each_tile_is_framed_in_the_colour_of_the_worst_that_is_wrong_with_it():
    found = report([look()] * 7, finding("warning", 1, 2, 3), finding("bad", 3, 5))
    sheet = contact_sheet(found)
    assert tiles(sheet, COLOURS["bad"]) == 2
    assert tiles(sheet, COLOURS["warning"]) == 2
    assert tiles(sheet, COLOURS["good"]) == 3


def test_of_few_clips_what_is_written_can_be_read_where_the_node_shows_the_sheet():
    """340 pixels wide."""
    for count in (1, 3, 9, 12):
        sheet = contact_sheet(report([look()] * count))
        layout = next(each for each in LAYOUTS if count <= each.most)
        assert layout.text * 340 / sheet.shape[1] >= 8.5


def test_a_list_of_faults_is_wrapped_between_them_and_what_is_left_over_is_counted():
    kinds = ["scene cut", "caption missing", "near duplicate", "enlarged", "logo", "short"]
    assert _wrapped(kinds, ", ", 10_000, 28, 1) == [", ".join(kinds)]
    lines = _wrapped(kinds, ", ", 328, 28, 9)
    assert ", ".join(line.rstrip(",") for line in lines) == ", ".join(kinds) and len(lines) > 2
    for most in (2, 3):
        short = _wrapped(kinds, ", ", 328, 28, most)
        *shown, rest = ", ".join(line.rstrip(",") for line in short).split(", ")
        assert len(short) == most and shown == kinds[: len(shown)]
        assert rest == f"+{len(kinds) - len(shown)}"


def test_the_sheet_tells_the_rate_of_the_report_and_counts_pictures_apart():
    film = replace(look(), distinct_fps=23.0)
    raised = replace(look(), distinct_fps=8.0)
    picture = replace(look(), fps=0.0, distinct_fps=0.0)
    assert " 24 fps" in _facts(film) and " 8 fps" in _facts(raised)
    assert _title(report([film, raised, picture])).endswith(": 2 clips and 1 picture")


def test_those_with_faults_come_first_whatever_their_number():
    looks = [look()] * 80
    looks[77] = look(colour=(200, 30, 30))
    sheet = contact_sheet(report(looks, finding("bad", 77)))
    red = np.argwhere((sheet[..., 0] > 150) & (sheet[..., 2] < 60) & (sheet[..., 1] < 60))
    blue = np.argwhere((sheet[..., 2] > 150) & (sheet[..., 0] < 60))
    assert len(red) > 10_000
    assert red.mean(axis=0).tolist() < blue.mean(axis=0).tolist()
    assert red[:, 1].max() < blue[:, 1].max() and red[:, 0].max() == blue[:, 0].min() + 62


def test_a_big_dataset_shows_sixty_and_says_how_many_are_left_out():
    few, many = contact_sheet(report([look()] * 60)), contact_sheet(report([look()] * 500))
    assert tiles(few, COLOURS["good"]) == tiles(many, COLOURS["good"]) == MOST_TILES
    assert many.shape[0] > few.shape[0], "a line more"
    assert np.array_equal(many[50 : few.shape[0] - 40], few[50:-40])


def test_a_file_that_cannot_be_read_is_a_crossed_tile():
    fault = Fault("broken.mp4", "cannot be decoded", "a film")
    broken = Finding(kind="unreadable", verdict="bad", faults=(fault,), fix="Convert it")
    sheet = contact_sheet(report([look()], broken, unused=(Unused(name="broken.mp4", look=None),)))
    assert tiles(sheet, COLOURS["bad"]) == 1
    inside = where(sheet, COLOURS["bad"])[68:130, 14:350]
    assert all(row.any() for row in inside), "a cross goes through every row of the tile's picture"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_any_number_of_clips_makes_a_picture(count):
    sheet = contact_sheet(report([look()] * count))
    assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.shape[2] == 3


def test_upright_and_lying_clips_stand_side_by_side_within_their_frames():
    sheet = contact_sheet(report([look(size=(189, 112)), look()]))
    assert tiles(sheet, COLOURS["good"]) == 2
    blue = (sheet[..., 2] > 150) & (sheet[..., 0] < 60)
    half = sheet.shape[1] // 2
    assert blue[:, :half].sum() == 189 * 112 and blue[:, half:].sum() == 336 * 63


def test_a_long_name_keeps_its_ends_and_stays_within_its_tile():
    named = report([look()])
    long = DoctorReport(
        names=("a" * 300 + ".mp4",), looks=named.looks, unused=(), findings=(), advice=()
    )
    assert contact_sheet(long).shape == contact_sheet(named).shape


@pytest.mark.parametrize("name", ["a\nb.mp4", "a\x07\u2028b.mp4", "bad\udcff.mp4"])
def test_a_name_that_is_no_line_of_text_is_written_in_one(name):
    plain, odd = report([look()]), report([look()])
    odd = DoctorReport(names=(name,), looks=odd.looks, unused=(), findings=(), advice=())
    assert contact_sheet(odd).shape == contact_sheet(plain).shape
