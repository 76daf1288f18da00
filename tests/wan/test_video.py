"""Clips are never stretched in time: frame k is the source frame nearest to k / fps seconds."""

import itertools
import random
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType
from PIL import Image
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize
from tandem_wan.wan.video import probe, read_clip

RATES = {
    "23.976": Fraction(24000, 1001),
    "24": Fraction(24),
    "25": Fraction(25),
    "29.97": Fraction(30000, 1001),
    "30": Fraction(30),
    "60": Fraction(60),
}
SECONDS = 3


def constant(rate: Fraction, seconds: float = SECONDS) -> list[Fraction]:
    return [Fraction(i) / rate for i in range(round(seconds * rate))]


def variable(seed: int = 0) -> list[Fraction]:
    chances, times = random.Random(seed), [Fraction(0)]
    while times[-1] < SECONDS:
        times.append(times[-1] + Fraction(chances.choice([8, 17, 33, 40, 90, 140]), 1000))
    return times


def decoded_times(path: Path) -> list[float]:
    """When PyAV shows each frame, counted from the first."""
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def read_numbers(path: Path, frames: int, picture_numbers) -> list[int]:
    return picture_numbers(read_clip(path, ClipSize(64, 48, frames), fps=16))


def assert_nearest(numbers: list[int], times: list[float]) -> None:
    for k, number in enumerate(numbers):
        distance = abs(times[number] - k / 16)
        assert distance <= min(abs(time - k / 16) for time in times) + 1e-6, (k, number)


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES.keys())
def test_each_frame_is_within_half_a_source_frame_of_its_moment(
    rate, numbered_clip, picture_numbers
):
    path = numbered_clip(constant(rate))
    times = decoded_times(path)
    numbers = read_numbers(path, 45, picture_numbers)
    assert_nearest(numbers, times)
    for k, number in enumerate(numbers):
        assert abs(times[number] - k / 16) <= 0.5 / rate + 1e-4


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("seed", range(3))
def test_a_variable_rate_is_judged_by_timestamps_and_not_by_counting(
    seed, suffix, numbered_clip, picture_numbers
):
    path = numbered_clip(variable(seed), suffix=suffix)
    times = decoded_times(path)
    gaps = {round(b - a, 3) for a, b in itertools.pairwise(times)}
    assert len(gaps) >= 5, "the file really has a variable rate"
    assert_nearest(read_numbers(path, 45, picture_numbers), times)


def lasting(path: Path) -> float:
    """Seconds from showing the first frame to the end of showing the last, by PyAV's timestamps."""
    with av.open(str(path)) as container:
        frames = [
            (frame.time, frame.duration * frame.time_base) for frame in container.decode(video=0)
        ]
    return frames[-1][0] + float(frames[-1][1]) - frames[0][0]


