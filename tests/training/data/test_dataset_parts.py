"""Parts of files, sizes of other shapes, views and repeats: what becomes of each file of a folder."""

import hashlib
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image
from tandem_wan.training.data import facts as dataset_facts
from tandem_wan.training.data.dataset import ONE_SIZE, DatasetSettings, Skipped
from tandem_wan.training.data.reader import folder_stamp, load_dataset
from tandem_wan.training.data.report import dataset_report
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.video import View, read_clip


def read(folder, **changes):
    given = {"width": 48, "height": 32, "frames": 9, **changes}
    return load_dataset(DatasetSettings(folder=folder, **given))


def picture(path, width=48, height=32, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (colour, 9, 9)).save(path)
    return path


@pytest.fixture(scope="module")
def long(film, tmp_path_factory):
    """Films of 50 and of 7 frames and a picture."""
    folder = tmp_path_factory.mktemp("long")
    film(folder / "a.mp4", frames=50)
    film(folder / "b.mp4", frames=7, seed=1)
    picture(folder / "c.png")
    return folder


@pytest.fixture
def cuts(monkeypatch):
    """Films with cuts at these seconds."""
    times = []
    monkeypatch.setattr(dataset_facts, "cut_times", lambda path: times)
    return times


def windows(dataset):
    return [(clip.name, clip.frames) for clip in dataset.clips]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("head", [("a.mp4", 9), ("b.mp4", 5)]),
        ("middle", [("a.mp4@20", 9), ("b.mp4@1", 5)]),
        ("uniform", [("a.mp4", 9), ("a.mp4@41", 9), ("b.mp4@1", 5)]),
        (
            "overlapping",
            [("a.mp4", 9)]
            + [(f"a.mp4@{n}", 9) for n in (8, 16, 25, 33, 41)]
            + [("b.mp4", 5), ("b.mp4@2", 5)],
        ),
        (
            "scenes",
            [("a.mp4@3", 9), ("a.mp4@16", 5), ("a.mp4@22", 5), ("a.mp4@34", 9), ("b.mp4@1", 5)],
        ),
    ],
)
def test_each_mode_on_films_and_a_picture(long, cuts, mode, expected):
    cuts += [1.0, 22 / 16, 27 / 16]
    dataset = read(long, clip_mode=mode)
    assert windows(dataset) == [*expected, ("c.png", 1)]
    assert {clip.digest for clip in dataset.clips if clip.path.name == "a.mp4"} == {
        hashlib.sha256((long / "a.mp4").read_bytes()).hexdigest()
    }


def test_at_most_so_many_clips_of_a_file(long):
    dataset = read(long, clip_mode="overlapping", clips_per_file=3, media="video")
    assert windows(dataset)[:3] == [("a.mp4", 9), ("a.mp4@21", 9), ("a.mp4@41", 9)]
    assert "Clips of one file: 2 to 3, 2.5 on average" in dataset_report(dataset)


def test_frames_are_counted_at_the_rate_of_the_dataset(film, tmp_path):
    film(tmp_path / "a.mp4", frames=100, fps=50)
    dataset = read(tmp_path, clip_mode="uniform")
    assert windows(dataset) == [("a.mp4", 9), ("a.mp4@23", 9)], "two seconds are 32 frames"


def test_a_film_of_short_shots_is_skipped_with_the_reason(film, tmp_path, cuts):
    film(tmp_path / "a.mp4", frames=12)
    picture(tmp_path / "c.png")
    cuts += [4 / 16, 8 / 16]
    dataset = read(tmp_path, clip_mode="scenes")
    assert windows(dataset) == [("c.png", 1)]
    assert "12 frames at 16 fps, in shots that are all too short" in dataset.skipped[0].reason
    assert "takes clips down to 5" in dataset.skipped[0].reason


