"""The doctor on the three films of the development host, against what a person sees who watches them.

- bikes (640x272, 25 fps, 10 s): a truck from above, a man between cars, a cyclist at a crossing, a junction behind a
  fence, a bicycle at a wall, the same from near: six shots, so five cuts, at frames 30, 76, 137, 187 and 242.
- carphone_pristine (176x144, wide pixels, 29.97 fps, 4 s): a man talks in a car, one shot; the picture is coarse, and
  its leftmost column is dark all the time.
- bigbuckbunny (1280x720, 25 fps, 5 s): a rabbit leaves its burrow, one shot, a camera that stands. It was drawn at
  24 fps: each 25th frame is the one before.
Nowhere a logo, a black frame, or a picture that stands.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import pytest
from tandem_wan.dev.toy_clips import write_dataset
from tandem_wan.training.data.dataset import Clip, Dataset, DatasetSettings
from tandem_wan.training.data.reader import load_dataset
from tandem_wan.training.doctor.examination import examine
from tandem_wan.training.doctor.look import Span, look_at_file
from tandem_wan.wan.shapes import ClipSize

CUT_FRAMES = (30, 76, 137, 187, 242)
WHOLE = {"bikes": 157, "carphone_pristine": 61, "bigbuckbunny": 81}
"""Frames at 16 fps, 4k+1."""


@pytest.fixture(scope="module")
def report(footage):
    return examine(dataset(footage))


def dataset(folder: Path) -> Dataset:
    clips = tuple(
        Clip(path=folder / f"{name}.mp4", caption="A film.", frames=frames, digest=name)
        for name, frames in WHOLE.items()
    )
    return Dataset(folder=folder, clips=clips, size=ClipSize(832, 480, 61), fps=16.0)


def faults(report, kind: str) -> dict[str, str]:
    finding = report.finding(kind)
    return {fault.name.split(".")[0]: fault.value for fault in finding.faults} if finding else {}


def test_it_finds_what_a_person_sees_and_nothing_else(report):
    assert {each.kind for each in report.findings} == {"scene cut", "bars", "enlarged", "too few"}
    assert set(faults(report, "scene cut")) == {"bikes"}
    assert faults(report, "bars") == {"carphone_pristine": "left 1 px of 193x144"}
    assert set(faults(report, "enlarged")) == {"bikes", "carphone_pristine"}


def test_the_cuts_are_those_that_a_person_sees_to_the_frame(report):
    cuts = report.looks[0].cuts_s
    assert [round(seconds * 25) for seconds in cuts] == list(CUT_FRAMES)


def test_sizes_and_rates_are_those_of_the_films(report):
    looks = dict(zip(WHOLE, report.looks, strict=True))
    # Pixels of carphone are 128:117, so that a player shows 176 as 193.
    assert [(look.width, look.height) for look in looks.values()] == [
        (640, 272),
        (193, 144),
        (1280, 720),
    ]
    assert looks["carphone_pristine"].fps == pytest.approx(30000 / 1001, abs=0.01)
    assert looks["bikes"].distinct_fps == 25
    assert looks["bigbuckbunny"].fps == 25
    assert looks["bigbuckbunny"].distinct_fps == pytest.approx(24, abs=0.1)
    assert looks["bigbuckbunny"].told_fps == 25


def test_seconds_of_one_shot_are_no_copies_but_a_film_coded_again_is(footage, tmp_path):
    path = footage / "carphone_pristine.mp4"
    again = tmp_path / "again.mp4"
    code_again(path, again)
    parts = [
        Clip(path=path, caption="He talks.", frames=17, start=start, digest="a")
        for start in (0, 17, 34)
    ]
    copy = Clip(path=again, caption="He talks.", frames=17, start=17, digest="b")
    films = Dataset(folder=footage, clips=(*parts, copy), size=ClipSize(64, 48, 17), fps=16.0)
    found = examine(films).finding("near duplicate")
    assert [(f.name, f.value) for f in found.faults] == [
        ("again.mp4@17", "looks like carphone_pristine.mp4@17")
    ]


def test_parts_of_different_films_are_far_from_each_other(footage):
    looks = {name: look_at_file(footage / f"{name}.mp4", _seconds(n)) for name, n in WHOLE.items()}
    for name, own in looks.items():
        for other in (look for each, found in looks.items() if each != name for look in found):
            assert min((look.hashes != other.hashes).sum(axis=1).mean() for look in own) > 16


def test_of_forty_toy_clips_none_is_faulty_but_those_that_stand_still_if_they_are_taught(tmp_path):
    """Small shapes in plain colours move slowly over plain grounds, alike but for their colours."""
    write_dataset(tmp_path, "loop")
    settings = DatasetSettings(folder=tmp_path, width=64, height=64, frames=17)
    toys = load_dataset(settings)
    still = [clip.name for clip in toys.clips if "stands still on" in clip.caption]
    assert examine(toys).findings == (), "those that stand still are regularisation"
    taught = tuple(replace(clip, regularisation=False) for clip in toys.clips)
    (finding,) = examine(replace(toys, clips=taught)).findings
    assert finding.kind == "frozen" and still
    assert [fault.name for fault in finding.faults] == still


def _seconds(frames: int) -> list[Span]:
    return [Span(float(at), at + 1.0) for at in range(frames // 16 - 1)]


def code_again(path: Path, out: Path) -> None:
    """Half as large, and with much loss."""
    with av.open(str(path)) as film, av.open(str(out), "w") as container:
        rate = film.streams.video[0].average_rate
        stream = container.add_stream("libx264", rate=rate, options={"crf": "35"})
        stream.width, stream.height, stream.pix_fmt = 88, 72, "yuv420p"
        for number, frame in enumerate(film.decode(video=0)):
            small = frame.reformat(width=88, height=72, format="yuv420p")
            small.pts, small.time_base, small.pict_type = number, 1 / rate, 0
            container.mux(stream.encode(small))
        container.mux(stream.encode(None))
