"""Cuts training clips out of the real films: exact frame count and rate, captions beside them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.video.stream import VideoStream
from PIL import Image

CAPTIONS = {
    "bikes": "A street in a European city with parked cars, traffic and people on bicycles.",
    "carphone_pristine": "A man in a dark suit and a red bow tie talks in a moving car.",
    "bigbuckbunny": "A big grey cartoon rabbit comes out of its burrow and stretches on the grass.",
}
"""Of each film, by the stem of its file name. `bikes` has cuts in it, the others are one shot."""


class Film(NamedTuple):
    path: Path
    times_s: list[float]
    """When each of its frames is shown."""


def cut_clips(
    films_folder: Path,
    out_folder: Path,
    *,
    width: int,
    height: int,
    frames: int,
    fps: int = 16,
    count: int,
    captions: Mapping[str, str] | None = CAPTIONS,
) -> list[Path]:
    """Write `count` clips of `frames` frames, taken in turn from the films that are long enough.

    Time is never stretched: frame k is the film's frame nearest to start + k / fps. The picture
    covers width x height and is cropped in the middle. `captions`, by film, go into a .txt beside
    each clip; None writes none.
    """
    _check_shape(width, height, frames)
    films = _long_enough(films_folder, (frames - 1) / fps)
    out_folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for number in range(count):
        film = films[number % len(films)]
        wanted = _frame_numbers(
            film, _start_s(number, count, films, (frames - 1) / fps), frames, fps
        )
        clip = out_folder / f"{number:02d}_{film.path.stem}.mp4"
        write_clip(clip, _pictures(film.path, wanted, width, height), width, height, fps)
        if captions is not None:
            clip.with_suffix(".txt").write_text(captions[film.path.stem] + "\n", encoding="utf-8")
        clips.append(clip)
    return clips


def first_frame(clip: Path, png_path: Path) -> Path:
    """Save the first frame of `clip` as a picture."""
    png_path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(clip)) as container:
        next(container.decode(video=0)).to_image().save(png_path)
    return png_path


def _check_shape(width: int, height: int, frames: int) -> None:
    if frames < 1 or frames % 4 != 1:
        below = max(frames - 1, 0) // 4 * 4 + 1
        raise ValueError(f"A clip has 4k+1 frames, got {frames}: use {below} or {below + 4}.")
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise ValueError(
            f"H.264 takes even sizes, got {width}x{height}: use {width // 2 * 2 or 2}x{height // 2 * 2 or 2}."
        )


def _long_enough(folder: Path, span_s: float) -> list[Film]:
    films = [Film(path, _times_s(path)) for path in sorted(folder.glob("*.mp4"))]
    fitting = [film for film in films if film.times_s[-1] >= span_s]
    if not fitting:
        longest = max((film.times_s[-1] for film in films), default=0.0)
        raise ValueError(
            f"A clip spans {span_s:.2f} s, and the longest of {len(films)} films in {folder} has "
            f"{longest:.2f} s: ask for fewer frames, or more frames per second."
        )
    return fitting


def _times_s(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def _start_s(number: int, count: int, films: Sequence[Film], span_s: float) -> float:
    """Where clip `number` starts: the clips of one film are spread evenly over its length."""
    turn, film = number // len(films), films[number % len(films)]
    num_of_film = len(range(number % len(films), count, len(films)))
    return (film.times_s[-1] - span_s) * turn / max(num_of_film - 1, 1)


def _frame_numbers(film: Film, start_s: float, frames: int, fps: int) -> list[int]:
    return [_nearest(film.times_s, start_s + number / fps) for number in range(frames)]


def _nearest(times_s: Sequence[float], time_s: float) -> int:
    after = min(bisect_left(times_s, time_s), len(times_s) - 1)
    before = max(after - 1, 0)
    return before if time_s - times_s[before] <= times_s[after] - time_s else after


def _pictures(
    film: Path, wanted: Sequence[int], width: int, height: int
) -> Iterator[av.VideoFrame]:
    """The wanted frames (rising numbers, some perhaps twice), cropped and scaled."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        for number, frame in enumerate(container.decode(stream)):
            if number > wanted[-1]:
                return
            if repeats := wanted.count(number):
                yield from [_cover(frame, width, height, pixel_aspect)] * repeats


def _cover(frame: av.VideoFrame, width: int, height: int, pixel_aspect: Fraction) -> av.VideoFrame:
    """The middle of `frame` in the shape of width x height, scaled to it."""
    aspect = width / height / float(pixel_aspect)  # of the box, in stored pixels
    box_width = min(frame.width, frame.height * aspect)
    box_height = min(frame.height, frame.width / aspect)
    left, top = (frame.width - box_width) / 2, (frame.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    picture = frame.to_image().resize((width, height), Image.Resampling.BICUBIC, box)
    return av.VideoFrame.from_image(picture)


def write_clip(
    path: Path, pictures: Iterator[av.VideoFrame], width: int, height: int, fps: int
) -> None:
    """A film of `pictures`, the same bytes for the same pictures."""
    codec, options = _codec()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1  # x264's bytes depend on the number of threads
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _codec() -> tuple[str, dict[str, str]]:
    if "libx264" in av.codecs_available:
        # With its macroblock tree, x264 writes other bytes on each run for pictures this small.
        return "libx264", {"crf": "16", "preset": "medium", "x264-params": "mbtree=0"}
    return "mpeg4", {"qscale": "2"}