def test_a_standing_picture_gets_a_standing_size_or_is_cut_to_the_one_size(tmp_path):
    picture(tmp_path / "a.png", 832, 480)
    picture(tmp_path / "b.png", 1080, 1920)
    kept = read(tmp_path, width=832, height=480)
    assert [clip.size for clip in kept.clips] == [None, (480, 832)]
    assert [kept.clip_size(clip)[:2] for clip in kept.clips] == [(832, 480), (480, 832)]
    assert "2 shapes, width x height x frames: clips\n  832x480x1: 1\n  480x832x1: 1" in (
        dataset_report(kept)
    )
    assert kept.notes == ()
    one = read(tmp_path, width=832, height=480, fit=ONE_SIZE)
    assert [clip.size for clip in one.clips] == [None, None]
    assert "shapes" not in dataset_report(one)
    assert one.notes == ("More than a quarter of the picture is cut off: b.png (68%)",)


def test_what_is_enlarged_is_named(tmp_path):
    picture(tmp_path / "a.png", 320, 240)
    picture(tmp_path / "b.png", 1664, 960)
    dataset = read(tmp_path, width=832, height=480)
    assert dataset.notes == (
        "Smaller than the size they are trained at, so enlarged without new detail: "
        "a.png (320x240 to 736x544)",
    )


def test_flips_and_crops_are_views_of_what_is_cut(tmp_path):
    picture(tmp_path / "a.png", 48, 32)
    picture(tmp_path / "b.png", 96, 32)
    plain, wide = read(tmp_path, crops=2, flips=True, fit=ONE_SIZE).clips
    assert plain.views == (View(0.5), View(0.5, flip=True))
    assert wide.views == (View(0.0), View(1.0), View(0.0, flip=True), View(1.0, flip=True))
    assert {clip.views for clip in read(tmp_path, fit=ONE_SIZE).clips} == {(View(),)}


def test_kohyas_folders_are_read_as_repeats_and_explained(tmp_path):
    for name in ("10_mermaid/a", "2_sea/deep/b", "d", "2024_summer/e", "03_third/f", "2_x/5_y/g"):
        picture(tmp_path / f"{name}.png", colour=len(name))
    dataset = read(tmp_path, repeats=0.5)
    assert {clip.path.stem: clip.repeats for clip in dataset.clips} == {
        "a": 5, "b": 1, "d": 0.5, "e": 0.5, "f": 0.5, "g": 2.5
    }  # fmt: skip
    notes = " / ".join(dataset.notes)
    assert "10_mermaid: kohya's form; each clip in it is shown 10 times an epoch" in notes
    assert "2024" not in notes and "03_" not in notes and "2_x" not in notes
    assert "Repeats are weights: a clip with twice the repeats is seen twice as often" in notes
    assert dataset.counts().shown == 10
    assert "10 shown in an epoch" in dataset_report(dataset)


def test_equal_repeats_change_nothing_and_the_note_says_so(tmp_path):
    folder = tmp_path / "10_mermaid"
    picture(folder / "a.png")
    for root in (tmp_path, folder):
        dataset = read(root)
        assert [clip.repeats for clip in dataset.clips] == [10]
        assert "changes nothing in how often a clip is seen" in dataset.notes[-1]


def test_the_digest_of_a_plain_dataset_is_made_of_content_captions_and_settings_alone(long):
    dataset = read(long, trigger="T")
    lines = ["ClipSize(width=48, height=32, frames=9)", "16.0", "T"]
    for name, frames in (("a.mp4", 9), ("b.mp4", 5), ("c.png", 1)):
        digest = hashlib.sha256((long / name).read_bytes()).hexdigest()
        lines.append(f"{digest} {frames} ")
    assert dataset.digest() == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_digest_changes_with_everything_that_changes_what_is_shown(long):
    variants = [
        {},
        {"clip_mode": "middle"},
        {"clip_mode": "uniform"},
        {"flips": True},
        {"repeats": 2.0},
        {"regularisation": True},
        {"width": 32, "fit": ONE_SIZE},
        {"width": 32, "height": 48},
    ]
    digests = [read(long, **changes).digest() for changes in variants]
    assert len(set(digests)) == len(variants)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip_mode": "tail"}, "clip_mode is 'tail'.*head, middle, uniform"),
        ({"fit": "stretch"}, "fit is 'stretch'.*keep aspect, one size"),
        ({"crops": 4}, "crops is 4.*1, 2, 3"),
        ({"repeats": 0.0}, "repeats is 0.0"),
        ({"repeats": float("nan")}, "repeats is nan"),
        ({"fps": 0.0}, "fps is 0.0"),
        ({"clips_per_file": -1}, "clips_per_file is -1"),
        ({"frames": 8}, "frames is 8"),
    ],
)
def test_settings_that_cannot_be_are_named(long, changes, said):
    with pytest.raises(UserError, match=said):
        read(long, **changes)


