"""The doctor on times: films whose frames stand for long, films that end early, and many parts of one film."""

from __future__ import annotations

import weakref
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tandem_wan.training.data.dataset import Dataset, DatasetSettings, Skipped
from tandem_wan.training.data.join import joined
from tandem_wan.training.data.reader import load_dataset
from tandem_wan.training.doctor import look as clip_look
from tandem_wan.training.doctor.examination import examine
from tandem_wan.training.doctor.look import ClipLook, Span, look_at_file
from tandem_wan.wan.errors import UserError

MS = Fraction(1, 1000)
NOT_UTF8 = b"\xff\xfe bad"


def film(path: Path, frames: int = 40, *, fps: float = 16, seed: int = 0, times=None) -> Path:
    """64x48: a pattern of squares that goes by. `times` are in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(30, 226, (6, 8, 3), dtype=np.uint8)
    ground = cells.repeat(8, axis=0).repeat(8, axis=1)
    times = times or [round(1000 * at / fps) for at in range(frames)]
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"g": "16"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base, stream.codec_context.thread_count = MS, 1
        for at, time in enumerate(times):
            picture = np.ascontiguousarray(np.roll(ground, 3 * at, 1))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, MS
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.with_suffix(".txt").write_text("Squares.", encoding="utf-8")
    return path


def read(folder: Path, **settings) -> Dataset:
    chosen = {"width": 64, "height": 48, "frames": 17, **settings}
    return load_dataset(DatasetSettings(folder=folder, **chosen))


def kinds(report) -> set[str]:
    return {finding.kind for finding in report.findings} - {"too few"}


def noted(report, kind: str) -> list[str]:
    finding = report.finding(kind)
    return [fault.name for fault in finding.faults] if finding else []


@pytest.fixture(scope="module")
def pausing(tmp_path_factory) -> Path:
    """30 frames a second, but the frame at 0.97 s stands until 6 s."""
    steps = [round(at * 1000 / 30) for at in range(30)]
    later = [6000 + round(at * 1000 / 30) for at in range(60)]
    return film(tmp_path_factory.mktemp("pausing") / "a.mkv", times=steps + later)


@pytest.mark.parametrize("mode", ["head", "middle", "uniform", "overlapping"])
def test_a_film_in_which_a_frame_stands_is_readable_and_its_rate_is_that_of_its_motion(
    pausing, mode
):
    dataset = read(pausing.parent, clip_mode=mode)
    report = examine(dataset)
    assert None not in report.looks
    assert kinds(report) <= {"frozen", "still stretch", "near duplicate"}
    moving = [look for look in report.looks if look.frames > 9]
    assert all(look.fps == pytest.approx(30, rel=0.01) for look in moving)


def test_a_part_within_the_time_in_which_a_frame_stands_shows_that_frame_alone(pausing):
    before, within, across = look_at_file(pausing, [Span(0, 1), Span(2, 3), Span(0.5, 6.5)])
    assert (within.frames, within.still_s) == (1, pytest.approx(1.0))
    assert np.array_equal(within.tints[0], before.tints[-1])
    # The frame before the pause is the nearest up to its middle, then the one after it.
    assert across.still_s == pytest.approx((6 - 29 / 30) / 2, abs=0.01)
    assert noted(examine(read(pausing.parent, clip_mode="middle")), "frozen") == ["a.mkv@56"]


def test_the_frames_of_a_part_are_those_that_training_reads(pausing):
    """Against the rule of reading, frame by frame: the nearest to k / fps seconds."""
    from tandem_wan.wan.film import Film, nearest_frames

    spans = [(start, 17) for start in (0, 7, 40, 60, 88, 100)]
    looks = look_at_file(pausing, [Span(s / 16, (s + n - 1) / 16) for s, n in spans])
    for (start, frames), look in zip(spans, looks, strict=True):
        with Film(pausing) as opened:
            times = [time for time, _ in opened.frames()]
        with Film(pausing) as opened:
            read_frames = list(nearest_frames(opened, opened.frames(), fps=16))
        shown = read_frames[start : start + frames]
        first, last = shown[0].time, shown[-1].time
        assert look.frames == sum(first - 1e-6 <= t <= last + 1e-6 for t in times)


def test_a_film_at_whose_end_a_part_begins_too_late_keeps_its_other_parts(tmp_path):
    path = film(tmp_path / "a.mp4")
    first, beyond, second = look_at_file(path, [Span(0, 1), Span(9, 10), Span(1, 2)])
    assert isinstance(first, ClipLook) and isinstance(second, ClipLook)
    assert isinstance(beyond, UserError) and "ends before" in str(beyond)


def test_what_is_damaged_behind_a_part_does_not_take_it(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 96)
    dataset = read(tmp_path, clip_mode="uniform", clips_per_file=3)
    decode = clip_look.Film.frames

    def breaking(self, start_s=0.0):
        for time, frame in decode(self, start_s):
            if time > 4:
                raise UserError("a.mp4 cannot be decoded (a frame is damaged).", "Films.", "Go.")
            yield time, frame

    monkeypatch.setattr(clip_look.Film, "frames", breaking)
    report = examine(dataset)
    assert noted(report, "unreadable") == [f"a.mp4@{dataset.clips[-1].start}"]
    assert [look is None for look in report.looks] == [False, False, True]
    assert path.name not in {unused.name for unused in report.unused}


def test_two_hundred_parts_of_a_film_hold_no_more_frames_than_one(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 1000)
    alive: dict[str, weakref.WeakSet] = {"SeenFrame": weakref.WeakSet(), "Watch": weakref.WeakSet()}
    most = dict.fromkeys(alive, 0)

    def counted(name: str, kind: type) -> type:
        class Counted(kind):
            def __init__(self, *args):
                super().__init__(*args)
                alive[name].add(self)
                most[name] = max(most[name], len(alive[name]))

        return Counted

    monkeypatch.setattr(clip_look, "SeenFrame", counted("SeenFrame", clip_look.SeenFrame))
    monkeypatch.setattr(clip_look, "Watch", counted("Watch", clip_look.Watch))
    # Most of them one frame long, which is measured faster.
    frames = [1 if at % 8 else 5 for at in range(200)]
    spans = [Span(5 * at / 16, (5 * at + n - 1) / 16) for at, n in enumerate(frames)]
    assert [look.frames for look in look_at_file(path, spans)] == frames
    assert most["SeenFrame"] <= 3 and most["Watch"] <= 2


def test_the_order_of_parts_does_not_matter(tmp_path):
    path = film(tmp_path / "a.mp4", 80)
    spans = [Span(2, 3), Span(0, 4), Span(3, 4), Span(0, 1)]
    for span, look in zip(spans, look_at_file(path, spans), strict=True):
        (alone,) = look_at_file(path, [span])
        assert look.strip == alone.strip and look.frames == alone.frames


def test_a_film_that_ends_long_before_its_header_says_is_named_when_all_of_it_was_read(tmp_path):
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(1).integers(0, 255, (160, 48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=16, options={"g": "16"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in noise:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.with_suffix(".txt").write_text("Noise.")
    whole = examine(read(tmp_path, clip_mode="overlapping"))
    assert whole.finding("truncated") is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    (known,) = examine(read(tmp_path)).finding("truncated").faults
    head, parts = (
        replace(read(tmp_path, clip_mode=m), cut_off=()) for m in ("head", "overlapping")
    )
    assert examine(head).finding("truncated") is None, "its end was not looked at"
    (fault,) = examine(parts).finding("truncated").faults
    assert known.name == fault.name
    assert fault.name == "a.mp4" and fault.clip == 0
    assert (
        fault.value.startswith("ends after 5.") and fault.expected == "10.0 s, as its header says"
    )


def test_a_file_that_is_not_used_keeps_its_kind_and_its_reason(tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "brief.mp4", 14, seed=1).with_suffix(".txt").write_bytes(NOT_UTF8)
    film(tmp_path / "briefer.mp4", 4, seed=2)
    dataset = read(tmp_path)
    report = examine(dataset)
    (not_used,), (short,) = (report.finding(k).faults for k in ("not used", "too short"))
    assert not_used.name == "brief.mp4" and "UTF-8" in not_used.value
    assert short.name == "briefer.mp4" and short.value.startswith("gives ")
    assert short.expected == "The dataset asks for 17 (1.06 s) and takes clips down to 9"
    # Nothing but the kind decides, even where the file could be read by now.
    path = dataset.clips[0].path
    broken = Skipped(
        path, f"{path.name} cannot be decoded (no data: '{path}'). Films. Go.", "unreadable"
    )
    (fault,) = examine(replace(dataset, skipped=(broken,))).finding("unreadable").faults
    assert fault[:2] == ("a.mp4", "cannot be decoded (no data)")


def test_in_joined_datasets_each_is_judged_by_the_frames_that_it_asked_for(tmp_path):
    film(tmp_path / "long" / "a.mp4", 100)
    film(tmp_path / "brief" / "b.mp4", 40, seed=1)
    film(tmp_path / "brief" / "c.mp4", 24, seed=2).with_suffix(".txt").write_bytes(NOT_UTF8)
    brief = read(tmp_path / "brief", frames=17, fps=8)
    report = examine(joined(read(tmp_path / "long", frames=81), brief))
    assert noted(report, "not used") == ["c.mp4"]
    assert report.finding("short") is None and report.finding("too short") is None


@pytest.mark.parametrize(
    ("frames", "asked", "short"), [(80, 81, 0), (60, 81, 1), (24, 25, 0), (19, 25, 1)]
)
def test_a_clip_is_short_when_much_is_missing(tmp_path, frames, asked, short):
    """80 frames give 77 of 81, and 24 give 21 of 25: within a cell of the latent grid."""
    film(tmp_path / "a.mp4", frames)
    assert len(noted(examine(read(tmp_path, frames=asked)), "short")) == short


def test_a_folder_that_is_chained_twice_is_duplicates(tmp_path):
    for number in range(3):
        film(tmp_path / f"{number}.mp4", seed=number)
    dataset = read(tmp_path)
    names = ["0.mp4", "1.mp4", "2.mp4"]
    assert noted(examine(joined(dataset, dataset)), "duplicate") == names
    other_rate = joined(dataset, read(tmp_path, frames=9, fps=8))
    assert noted(examine(other_rate), "duplicate") == []
    parts = read(tmp_path, frames=9, clip_mode="overlapping")
    assert noted(examine(parts), "duplicate") == []


def test_advice_on_length_is_of_the_files_and_not_of_the_windows(tmp_path):
    film(tmp_path / "a.mp4", 8 * 16)
    assert not any("5-10 s" in said for said in examine(read(tmp_path)).advice)
    film(tmp_path / "b.mp4", 3 * 16, seed=1)
    parts = examine(read(tmp_path, clip_mode="uniform", clips_per_file=3))
    (said,) = (said for said in parts.advice if "5-10 s" in said)
    assert said.startswith("1 of 2 films lasts under 5 s (median 3.0 s)")


@pytest.mark.parametrize(
    ("source", "asked", "told"), [(20, 16, 1), (20, 10, 0), (16, 8, 0), (24, 16, 0), (23, 8, 1)]
)
def test_a_source_of_fewer_than_24_fps_is_told_unless_its_rate_is_a_multiple(
    tmp_path, source, asked, told
):
    film(tmp_path / "a.mp4", 4 * source, fps=source)
    report = examine(read(tmp_path, fps=asked))
    assert len(noted(report, "source rate")) == told
    if told:
        assert "fewer than the advised 24 fps" in report.finding("source rate").fix


def test_a_name_of_several_lines_is_told_in_one(tmp_path):
    film(tmp_path / "a\nb\x07.mp4", seed=3)
    report = examine(read(tmp_path))
    assert report.names == ("a b .mp4",)
