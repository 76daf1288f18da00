"""The doctor on a folder with one of each fault, and on its clean twin. Films of 64x48 pixels and two seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tandem_wan.training.data.dataset import DatasetSettings, Skipped
from tandem_wan.training.data.reader import load_dataset
from tandem_wan.training.doctor import look as clip_look
from tandem_wan.training.doctor.examination import examine
from tandem_wan.wan.errors import UserError

WIDTH, HEIGHT, FRAMES, FPS = 64, 48, 33, 24
CLEAN = 10
LASTS = 56
"""Frames of a film: at 24 fps they cover 33 frames at 16 fps."""
TIME_BASE = Fraction(1, 90_000)


def scene(seed: int, frames: int = LASTS, size=(WIDTH, HEIGHT), speed: int = 1) -> np.ndarray:
    """(frames, height, width, 3) uint8: a cloudy ground over which the camera goes, another for each seed."""
    width, height = size
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(40, 216, (7, 12, 3), dtype=np.uint8))
    way = frames * speed
    ground = np.asarray(cells.resize((width + way, height), Image.Resampling.BICUBIC))
    return np.stack([ground[:, at * speed : at * speed + width] for at in range(frames)])


def write(path: Path, video: np.ndarray, *, fps: float = FPS, times: list | None = None, crf=14):
    path.parent.mkdir(parents=True, exist_ok=True)
    times = times or [Fraction(at) / Fraction(fps) for at in range(len(video))]
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TIME_BASE
        stream.codec_context.thread_count = 1
        for time, picture in zip(times, video, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.with_suffix(".txt").write_text("A cloud drifts by.\n", encoding="utf-8")
    return path


def slower(folder: Path) -> None:
    write(folder / "slower.mp4", scene(20, 24), fps=10)


def doubled(folder: Path) -> None:
    """Eight frames a second, stored as 24."""
    write(folder / "doubled.mp4", scene(21, LASTS // 3 + 1, speed=3).repeat(3, axis=0))


def uneven(folder: Path) -> None:
    steps = np.where(np.arange(LASTS) % 3 == 2, 60, 33)
    times = [Fraction(int(ms), 1000) for ms in steps.cumsum()]
    write(folder / "uneven.mp4", scene(22), times=times)


def sparse(folder: Path) -> None:
    write(folder / "sparse.mp4", scene(23, 48), fps=20)


def too_short(folder: Path) -> None:
    write(folder / "too_short.mp4", scene(24, 12))


def shorter(folder: Path) -> None:
    write(folder / "shorter.mp4", scene(25, 40))


def unreadable(folder: Path) -> None:
    (folder / "unreadable.mp4").write_bytes(b"no film" * 100)


def copied(folder: Path) -> None:
    shutil.copy(folder / "clean_0.mp4", folder / "copied.mp4")
    shutil.copy(folder / "clean_0.txt", folder / "copied.txt")


def resembling(folder: Path) -> None:
    """The same film, coded again with more loss, and two frames later."""
    write(folder / "resembling.mp4", scene(1, LASTS + 2)[2:], crf=30)


def frozen(folder: Path) -> None:
    write(folder / "frozen.mp4", scene(26)[:1].repeat(LASTS, axis=0))


def standing(folder: Path) -> None:
    """It moves in its first 0.8 seconds."""
    video = scene(27)
    video[20:] = video[20]
    write(folder / "standing.mp4", video)


def black(folder: Path) -> None:
    grain = np.random.default_rng(0).integers(0, 9, (LASTS, HEIGHT, WIDTH, 3), dtype=np.uint8)
    write(folder / "black.mp4", grain)


def one_colour(folder: Path) -> None:
    write(folder / "one_colour.mp4", np.full((LASTS, HEIGHT, WIDTH, 3), 170, np.uint8))


def faded(folder: Path) -> None:
    light = np.clip(np.linspace(2.2, -0.2, LASTS - 8), 0, 1)
    light = np.concatenate([light, np.zeros(8)])
    write(folder / "faded.mp4", (scene(28) * light[:, None, None, None]).astype(np.uint8))


def cut(folder: Path) -> None:
    write(folder / "cut.mp4", np.concatenate([scene(29)[:24], scene(30)[24:]]))


def barred(folder: Path) -> None:
    video = scene(31)
    video[:, :5] = video[:, -5:] = 0
    write(folder / "barred.mp4", video)


def marked(folder: Path) -> None:
    video = scene(32)
    video[:, 3:9, 52:61] = 250
    video[:, 4:8, 55:58] = 5
    write(folder / "marked.mp4", video)


def small(folder: Path) -> None:
    write(folder / "small.mp4", scene(33, size=(32, 24)))


def wide(folder: Path) -> None:
    write(folder / "wide.mp4", scene(34, size=(160, 48)))


def silent(folder: Path) -> None:
    write(folder / "silent.mp4", scene(35)).with_suffix(".txt").unlink()


def picture(folder: Path) -> None:
    Image.fromarray(scene(36)[0]).save(folder / "picture.png")
    (folder / "picture.txt").write_text("A cloud.\n", encoding="utf-8")


FAULTS: dict[Callable[[Path], None], tuple[str, str, str]] = {
    unreadable: (
        "unreadable",
        "unreadable.mp4",
        "cannot be decoded (Invalid data found when processing input)",
    ),
    too_short: ("too short", "too_short.mp4", "gives 8 frames at 16 fps"),
    shorter: ("short", "shorter.mp4", "25 frames"),
    slower: ("rate too low", "slower.mp4", "10 fps"),
    doubled: ("rate too low", "doubled.mp4", "fps (24 with repeated"),
    sparse: ("source rate", "sparse.mp4", "20 fps"),
    uneven: ("variable rate", "uneven.mp4", "of the intervals"),
    copied: ("duplicate", "copied.mp4", "the same file as clean_0.mp4"),
    resembling: ("near duplicate", "resembling.mp4", "looks like clean_1.mp4"),
    frozen: ("frozen", "frozen.mp4", "nothing moves"),
    standing: ("still stretch", "standing.mp4", "stands for 1."),
    black: ("blank", "black.mp4", "black"),
    one_colour: ("blank", "one_colour.mp4", "one colour"),
    faded: ("blank frames", "faded.mp4", "at the end"),
    cut: ("scene cut", "cut.mp4", "cut at 1.00 s"),
    barred: ("bars", "barred.mp4", "top 5 px, bottom 5 px"),
    marked: ("logo", "marked.mp4", "upper right corner"),
    small: ("enlarged", "small.mp4", "32x24"),
    wide: ("cut off", "wide.mp4", "160x48 at 64x48 loses 60%"),
    silent: ("caption missing", "silent.mp4", "no caption"),
    picture: ("pictures among clips", "picture.png", "a picture"),
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for number in range(CLEAN):
        write(folder / f"clean_{number}.mp4", scene(number))
    return folder


@pytest.fixture(scope="module")
def faulty(clean, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faulty") / "films"
    shutil.copytree(clean, folder)
    for fault in FAULTS:
        fault(folder)
    return folder


@pytest.fixture(scope="module")
def faulty_report(faulty):
    return examine(read(faulty))


def read(folder: Path):
    settings = DatasetSettings(
        folder=folder, width=WIDTH, height=HEIGHT, frames=FRAMES, fit="one size"
    )
    return load_dataset(settings)


def found(report) -> dict[str, list[str]]:
    return {each.kind: sorted(fault.name for fault in each.faults) for each in report.findings}


def test_nothing_is_wrong_with_the_clean_twin(clean):
    report = examine(read(clean))
    assert found(report) == {}
    assert (report.verdict, report.score) == ("good", 100)
    assert "nothing is wrong" in report.text()


def test_in_a_folder_with_one_of_each_fault_exactly_those_are_found(faulty_report):
    expected: dict[str, list[str]] = {}
    for kind, name, _ in FAULTS.values():
        expected.setdefault(kind, []).append(name)
    assert found(faulty_report) == {kind: sorted(names) for kind, names in expected.items()}
    assert (faulty_report.verdict, faulty_report.score) == ("bad", 0)


def test_each_finding_says_what_it_found_what_should_be_and_what_to_do(faulty_report):
    text = faulty_report.text()
    for kind, name, value in FAULTS.values():
        finding = faulty_report.finding(kind)
        (fault,) = (fault for fault in finding.faults if fault.name == name)
        assert value in fault.value
        assert fault.expected and finding.fix
        assert f"{name}: {fault.value}" in text and f"-> {finding.fix}" in text
        assert fault.expected in text


def test_five_hundred_faults_of_a_kind_are_one_line_and_all_in_the_data(faulty_report):
    from tandem_wan.training.doctor.findings import Fault, Finding

    faults = tuple(Fault(f"{n}.mp4", "black", "a picture", n) for n in range(500))
    finding = Finding(kind="blank", verdict="bad", faults=faults, fix="Take it out")
    text = finding.text()
    assert "500x" in text and "and 497 more" in text and len(text) < 200


def test_every_file_is_opened_once_however_many_clips_are_cut_from_it(clean, monkeypatch):
    from dataclasses import replace

    opened: list[Path] = []
    film = clip_look.Film

    def counting(path: Path):
        opened.append(path)
        return film(path)

    monkeypatch.setattr(clip_look, "Film", counting)
    dataset = read(clean)
    windows = [replace(c, frames=17, start=s) for c in dataset.clips for s in (0, 16)]
    seen: list[tuple[int, int]] = []
    report = examine(replace(dataset, clips=tuple(windows)), on_file=lambda *n: seen.append(n))
    assert len(report.looks) == 2 * CLEAN and None not in report.looks
    assert sorted(opened) == sorted(clip.path for clip in dataset.clips)
    assert seen == [(n, CLEAN) for n in range(1, CLEAN + 1)]


def test_a_clip_is_judged_by_its_own_part_of_the_file(tmp_path):
    video = np.concatenate([scene(40)[:30], scene(41), scene(42, 48)[:1].repeat(48, axis=0)])
    path = write(tmp_path / "three_parts.mp4", video)
    spans = [clip_look.Span(0, 26 / 24), clip_look.Span(0.5, 2), clip_look.Span(90 / 24, 120 / 24)]
    moving, across, standing = clip_look.look_at_file(path, spans)
    assert moving.cuts_s == () and moving.still_s == 0
    assert across.cuts_s == pytest.approx((30 / 24 - 0.5,), abs=0.01)
    assert standing.cuts_s == () and standing.still_s == pytest.approx(30 / 24, abs=0.05)


def test_a_mark_that_many_films_share_is_found_even_if_their_cameras_stand(tmp_path):
    """Each film alone could be of a room with a lamp in the corner."""
    for number in range(6):
        video = standing_camera(scene(number)[0], number)
        if number < 5:
            video[:, 38:45, 3:12] = 250
            video[:, 40:43, 6:9] = 5
        write(tmp_path / f"{number}.mp4", video)
    finding = examine(read(tmp_path)).finding("logo")
    assert [fault.name for fault in finding.faults] == [f"{n}.mp4" for n in range(5)]
    assert "lower left" in finding.faults[0].value


def test_a_room_that_many_films_share_is_no_mark(tmp_path):
    room = np.kron(np.random.default_rng(0).integers(40, 216, (12, 16, 1)), np.ones((4, 4, 3)))
    for number in range(6):
        write(tmp_path / f"{number}.mp4", standing_camera(room.astype(np.uint8), number))
    assert examine(read(tmp_path)).finding("logo") is None


def standing_camera(ground: np.ndarray, number: int) -> np.ndarray:
    """Something crosses the middle, in another row in each film."""
    video = ground[None].repeat(LASTS, axis=0)
    for at in range(LASTS):
        video[at, 16 + number : 26 + number, 10 + at // 2 : 20 + at // 2] = (
            255 - ground[20:30, 2:12]
        )
    return video


def test_bars_that_the_crop_takes_away_are_no_fault(tmp_path):
    video = scene(50, size=(80, 48))
    video[:, :, :8] = video[:, :, -8:] = 0
    write(tmp_path / "cropped.mp4", video)
    assert examine(read(tmp_path)).finding("bars") is None


def test_a_file_that_broke_after_it_was_read_is_unreadable_and_the_rest_is_examined(
    clean, tmp_path
):
    shutil.copytree(clean, tmp_path / "films")
    dataset = read(tmp_path / "films")
    (tmp_path / "films" / "clean_3.mp4").write_bytes(b"gone")
    report = examine(dataset)
    assert found(report) == {"unreadable": ["clean_3.mp4"]}
    assert report.looks[3] is None


def test_a_file_that_is_good_but_not_used_keeps_the_readers_reason(clean):
    from dataclasses import replace

    dataset = read(clean)
    path = dataset.clips[0].path
    skipped = replace(dataset, clips=dataset.clips[1:], skipped=(Skipped(path, "No slot left."),))
    finding = examine(replace(skipped, clips=skipped.clips * 2)).finding("not used")
    assert [(f.name, f.value) for f in finding.faults] == [("clean_0.mp4", "No slot left.")]


def test_another_preset_is_refused(clean):
    with pytest.raises(UserError, match="preset is 'dance'"):
        examine(read(clean), preset="dance")