def test_the_stamp_knows_the_name_of_every_folder(tmp_path):
    picture(tmp_path / "10_mermaid" / "a.png")
    before = folder_stamp(tmp_path, "auto")
    (tmp_path / "10_mermaid").rename(tmp_path / "20_mermaid")
    assert folder_stamp(tmp_path, "auto") != before


def test_the_report_of_a_thousand_files_is_short(long):
    dataset = read(long)
    clip = dataset.clips[0]
    many = tuple(
        replace(
            clip,
            path=clip.path.with_name(f"{n}.mp4"),
            frames=5,
            size=(16 * (n % 40 + 1), 32),
            repeats=float(n % 7 + 1),
        )
        for n in range(1000)
    )
    skipped = tuple(Skipped(clip.path.with_name(f"s{n}.mp4"), "It is short.") for n in range(100))
    report = dataset_report(replace(dataset, clips=many, skipped=skipped, notes=("x",) * 50))
    assert len(report.splitlines()) < 70
    assert max(map(len, report.splitlines())) < 200
    assert "28 more: 700" in report
    assert "Skipped 80 more files" in report and "30 more notes" in report


def write_shades(path, shades):
    """A lossless film at 16 fps, one shade a frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for value in shades:
            shade = np.full((32, 48, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_shots_of_a_film_with_real_cuts(tmp_path):
    path = write_shades(tmp_path / "a.mkv", [20] * 15 + [220] * 10 + [90] * 20)
    dataset = read(tmp_path, clip_mode="scenes")
    assert windows(dataset) == [("a.mkv@3", 9), ("a.mkv@15", 9), ("a.mkv@30", 9)]
    for clip, shade in zip(dataset.clips, (20, 220, 90), strict=True):
        frames = read_clip(path, dataset.clip_size(clip), fps=16, start=clip.start)
        assert (frames * 255 - shade).abs().max() < 3


def test_colours_of_a_generated_film_are_those_of_its_windows(tmp_path):
    """The windows that are given are read as such: the film's shade tells its frame."""
    path = write_shades(tmp_path / "a.mkv", range(0, 200, 5))
    dataset = read(tmp_path, clip_mode="uniform", clips_per_file=3)
    assert [clip.start for clip in dataset.clips] == [0, 16, 31]
    for clip in dataset.clips:
        frames = read_clip(path, dataset.clip_size(clip), fps=16, start=clip.start)
        shades = frames.mean(dim=(1, 2, 3)) * 51
        assert (shades - np.arange(clip.start, clip.start + 9)).abs().max() < 0.6


@pytest.mark.parametrize("name", ["regularisation", "Regularization"])
def test_a_folder_called_regularisation_is_one(name, film, tmp_path):
    film(tmp_path / "new.mp4")
    film(tmp_path / "sub" / name / "known.mp4", seed=2)
    dataset = load_dataset(DatasetSettings(folder=tmp_path, width=48, height=32, frames=9))
    assert [(c.path.name, c.regularisation) for c in dataset.clips] == [
        ("new.mp4", False),
        ("known.mp4", True),
    ]
    assert dataset.counts()[:] == (1, 2.0, 1.0)
    assert f"{dataset.folder.name} (regularisation): 50%" in dataset_report(dataset)


def test_the_dataset_folder_itself_may_be_called_regularisation(film, tmp_path):
    film(tmp_path / "regularisation" / "a.mp4")
    settings = DatasetSettings(folder=tmp_path / "regularisation", width=48, height=32, frames=9)
    assert not load_dataset(settings).clips[0].regularisation


def test_views_are_in_the_report(film, tmp_path):
    film(tmp_path / "a.mp4")
    settings = DatasetSettings(folder=tmp_path, width=48, height=32, frames=9, flips=True)
    assert "1 of 1 are shown in 2 views in turn" in dataset_report(load_dataset(settings))
