"""A clip that begins within a film has the frames that decoding from the film's beginning gives."""

import itertools
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from tandem_wan.wan import film as films
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.film import Film
from tandem_wan.wan.shapes import ClipSize
from tandem_wan.wan.video import read_clip

SIZE = ClipSize(64, 48, 9)
SECONDS = 6
X264 = {
    "closed groups": {"crf": "10", "g": "40", "bf": "3", "b_strategy": "0"},
    "open groups": {"crf": "10", "g": "40", "bf": "3", "x264-params": "open-gop=1:scenecut=0"},
    "no key frames but the first": {"crf": "10", "g": "1000", "bf": "2", "sc_threshold": "0"},
    "refreshed bit by bit": {"crf": "10", "g": "40", "x264-params": "intra-refresh=1"},
}


def constant(rate: int) -> list[Fraction]:
    return [Fraction(i, rate) for i in range(SECONDS * rate)]


def variable(seed: int = 0) -> list[Fraction]:
    chances, times = random.Random(seed), [Fraction(0)]
    while times[-1] < SECONDS:
        times.append(times[-1] + Fraction(chances.choice([17, 33, 40, 90, 140]), 1000))
    return times


def moving(number: int) -> np.ndarray:
    """A field of noise that moves by 3 pixels a frame, so that frames are made from each other."""
    noise = np.random.default_rng(7).integers(0, 256, (48, 128, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.roll(noise, 3 * number, axis=1)[:, :64] // 2 + number % 100)


def write(path: Path, times: list[Fraction], codec: str, options: dict[str, str]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        tick = Fraction(1, 30) if codec == "mpeg4" else Fraction(1, 90_000)
        stream.codec_context.time_base = tick
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(moving(number), format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def assert_starts_anywhere(path: Path, starts: range = range(0, 70, 3)) -> None:
    whole = read_clip(path, ClipSize(64, 48, 85), fps=16)
    assert sum(torch.equal(a, b) for a, b in itertools.pairwise(whole)) < 42, "the film moves"
    for start in starts:
        part = read_clip(path, SIZE, fps=16, start=start)
        assert torch.equal(part, whole[start : start + 9]), start


def seeks(path: Path, start_s: float) -> bool:
    with Film(path) as film:
        return film._frames_after_seek(start_s) is not None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("options", X264.values(), ids=X264.keys())
def test_h264(tmp_path, options, suffix):
    path = write(tmp_path / f"film{suffix}", constant(30), "libx264", options)
    assert_starts_anywhere(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate(tmp_path, suffix):
    options = X264["closed groups"]
    assert_starts_anywhere(write(tmp_path / f"film{suffix}", variable(), "libx264", options))


def test_a_film_that_starts_late(tmp_path):
    times = [time + Fraction(3, 2) for time in constant(30)]
    path = write(tmp_path / "film.mkv", times, "libx264", X264["closed groups"])
    assert_starts_anywhere(path)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx265", ".mp4"), ("libvpx-vp9", ".webm"), ("mpeg4", ".avi")]
)
def test_other_codecs(tmp_path, codec, suffix):
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")
    options = {"g": "40", "preset": "ultrafast", "cpu-used": "8", "deadline": "realtime"}
    options |= {"x265-params": "log-level=none:open-gop=1"} if codec == "libx265" else {}
    times = [Fraction(i, 30) for i in range(SECONDS * 30)]
    assert_starts_anywhere(
        write(tmp_path / f"film{suffix}", times, codec, options), range(0, 70, 9)
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_way_there_is_skipped(tmp_path, suffix, monkeypatch):
    path = write(tmp_path / f"film{suffix}", constant(30), "libx264", X264["closed groups"])
    decoded = []
    original = Film._decoded

    def counted(self):
        for frame in original(self):
            decoded.append(frame.time)
            yield frame

    monkeypatch.setattr(films.Film, "_decoded", counted)
    read_clip(path, SIZE, fps=16, start=70)
    assert len(decoded) < 80, "the clip begins at frame 131 of the film"


def test_a_file_without_times_is_decoded_from_its_beginning(tmp_path):
    avi = write(tmp_path / "film.avi", constant(30), "mpeg4", {"g": "10"})
    mp4 = write(tmp_path / "film.mp4", constant(30), "libx264", X264["closed groups"])
    assert not seeks(avi, 4)
    assert seeks(mp4, 4)


def test_what_is_left_after_the_start_is_counted(tmp_path):
    path = write(tmp_path / "film.mp4", constant(30), "libx264", X264["closed groups"])
    with pytest.raises(UserError, match=r"film\.mp4 has 6 frames at 16 fps from frame 90 on"):
        read_clip(path, SIZE, fps=16, start=90)
    with pytest.raises(UserError, match=r"has 0 frames at 16 fps from frame 900 on"):
        read_clip(path, SIZE, fps=16, start=900)


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny", "carphone_pristine"])
def test_real_films(footage, name):
    whole = read_clip(footage / f"{name}.mp4", ClipSize(64, 48, 61), fps=16)
    for start in (1, 17, 30, 52):
        part = read_clip(footage / f"{name}.mp4", SIZE, fps=16, start=start)
        assert torch.equal(part, whole[start : start + 9])
