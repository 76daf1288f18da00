"""A frame becomes a picture of the clip's size: as a player shows it, covering it, in the right colours."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Interpolation
from PIL import Image
from tandem_wan.wan.picture_fit import PictureFit
from tandem_wan.wan.shapes import ClipSize
from tandem_wan.wan.video import CENTRED, View, probe, read_clip


def fit(pictures: torch.Tensor, size: ClipSize, view: View = CENTRED) -> torch.Tensor:
    """uint8 (frames, h, w, 3) as frames of a film in the size of a clip."""
    video = np.empty((len(pictures), 3, size.height, size.width), np.uint8)
    fitting = PictureFit(size, view, pixel_aspect=1.0)
    for picture, out in zip(pictures.contiguous().numpy(), video, strict=True):
        fitting.write(av.VideoFrame.from_ndarray(picture, format="rgb24"), out)
    return torch.from_numpy(video).permute(0, 2, 3, 1).float() / 255


def slow_fit(pictures: torch.Tensor, size: ClipSize) -> torch.Tensor:
    """The same by torch's antialiased bicubic filter, in floating point, cut in the middle."""
    video = pictures.permute(0, 3, 1, 2).float() / 255
    scale = max(size.width / video.shape[-1], size.height / video.shape[-2])
    inner = (
        max(size.height, round(video.shape[-2] * scale)),
        max(size.width, round(video.shape[-1] * scale)),
    )
    video = torch.nn.functional.interpolate(video, inner, mode="bicubic", antialias=True)
    top, left = round((inner[0] - size.height) / 2), round((inner[1] - size.width) / 2)
    video = video[:, :, top : top + size.height, left : left + size.width]
    return video.clamp(0, 1).permute(0, 2, 3, 1)


@pytest.mark.parametrize("source", [(640, 272), (272, 640), (333, 333), (64, 48)])
@pytest.mark.parametrize("target", [(96, 64), (64, 96), (80, 80)])
def test_the_aspect_is_kept_and_the_middle_is_cut_out(source, target):
    pictures = torch.zeros(1, source[1], source[0], 3, dtype=torch.uint8)
    pictures[..., 0] = ((torch.arange(source[0]) + 0.5) / source[0] * 255).round()
    pictures[..., 1] = ((torch.arange(source[1]) + 0.5) / source[1] * 255).round()[:, None]
    video = fit(pictures, ClipSize(*target, 1))[0]
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
    """Decodes well past the end, then searches the nearest frame of each moment; at the film's own size."""
    shown = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            # Without these, FFmpeg's short cut for pictures that keep their size is a level too dark.
            exact = (
                Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
            )
            pixels = frame.reformat(format="rgb24", interpolation=exact).to_ndarray()
            shown.append((frame.time, torch.from_numpy(pixels)))
            if frame.time - shown[0][0] > frames / 16 + 0.5:
                break
    start = shown[0][0]
    return torch.stack(
        [min(shown, key=lambda f: abs(f[0] - start - k / 16))[1] for k in range(frames)]
    )


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny"])
@pytest.mark.parametrize("size", [ClipSize(64, 48, 9), ClipSize(352, 208, 9)], ids=str)
def test_real_films_are_scaled_as_torch_would(footage, name, size):
    path = footage / f"{name}.mp4"
    apart = (read_clip(path, size, fps=16) - slow_fit(slow_read(path, 9), size)).abs() * 255
    assert apart.mean() < 0.6, "less than rounding each picture to levels twice"
    # Colours at sharp edges: FFmpeg scales them from their half size at once, the slow way in two steps.
    assert apart.quantile(0.999) < 6


