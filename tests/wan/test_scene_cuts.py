"""Hard cuts are found at their frame; what moves, shakes, fades or flashes within a shot is none."""

import random
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.scene_cuts import cut_times

RATE = 25
WIDTH, HEIGHT = 192, 108


@pytest.fixture(scope="module")
def shots(footage) -> list[np.ndarray]:
    """A picture of each shot of a real film, 640 x 272."""
    with av.open(str(footage / "bikes.mp4")) as container:
        frames = [frame for n, frame in enumerate(container.decode(video=0)) if n % 50 == 10]
    return [frame.to_ndarray(format="rgb24") for frame in frames]


def write(path: Path, pictures: Sequence[np.ndarray], rate: int = RATE, codec="libx264") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "20", "preset": "veryfast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            picture = np.ascontiguousarray(picture.astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def window(picture: np.ndarray, x: float, y: float = 60) -> np.ndarray:
    x, y = round(min(x, 640 - WIDTH)), round(y)
    return picture[y : y + HEIGHT, x : x + WIDTH]


def pan(picture: np.ndarray, frames: int, speed: float) -> list[np.ndarray]:
    return [window(picture, k * speed) for k in range(frames)]


def shake(picture: np.ndarray, frames: int, by: float) -> list[np.ndarray]:
    chances = random.Random(0)
    return [
        window(picture, 200 + chances.uniform(-by, by), 70 + chances.uniform(-by, by))
        for _ in range(frames)
    ]


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_cuts_between_still_shots_are_found_at_their_frame(tmp_path, shots, codec):
    lengths = [7, 13, 24, 5, 9]
    pictures = [window(p, 100) for p, n in zip(shots, lengths, strict=True) for _ in range(n)]
    path = write(
        tmp_path / ("cuts.mp4" if codec == "libx264" else "cuts.webm"), pictures, codec=codec
    )
    firsts = np.cumsum(lengths)[:-1] / RATE
    assert cut_times(path) == pytest.approx(list(firsts), abs=2e-3)


@pytest.mark.parametrize("rate", [16, 24, 60])
def test_cuts_between_moving_shots_are_found_at_their_frame(tmp_path, shots, rate):
    pictures = pan(shots[0], 15, 4) + shake(shots[1], 20, 4) + pan(shots[2], 15, 8)
    path = write(tmp_path / "cuts.mp4", pictures, rate)
    assert cut_times(path) == pytest.approx([15 / rate, 35 / rate], abs=1e-3)


@pytest.mark.parametrize("speed", [2, 8, 24])
@pytest.mark.parametrize("shot", range(5))
def test_a_pan_that_begins_suddenly_is_no_cut(tmp_path, shots, shot, speed):
    still = [window(shots[shot], 0)] * 10
    assert cut_times(write(tmp_path / "pan.mp4", still + pan(shots[shot], 18, speed))) == []


@pytest.mark.parametrize("held", [2, 2.5, 3])
def test_motion_in_frames_that_are_shown_several_times_is_no_cut(tmp_path, shots, held):
    pictures = [window(shots[1], int(k / held) * 16) for k in range(40)]
    assert cut_times(write(tmp_path / "twos.mp4", pictures)) == []


@pytest.mark.parametrize("by", [2, 7])
@pytest.mark.parametrize("shot", range(5))
def test_camera_shake_is_no_cut(tmp_path, shots, shot, by):
    assert cut_times(write(tmp_path / "shake.mp4", shake(shots[shot], 40, by))) == []


@pytest.mark.parametrize("frames", [4, 8, 24])
def test_fades_and_dissolves_are_no_cut(tmp_path, shots, frames):
    first, second = window(shots[1], 100), window(shots[3], 100)
    parts = [k / frames for k in range(frames + 1)]
    fade = [first] * 8 + [first * (1 - part) for part in parts] + [first * 0] * 8
    dissolve = [first] * 8 + [first * (1 - p) + second * p for p in parts] + [second] * 8
    assert cut_times(write(tmp_path / "fade.mp4", fade)) == []
    assert cut_times(write(tmp_path / "dissolve.mp4", dissolve)) == []


@pytest.mark.parametrize("frames", [1, 2])
def test_a_flash_is_no_cut(tmp_path, shots, frames):
    picture = window(shots[1], 100)
    flash = [picture] * 10 + [np.full_like(picture, 255)] * frames + [picture] * 10
    assert cut_times(write(tmp_path / "flash.mp4", flash)) == []


def test_the_threshold_is_in_levels_of_a_hundred(tmp_path):
    grey = [np.full((108, 192, 3), level, np.uint8) for level in (100, 100 + 51)]
    path = write(tmp_path / "step.mp4", [grey[0]] * 8 + [grey[1]] * 8)
    # 51 of 255 is a fifth of the range of colours, and brightness is stored in 219 of 255 levels.
    score = 20 * 219 / 255
    assert cut_times(path, threshold=score - 0.5) == pytest.approx([8 / RATE])
    assert cut_times(path, threshold=score + 0.5) == []


def test_the_cuts_of_a_real_film_are_those_that_a_person_sees(footage):
    # Looked at frame by frame: a pavement, a man before cars, a taxi, railings, a walker, trees.
    seen = [30, 76, 137, 187, 242]
    assert cut_times(footage / "bikes.mp4") == pytest.approx([n / 25 for n in seen])


@pytest.mark.parametrize("name", ["bigbuckbunny", "carphone_pristine"])
def test_films_of_one_shot_have_no_cut(footage, name):
    assert cut_times(footage / f"{name}.mp4") == []


def test_a_picture_has_no_cut(tmp_path):
    Image.new("RGB", (65, 49), "red").save(tmp_path / "one.png")
    assert cut_times(tmp_path / "one.png") == []


def test_a_damaged_film_is_named(tmp_path):
    (tmp_path / "junk.mp4").write_bytes(b"not a film")
    with pytest.raises(UserError, match=r"junk\.mp4 cannot be decoded"):
        cut_times(tmp_path / "junk.mp4")
