"""A list of media is read as the folder that holds them, and a part of a film as that part."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tandem_wan.training.data.dataset import CLIP_MODES, FITS, DatasetSettings
from tandem_wan.training.data.media import Medium, media_dataset
from tandem_wan.training.data.reader import find_media, load_dataset
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.video import read_clip


@pytest.mark.parametrize(("mode", "fit"), product(CLIP_MODES, FITS))
def test_a_list_of_the_files_of_a_folder_gives_the_clips_of_that_folder(folder, mode, fit):
    settings = replace(settings_of(folder), clip_mode=mode, fit=fit, flips=True, crops=3)
    media = [Medium(path) for path in find_media(folder, "auto")]
    listed, read = media_dataset(media, settings), load_dataset(settings)
    assert listed.clips == read.clips
    assert listed.digest() == read.digest()
    assert {clip.frames for clip in read.clips} >= {1, 9}


def test_captions_that_are_given_count_and_get_the_trigger(folder):
    settings = replace(settings_of(folder), trigger="MERMAID")
    (clip,) = media_dataset([Medium(folder / "wide.mkv", "A\n{trigger}  turns.")], settings).clips
    assert clip.caption == "A MERMAID turns."


@pytest.mark.parametrize(("start", "length"), [(0, 20), (3, 20), (12, 9), (15, 6)])
def test_a_part_of_a_film_is_read_as_a_film_of_that_part(folder, start, length):
    """Each frame of the film has its own grey, so what was read names the frames."""
    part = Medium(folder / "wide.mkv", "", start / 16, length / 16)
    dataset = media_dataset([part], replace(settings_of(folder), clip_mode="middle"))
    (clip,) = dataset.clips
    shown = read_clip(clip.path, dataset.clip_size(clip), fps=16, start=clip.start)
    expected = greys(40)[start : start + length]
    frames = min(9, (length - 1) // 4 * 4 + 1)
    spare = len(expected) - frames
    assert (shown.mean((1, 2, 3)) * 255).round().int().tolist() == expected[
        spare // 2 : spare // 2 + frames
    ]


def test_equal_entries_are_one_clip_and_other_parts_are_others(folder):
    film = folder / "wide.mkv"
    media = [Medium(film, "a"), Medium(film, "a", 1.0, 1.0), Medium(film, "a"), Medium(film, "b")]
    dataset = media_dataset(media, replace(settings_of(folder), repeats=1.5))
    assert [(c.caption, c.start, c.repeats) for c in dataset.clips] == [
        ("a", 0, 3.0),
        ("a", 16, 1.5),
        ("b", 0, 1.5),
    ]
    assert dataset.counts().shown == 6.0


def test_a_part_beyond_the_end_is_skipped_with_the_reason(folder):
    media = [Medium(folder / "wide.mkv", "a"), Medium(folder / "wide.mkv", "a", 99.0)]
    dataset = media_dataset(media, settings_of(folder))
    assert len(dataset.clips) == 1
    assert "gives 0 frames" in dataset.skipped[0].reason


def test_media_in_several_folders_keep_their_folders(folder, tmp_path):
    other = tmp_path / "elsewhere" / "b.mkv"
    film(other, 9, (64, 64))
    dataset = media_dataset([Medium(folder / "wide.mkv"), Medium(other)], settings_of(folder))
    assert dataset.folder == folder
    assert [clip.root for clip in dataset.clips] == [None, other.parent]


def test_nothing_that_can_be_used_is_an_error(folder):
    with pytest.raises(UserError, match=r"None of the 1 .*gone\.mp4.*Mend the files"):
        media_dataset([Medium(folder / "gone.mp4")], settings_of(folder))


def settings_of(folder: Path) -> DatasetSettings:
    return DatasetSettings(folder=folder, width=64, height=64, frames=9, fps=16.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    film(folder / "wide.mkv", 40, (96, 64))
    film(folder / "square.mkv", 14, (64, 64))
    film(folder / "short.mkv", 3, (64, 64))
    (folder / "wide.txt").write_text("A wide one.\n")
    (folder / "square.txt").write_bytes("Ein Mädchen".encode("latin-1"))
    Image.new("RGB", (128, 64), (9, 99, 199)).save(folder / "still.png")
    return folder


def greys(count: int) -> list[int]:
    return [10 + 5 * number for number in range(count)]


def film(path: Path, frames: int, size: tuple[int, int]) -> None:
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt = *size, "bgr0"
        for grey in greys(frames):
            pixels = np.full((size[1], size[0], 3), grey, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode(None))