def test_a_real_film_with_wide_pixels_is_read_in_its_shown_shape(footage):
    path, size = footage / "carphone_pristine.mp4", ClipSize(64, 48, 17)
    # 176 x 144 pixels, each 128/117 as wide as high.
    shown = torch.nn.functional.interpolate(
        slow_read(path, 17).permute(0, 3, 1, 2).float(), (144, 193), mode="bilinear"
    )
    expected = slow_fit(shown.round().byte().permute(0, 2, 3, 1), size)
    assert (read_clip(path, size, fps=16) - expected).abs().mean() < 0.005


@pytest.mark.parametrize("size", [(128, 64), (64, 96), (80, 80), (208, 160)])
@pytest.mark.parametrize("pixels", ["noise", "red stripes"])
def test_colours_of_pictures_are_scaled_as_torch_would(pixels, size):
    chances = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (1, 151, 201, 3), dtype=torch.uint8, generator=chances)
    if pixels == "red stripes":
        pictures[..., 1:] = 0
        pictures[..., 0] = torch.arange(201) % 2 * 255
    clip = ClipSize(*size, 1)
    assert (fit(pictures, clip) - slow_fit(pictures, clip)).abs().mean() < 2 / 255


MATRICES = {"bt709": (1, 0.2126, 0.0722), "bt601": (5, 0.299, 0.114), "not said": (2, 0.299, 0.114)}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES.keys())
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("format", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_colours_are_those_of_the_standard(format, full, matrix):
    colorspace, red_part, blue_part = matrix
    y, u, v = 100, 90, 160
    deep = format.endswith("10le")
    frame = av.VideoFrame(64, 48, format)
    for plane, value in zip(frame.planes, (y, u, v), strict=True):
        kind = np.uint16 if deep else np.uint8
        np.frombuffer(plane, kind)[:] = value * (4 if deep else 1)
    frame.colorspace, frame.color_range = colorspace, 2 if full else 1
    # ITU-R BT.709 and BT.601: brightness is 16 to 235 and colour 16 to 240 in limited range.
    bright = y / 255 if full else (y - 16) / 219
    to_blue, to_red = ((c - 128) / (255 if full else 224) for c in (u, v))
    red, blue = bright + 2 * (1 - red_part) * to_red, bright + 2 * (1 - blue_part) * to_blue
    green = (bright - red_part * red - blue_part * blue) / (1 - red_part - blue_part)
    for size in (ClipSize(48, 32, 1), ClipSize(64, 48, 1), ClipSize(96, 64, 1)):
        out = np.empty((3, size.height, size.width), np.uint8)
        PictureFit(size, CENTRED, pixel_aspect=1.0).write(frame, out)
        expected = np.broadcast_to(np.array([red, green, blue])[:, None, None], out.shape)
        np.testing.assert_allclose(out / 255, expected, rtol=0, atol=1 / 255)


@pytest.mark.parametrize("source", [(96, 64), (64, 96)], ids=["wide", "high"])
@pytest.mark.parametrize("crop", [0.0, 0.25, 0.5, 1.0])
def test_the_cut_moves_along_the_axis_that_is_cut(source, crop):
    width, height = source
    ramp = torch.arange(max(source)) * 2
    wide = width > height
    grey = ramp.expand(height, -1) if wide else ramp[:, None].expand(-1, width)
    picture = grey.to(torch.uint8)[None, :, :, None].expand(1, height, width, 3)
    video = fit(picture, ClipSize(64, 64, 1), View(crop))
    shift = round(32 * crop)
    expected = picture[:, :, shift : shift + 64] if wide else picture[:, shift : shift + 64]
    torch.testing.assert_close(video, expected / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize("crop", [0.0, 0.5, 1.0])
def test_a_mirrored_view_is_the_same_cut_turned_round(crop):
    pictures = torch.randint(0, 256, (1, 48, 101, 3), dtype=torch.uint8)
    size = ClipSize(64, 48, 1)
    mirrored = fit(pictures, size, View(crop, flip=True))
    assert torch.equal(mirrored, fit(pictures, size, View(crop)).flip(2))


def test_the_views_of_a_film_of_a_phone_are_those_of_the_upright_picture(tmp_path):
    stored = np.zeros((48, 96, 3), np.uint8)
    stored[:24, :48] = 255
    photo, exif = Image.fromarray(stored), Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "photo.png", exif=exif)
    size = ClipSize(48, 48, 1)
    # Upright it is 48 wide and 96 high, and white in the upper right quarter.
    upper, lower, mirrored = (
        read_clip(tmp_path / "photo.png", size, fps=16, view=view)
        for view in (View(0), View(1), View(0, flip=True))
    )
    assert (upper[0, 4:44, 28:].min(), upper[0, 4:44, :20].max()) == (1, 0)
    assert lower.max() == 0
    assert (mirrored[0, 4:44, :20].min(), mirrored[0, 4:44, 28:].max()) == (1, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "I;16"])