def assert_lasts_as_before(path: Path) -> None:
    info = probe(path, fps=16, max_frames=None)
    assert info.frames / 16 == pytest.approx(lasting(path), abs=1 / 16)
    assert info.seconds == pytest.approx(lasting(path), abs=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", RATES.values(), ids=RATES.keys())
def test_the_whole_clip_lasts_as_long_as_before(rate, suffix, numbered_clip):
    path = numbered_clip(constant(rate), suffix=suffix)
    assert_lasts_as_before(path)
    info = probe(path, fps=16, max_frames=None)
    assert info.seconds == pytest.approx(SECONDS, abs=float(1 / rate))
    assert info.fps == pytest.approx(float(rate), rel=2e-3)
    assert (info.width, info.height, info.variable) == (64, 48, False)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("seed", range(3))
def test_a_variable_rate_lasts_as_long_as_before_and_is_seen(seed, suffix, numbered_clip):
    path = numbered_clip(variable(seed), suffix=suffix)
    assert_lasts_as_before(path)
    assert probe(path, fps=16, max_frames=None).variable


def test_one_dropped_frame_is_no_variable_rate(numbered_clip):
    times = constant(RATES["30"])
    assert not probe(numbered_clip(times[:40] + times[41:]), fps=16, max_frames=None).variable


def test_a_rate_that_changes_on_the_way_is_variable(numbered_clip):
    times = constant(RATES["30"])
    assert probe(numbered_clip(times[:60] + times[60::2]), fps=16, max_frames=None).variable


def test_a_slow_clip_repeats_frames_and_does_not_run_faster(numbered_clip, picture_numbers):
    path = numbered_clip(constant(Fraction(4)))
    assert read_numbers(path, 45, picture_numbers) == [
        min(range(12), key=lambda n: abs(n / 4 - k / 16)) for k in range(45)
    ]


def test_a_clip_at_16_fps_is_taken_frame_by_frame(numbered_clip, picture_numbers):
    path = numbered_clip(constant(Fraction(16), 5.0625))
    assert read_numbers(path, 81, picture_numbers) == list(range(81))


def test_b_frames_come_in_the_order_of_showing(numbered_clip, picture_numbers):
    options = {"crf": "10", "bf": "3", "b_strategy": "0", "g": "30"}
    path = numbered_clip(constant(RATES["30"]), options=options)
    with av.open(str(path)) as container:
        kinds = [frame.pict_type for frame in container.decode(video=0)]
    assert kinds.count(PictureType.B) > 30, "the file really has B-frames"
    assert_nearest(read_numbers(path, 45, picture_numbers), decoded_times(path))


def test_a_clip_that_starts_late_starts_with_its_first_frame(numbered_clip, picture_numbers):
    late = [time + Fraction(3, 2) for time in constant(RATES["30"])]
    path = numbered_clip(late, suffix=".mkv")
    numbers = read_numbers(path, 41, picture_numbers)
    assert numbers[0] == 0
    assert_nearest(numbers, decoded_times(path))


def test_the_probe_decodes_no_further_than_asked(numbered_clip):
    path = numbered_clip(constant(RATES["30"]))
    info = probe(path, fps=16, max_frames=17)
    assert info.frames == 17
    assert info.seconds == pytest.approx(SECONDS, abs=0.05), "its header says how long it is"


def test_a_clip_that_is_too_short_says_how_long_it_is(numbered_clip):
    path = numbered_clip(constant(RATES["30"], 2))
    with pytest.raises(UserError, match=r"numbered\.mp4 has 32 frames at 16 fps\..*asks for 81"):
        read_clip(path, ClipSize(64, 48, 81), fps=16)


@pytest.mark.parametrize(
    ("suffix", "container_options"),
    [(".mp4", {}), (".mp4", {"movflags": "faststart"}), (".mkv", {})],
    ids=["mp4", "mp4 with its index in front", "mkv"],
)
def test_a_truncated_clip_is_an_error_and_not_a_shorter_clip(
    suffix, container_options, numbered_clip
):
    path = numbered_clip(constant(RATES["30"]), suffix=suffix, container_options=container_options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(UserError) as caught:
        read_clip(path, ClipSize(64, 48, 45), fps=16)
    assert path.name in caught.value.came


@pytest.mark.parametrize("content", [b"", b"not a film", b"\x00" * 5000])
def test_a_file_that_is_no_film_is_named(tmp_path, content):
    path = tmp_path / "junk.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"junk\.mp4 cannot be decoded"):
        probe(path, fps=16, max_frames=1)


def test_a_film_without_picture_is_named(tmp_path):
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes(b"\x00\x00" * 8000)
    path = sound.rename(tmp_path / "sound.mp4")
    with pytest.raises(UserError, match=r"sound\.mp4 cannot be decoded \(it has no picture\)"):
        probe(path, fps=16, max_frames=1)


def test_a_missing_clip_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.mp4"):
        read_clip(tmp_path / "gone.mp4", ClipSize(64, 48, 1), fps=16)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_a_picture_is_one_frame_of_itself(tmp_path, suffix):
    pixels = np.full((48, 64, 3), (200, 100, 50), np.uint8)
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(pixels).save(path)
    assert probe(path, fps=16, max_frames=1)[:3] == (1, 64, 48)
    video = read_clip(path, ClipSize(64, 48, 1), fps=16)
    assert video.shape == (1, 48, 64, 3)
    expected = torch.from_numpy(pixels / 255).float()[None]
    torch.testing.assert_close(video, expected, rtol=0, atol=4 / 255)


@pytest.mark.parametrize(
    ("name", "frames", "rate"),
    [("bikes", 250, 25.0), ("bigbuckbunny", 132, 25.0), ("carphone_pristine", 120, 30000 / 1001)],
)
def test_real_films_last_as_long_as_before(footage, name, frames, rate):
    info = probe(footage / f"{name}.mp4", fps=16, max_frames=10_000)
    assert info.fps == pytest.approx(rate)
    assert info.frames / 16 == pytest.approx(frames / rate, abs=1 / 16)
