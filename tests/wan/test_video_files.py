"""Files as they come: titles in old encodings, downloads that broke off, pictures that lie mirrored in their file."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.scene_cuts import cut_times
from tandem_wan.wan.shapes import ClipSize
from tandem_wan.wan.video import probe, read_clip

SIZE = ClipSize(64, 48, 9)


def write_film(path: Path, frames: int = 40, title: str = "", **options: str) -> Path:
    """Noise at 16 fps with a key frame every second."""
    chances = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        container.metadata["title"] = title
        stream = container.add_stream("libx264", rate=16, options={"g": "16"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            pixels = chances.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
def test_a_title_that_is_not_utf8_is_no_hindrance(tmp_path, suffix):
    path = write_film(tmp_path / f"a{suffix}", title="QQQQQQQQ")
    content = path.read_bytes()
    assert content.count(b"QQQQQQQQ") == 1
    path.write_bytes(content.replace(b"QQQQQQQQ", b"Caf\xe9 \xfc\xff!"))
    plain = write_film(tmp_path / f"b{suffix}", title="QQQQQQQQ")
    assert probe(path, fps=16, max_frames=None) == probe(plain, fps=16, max_frames=None)
    assert read_clip(path, SIZE, fps=16).equal(read_clip(plain, SIZE, fps=16))
    assert cut_times(path) == cut_times(plain)


def test_a_clip_cannot_begin_before_its_file(tmp_path):
    path = write_film(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"a\.mp4 begins at frame -1"):
        read_clip(path, SIZE, fps=16, start=-1)


@pytest.mark.parametrize("max_frames", [17, None])
def test_what_is_missing_at_the_end_of_a_download_is_measured(tmp_path, max_frames):
    whole = write_film(tmp_path / "whole.mp4", 160, movflags="faststart")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    info = probe(whole, fps=16, max_frames=max_frames)
    assert (info.stated_s, info.lacks_s) == (pytest.approx(10), pytest.approx(0, abs=0.01))
    info = probe(broken, fps=16, max_frames=max_frames)
    there = probe(broken, fps=16, max_frames=None).frames / 16
    assert info.stated_s == pytest.approx(10)
    # A frame whose data end in the middle may be decoded nevertheless.
    assert 10 - info.lacks_s == pytest.approx(there, abs=0.13)
    assert 5 < there < 7


def test_only_what_is_decoded_to_its_end_shows_that_a_matroska_was_cut_off(tmp_path):
    path = write_film(tmp_path / "a.mkv", 160)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert probe(path, fps=16, max_frames=17).lacks_s == 0
    assert 3 < probe(path, fps=16, max_frames=None).lacks_s < 5


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_stand_as_pillow_says_mirrored_ones_too(tmp_path, suffix, orientation):
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32], stored[:24, 32:], stored[24:, :32] = 255, (255, 0, 0), (0, 255, 0)
    path, exif = tmp_path / f"photo.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    with Image.open(path) as photo:
        upright = np.asarray(ImageOps.exif_transpose(photo).convert("RGB")).astype(np.float32)
    height, width = upright.shape[:2]
    assert probe(path, fps=16, max_frames=1)[:3] == (1, width, height)
    shown = read_clip(path, ClipSize(width, height, 1), fps=16)[0].numpy() * 255
    assert np.abs(shown - upright).mean() < 3


def test_an_animated_webp_is_refused_for_what_it_is(tmp_path):
    pictures = [Image.new("RGB", (64, 48), (shade, 9, 9)) for shade in (0, 90, 180)]
    path = tmp_path / "a.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    with pytest.raises(UserError, match=r"a\.webp is an animated WebP.*Convert it to GIF or MP4"):
        probe(path, fps=16, max_frames=1)
    path.write_bytes(b"RIFF\0\0\0\0WEBPVP8 junk")
    with pytest.raises(UserError, match=r"a\.webp cannot be decoded"):
        probe(path, fps=16, max_frames=1)