@pytest.mark.parametrize("size", [(64, 48), (65, 47), (301, 203)])
def test_pictures_of_every_kind_give_their_colours(tmp_path, mode, size):
    chances = np.random.default_rng(0)
    pixels = chances.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    if mode == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path)
        shown = np.repeat(pixels[..., :1], 3, axis=2)
    else:
        picture = Image.fromarray(pixels).convert(mode)
        picture.save(path)
        shown = np.asarray(picture.convert("RGB"))
    video = read_clip(path, ClipSize(64, 48, 1), fps=16)
    expected = slow_fit(torch.from_numpy(shown.copy())[None], ClipSize(64, 48, 1))
    assert (video - expected).abs().mean() < 2 / 255


def test_transparency_is_left_out(tmp_path):
    pixels = np.full((48, 64, 4), (200, 100, 50, 255), np.uint8)
    pixels[:, 32:, 3] = 0
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True, "exact": True})):
        Image.fromarray(pixels).save(tmp_path / name, **options)
        video = read_clip(tmp_path / name, ClipSize(64, 48, 1), fps=16)
        expected = torch.tensor([200, 100, 50]).expand(1, 48, 64, 3) / 255
        torch.testing.assert_close(video, expected, rtol=0, atol=4 / 255)


def test_a_gif_keeps_its_own_times(tmp_path):
    greys = [0, 80, 160, 240]
    pictures = [Image.new("L", (65, 49), grey) for grey in greys]
    durations = [100, 300, 200, 400]
    path = tmp_path / "moving.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations)
    info = probe(path, fps=10, max_frames=None)
    assert (info.frames, info.width, info.height, info.variable) == (10, 65, 49, True)
    assert info.seconds == pytest.approx(1.0)
    video = read_clip(path, ClipSize(64, 48, 9), fps=10)
    # Nearest: at 0.2 s the second frame (0.1 s) is nearer than the third (0.4 s).
    expected = [0, 80, 80, 160, 160, 160, 240, 240, 240]
    assert (video.mean(dim=(1, 2, 3)) * 255).tolist() == pytest.approx(expected, abs=1)


def test_a_picture_of_the_right_size_passes_through_unchanged():
    pictures = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    video = fit(pictures, ClipSize(64, 48, 2))
    torch.testing.assert_close(video, pictures.float() / 255, rtol=0, atol=1e-5)


def test_detail_finer_than_the_clip_becomes_its_mean_and_no_moire():
    checks = (torch.arange(96)[:, None] + torch.arange(96)) % 2 * 255
    pictures = checks.to(torch.uint8)[None, :, :, None].expand(1, 96, 96, 3)
    video = fit(pictures, ClipSize(32, 32, 1))
    assert (video[0, 2:-2, 2:-2] - 0.5).abs().max() < 0.05


def test_scaling_never_leaves_the_range_of_colours():
    checks = (torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2 * 255
    pictures = checks.to(torch.uint8)[None, :, :, None].expand(1, 64, 64, 3)
    video = fit(pictures, ClipSize(96, 96, 1))
    assert (video.min(), video.max()) == (0.0, 1.0)
