"""What a person saw who had films of their own: rates, names, marks and numbers as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps
from tandem_wan.training.data.dataset import Dataset, DatasetSettings
from tandem_wan.training.data.join import joined
from tandem_wan.training.data.reader import load_dataset
from tandem_wan.training.doctor.examination import examine
from tandem_wan.training.doctor.frames import SeenFrame
from tandem_wan.training.doctor.span_watch import _repeated
from tandem_wan.wan.film import Film

from .test_doctor import scene, standing_camera, write

STEP = 30.0


def changes(repeats, frames: int = 96) -> list[float]:
    """Between each frame and the next of a film that moves but at `repeats`."""
    return [0.3 if at in set(repeats) else STEP for at in range(frames)]


@pytest.mark.parametrize(
    ("repeats", "share"),
    [
        (range(4, 96, 5), 1 / 5),  # 24 fps as 30
        (range(1, 96, 2), 1 / 2),  # 12 as 24
        ([at for at in range(96) if at % 3], 2 / 3),  # 8 as 24
        ([at for at in range(96) if at % 5 not in (0, 3)], 3 / 5),  # 24 as 60
        ([at for at in range(96) if int(at * 16 / 25) == int((at - 1) * 16 / 25)], 9 / 25),
        # Moments that stand still.
        ([7, 32, 57], 0),
        ([5, 17, 18, 40, 44, 71, 90], 0),
        ([10, 11, 12, 60, 61, 90], 0),
        (np.flatnonzero(np.random.default_rng(0).random(96) < 0.3).tolist(), 0),
        ([], 0),
    ],
)
def test_only_what_repeats_at_even_distances_lowers_a_rate(repeats, share):
    assert _repeated(changes(repeats)) == pytest.approx(share, abs=0.03)


def read(folder: Path, **settings) -> Dataset:
    chosen = {"width": 64, "height": 48, "frames": 33, **settings}
    return load_dataset(DatasetSettings(folder=folder, **chosen))


def test_a_film_of_24_fps_that_stands_for_moments_has_24(tmp_path):
    order = np.delete(np.arange(60), [6, 20, 21, 33])
    order[5:8] = order[5]
    order[30:32] = order[30]
    order[44:46] = order[44]
    path = write(tmp_path / "a.mp4", scene(3, 60, speed=2)[order])
    report = examine(read(tmp_path))
    assert report.looks[0].told_fps == 24, path
    assert report.finding("source rate") is None and report.finding("rate too low") is None


def test_what_is_too_slow_is_told_in_words(tmp_path):
    write(tmp_path / "a.mp4", scene(3, 48), fps=20)
    finding = examine(read(tmp_path)).finding("source rate")
    assert "(expected: 24 fps or more advised)" in finding.text()


def test_a_length_is_told_in_frames_and_seconds(tmp_path):
    write(tmp_path / "a.mp4", scene(3, 72))
    finding = examine(read(tmp_path, frames=81)).finding("short")
    assert finding.faults[0].expected == "81 frames at 16 fps: 5.06 s"


def test_what_only_keeps_what_the_model_knows_may_stand_still(tmp_path):
    write(tmp_path / "a.mp4", scene(3, 1).repeat(60, axis=0))
    video = scene(4, 60)
    video[20:] = video[20]
    write(tmp_path / "b.mp4", video)
    dataset = read(tmp_path)
    assert {"frozen", "still stretch"} <= {each.kind for each in examine(dataset).findings}
    kept = tuple(replace(clip, regularisation=True) for clip in dataset.clips)
    found = {each.kind for each in examine(replace(dataset, clips=kept)).findings}
    assert not found & {"frozen", "still stretch"}


def test_files_of_one_name_are_told_with_their_folders_and_others_without(tmp_path):
    for name in ("x/a.mp4", "x/1/b.mp4", "x/2/b.mp4"):
        write(tmp_path / name, scene(len(name), 60))
    dataset = read(tmp_path / "x")
    assert set(examine(dataset).names) == {"a.mp4", "1/b.mp4", "2/b.mp4"}
    write(tmp_path / "y" / "a.mp4", scene(9, 60))
    both = joined(dataset, read(tmp_path / "y"))
    assert set(examine(both).names) == {"x/a.mp4", "1/b.mp4", "2/b.mp4", "y/a.mp4"}


@pytest.mark.parametrize("one_film", [True, False])
def test_clips_and_a_frame_of_one_film_are_one_witness_of_a_logo(tmp_path, one_film):
    """A camera that stands before a room with a lamp in its corner, under light that changes around it."""
    for number in range(5):
        room = scene(5 if one_film else 5 + number, 1)[0].copy()
        room[34:, :18] = scene(50 + number, 1)[0][34:, :18]
        room[38:45, 3:12] = 250
        room[40:43, 6:9] = 5
        video = standing_camera(room, 2 if one_film else number)
        write(tmp_path / f"{number}.mp4", video)
        Image.fromarray(video[20]).save(tmp_path / f"frame_{number}.png")
    finding = examine(read(tmp_path)).finding("logo")
    assert (finding is None) == one_film
    if finding:
        assert len(finding.faults) == 10 and "else ignore this" in finding.fix


@pytest.mark.parametrize("orientation", [1, 2, 5, 6, 7])
def test_a_photo_is_seen_as_it_is_shown(orientation, tmp_path):
    stored = np.zeros((60, 90, 3), np.uint8)
    stored[:20, :30], stored[40:, 60:] = (250, 20, 20), (20, 20, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as photo:
        shown = np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
    with Film(tmp_path / "photo.png") as film:
        ((_, frame),) = film.frames()
        seen = np.asarray(SeenFrame(frame, VideoReformatter(), film.pixel_aspect).small())
    assert seen.shape[0] / seen.shape[1] == pytest.approx(shown.shape[0] / shown.shape[1], rel=0.02)
    corners = [
        (slice(0, 8), slice(0, 8)),
        (slice(-8, None), slice(0, 8)),
        (slice(0, 8), slice(-8, None)),
    ]
    for place in corners:
        difference = seen[place].mean((0, 1)) - shown[place].mean((0, 1))
        assert np.abs(difference).max() < 20, (orientation, place)
