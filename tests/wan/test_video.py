"""Clips are never stretched in time: frame k is the source frame nearest to k / fps seconds."""

import itertools
import random
import struct
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
from tandem_wan.wan.video import fit_frames, probe, read_clip

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


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES.keys())
def test_the_whole_clip_lasts_as_long_as_before(rate, numbered_clip):
    times = constant(rate)
    info = probe(numbered_clip(times), fps=16, max_frames=10_000)
    assert abs(info.frames / 16 - len(times) / rate) <= 1 / 16
    assert info.fps == pytest.approx(float(rate), rel=1e-3)
    assert (info.width, info.height) == (64, 48)


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
    assert probe(path, fps=16, max_frames=17).frames == 17


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


@pytest.mark.parametrize("source", [(640, 272), (272, 640), (333, 333), (64, 48)])
@pytest.mark.parametrize("target", [(96, 64), (64, 96), (80, 80)])
def test_the_aspect_is_kept_and_the_middle_is_cut_out(source, target):
    pictures = torch.zeros(1, source[1], source[0], 3, dtype=torch.uint8)
    pictures[..., 0] = ((torch.arange(source[0]) + 0.5) / source[0] * 255).round()
    pictures[..., 1] = ((torch.arange(source[1]) + 0.5) / source[1] * 255).round()[:, None]
    video = fit_frames(pictures, ClipSize(*target, 1))[0]
    assert video.shape == (target[1], target[0], 3)
    red, green = video[target[1] // 2, :, 0], video[:, target[0] // 2, 1]
    inner = slice(len(red) // 4, -(len(red) // 4)), slice(len(green) // 4, -(len(green) // 4))
    # Source pixels for each pixel of the result, to the right and downwards.
    across = red[inner[0]].diff().mean() * source[0]
    down = green[inner[1]].diff().mean() * source[1]
    assert across.item() == pytest.approx(down.item(), rel=0.06)
    assert across.item() == pytest.approx(
        min(source[0] / target[0], source[1] / target[1]), rel=0.06
    ), "the picture covers the clip and no more"
    assert red.mean().item() == pytest.approx(0.5, abs=0.02)
    assert green.mean().item() == pytest.approx(0.5, abs=0.02)


def spans(video: torch.Tensor) -> tuple[int, int]:
    """Width and height of the white field in the first frame."""
    white = video[0, :, :, 0] > 0.5
    return int(white.any(dim=0).sum()), int(white.any(dim=1).sum())


def write_field(path: Path, field: tuple[int, int], pixel_aspect: Fraction = Fraction(1)) -> Path:
    """A film of 64x48 stored pixels with a white field of `field` stored pixels in its middle."""
    picture = np.zeros((48, 64, 3), np.uint8)
    left, top = (64 - field[0]) // 2, (48 - field[1]) // 2
    picture[top : top + field[1], left : left + field[0]] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.sample_aspect_ratio = pixel_aspect
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_pixels_that_are_not_square_are_made_square(tmp_path):
    path = write_field(tmp_path / "wide.mp4", (16, 32), Fraction(2))
    assert probe(path, fps=16, max_frames=1)[:3] == (1, 128, 48)
    width, height = spans(read_clip(path, ClipSize(128, 48, 1), fps=16))
    assert width == pytest.approx(height, abs=2)


def test_a_film_of_a_phone_held_upright_stands_upright(tmp_path):
    path = write_field(tmp_path / "phone.mp4", (40, 10))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    one = 1 << 16
    # ISO/IEC 14496-12, 8.3.2: turned by a quarter to the right when shown.
    content[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert probe(path, fps=16, max_frames=1)[:3] == (1, 48, 64)
    width, height = spans(read_clip(path, ClipSize(48, 64, 1), fps=16))
    assert (width, height) == pytest.approx((10, 40), abs=2)


def test_a_photo_of_a_phone_stands_the_way_it_was_taken(tmp_path):
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:, :32] = 255
    photo, exif = Image.fromarray(stored), Image.Exif()
    # Orientation 6: the left side of what is stored is the top of the photo.
    exif[0x0112] = 6
    photo.save(tmp_path / "photo.jpg", exif=exif)
    video = read_clip(tmp_path / "photo.jpg", ClipSize(48, 64, 1), fps=16)
    assert video[0, :28].min() > 0.9
    assert video[0, 36:].max() < 0.1


def slow_read(path: Path, frames: int) -> torch.Tensor:
    """Decodes well past the end, then searches the nearest frame of each moment."""
    shown = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            shown.append((frame.time, torch.from_numpy(frame.to_ndarray(format="rgb24"))))
            if frame.time - shown[0][0] > frames / 16 + 0.5:
                break
    start = shown[0][0]
    return torch.stack(
        [min(shown, key=lambda f: abs(f[0] - start - k / 16))[1] for k in range(frames)]
    )


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny"])
def test_real_films_give_the_frames_that_a_slow_search_finds(footage, name):
    path, size = footage / f"{name}.mp4", ClipSize(64, 48, 9)
    assert torch.equal(read_clip(path, size, fps=16), fit_frames(slow_read(path, 9), size))


def test_a_real_film_with_wide_pixels_is_read_in_its_shown_shape(footage):
    path, size = footage / "carphone_pristine.mp4", ClipSize(64, 48, 17)
    # 176 x 144 pixels, each 128/117 as wide as high.
    shown = torch.nn.functional.interpolate(
        slow_read(path, 17).permute(0, 3, 1, 2).float(), (144, 193), mode="bilinear"
    )
    expected = fit_frames(shown.round().byte().permute(0, 2, 3, 1), size)
    assert (read_clip(path, size, fps=16) - expected).abs().mean() < 0.005


@pytest.mark.parametrize(
    ("name", "frames", "rate"),
    [("bikes", 250, 25.0), ("bigbuckbunny", 132, 25.0), ("carphone_pristine", 120, 30000 / 1001)],
)
def test_real_films_last_as_long_as_before(footage, name, frames, rate):
    info = probe(footage / f"{name}.mp4", fps=16, max_frames=10_000)
    assert info.fps == pytest.approx(rate)
    assert info.frames / 16 == pytest.approx(frames / rate, abs=1 / 16)


def test_a_picture_of_the_right_size_passes_through_unchanged():
    pictures = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    video = fit_frames(pictures, ClipSize(64, 48, 2))
    torch.testing.assert_close(video, pictures.float() / 255, rtol=0, atol=1e-5)


def test_detail_finer_than_the_clip_becomes_its_mean_and_no_moire():
    checks = (torch.arange(96)[:, None] + torch.arange(96)) % 2 * 255
    pictures = checks.to(torch.uint8)[None, :, :, None].expand(1, 96, 96, 3)
    video = fit_frames(pictures, ClipSize(32, 32, 1))
    assert (video[0, 2:-2, 2:-2] - 0.5).abs().max() < 0.05


def test_scaling_never_leaves_the_range_of_colours():
    checks = (torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2 * 255
    pictures = checks.to(torch.uint8)[None, :, :, None].expand(1, 64, 64, 3)
    video = fit_frames(pictures, ClipSize(96, 96, 1))
    assert (video.min(), video.max()) == (0.0, 1.0)
