"""A folder becomes clips: broken files are named, and its identity is its content."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tandem_wan.training.data.dataset import DatasetSettings, fill_trigger, unfilled_captions
from tandem_wan.training.data.reader import find_media, folder_stamp, load_dataset
from tandem_wan.training.data.report import dataset_report
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize

SIZE = ClipSize(48, 32, 9)


def load(folder: Path, media: str = "auto", *, trigger: str = "", size=SIZE, fps=16, **kwargs):
    settings = DatasetSettings(
        folder=folder, media=media, trigger=trigger, fps=fps, **size._asdict()
    )
    return load_dataset(settings, **kwargs)


def caption(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.with_suffix(".txt").write_bytes(text.encode(encoding))


@pytest.fixture(scope="module")
def original(film, tmp_path_factory):
    """Two films, one of them in a folder of its own, and a picture; all with captions."""
    folder = tmp_path_factory.mktemp("original")
    caption(film(folder / "a.mp4", seed=1), "A red field.")
    caption(film(folder / "deep" / "er" / "b.mkv", seed=2, frames=20), "A {trigger} field.")
    picture = folder / "c.png"
    Image.new("RGB", (48, 32), (9, 99, 199)).save(picture)
    caption(picture, "A picture.")
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "clips"))


def test_films_and_pictures_are_found_in_every_folder_in_the_order_of_names(folder):
    dataset = load(folder, trigger="BLUE")
    assert [
        (c.path.relative_to(folder).as_posix(), c.frames, c.caption) for c in dataset.clips
    ] == [
        ("a.mp4", 9, "A red field."),
        ("c.png", 1, "A picture."),
        ("deep/er/b.mkv", 9, "A BLUE field."),
    ]
    assert dataset.skipped == ()
    assert [dataset.clip_size(clip).frames for clip in dataset.clips] == [9, 1, 9]


@pytest.mark.parametrize(
    ("media", "names"),
    [("video", ["a.mp4", "b.mkv"]), ("image", ["c.png"]), ("auto", ["a.mp4", "c.png", "b.mkv"])],
)
def test_the_kind_of_media_can_be_chosen(folder, media, names):
    assert [path.name for path in find_media(folder, media)] == names


def test_upper_case_suffixes_count_and_other_files_do_not(folder):
    (folder / "a.mp4").rename(folder / "a.MP4")
    (folder / "notes.md").write_text("x", encoding="utf-8")
    (folder / "movie.mp4").mkdir()
    assert [path.name for path in find_media(folder, "auto")] == ["a.MP4", "c.png", "b.mkv"]


def test_hidden_files_and_folders_are_not_searched(folder):
    for hidden in (".thumbs/a.mp4", "deep/.old/a.mp4", ".a.mp4"):
        target = folder / hidden
        target.parent.mkdir(exist_ok=True)
        shutil.copy(folder / "a.mp4", target)
    assert [path.name for path in find_media(folder, "auto")] == ["a.mp4", "c.png", "b.mkv"]


def test_a_folder_below_a_hidden_one_can_itself_be_a_dataset(folder, tmp_path):
    hidden = shutil.copytree(folder, tmp_path / ".cache" / "clips")
    assert len(find_media(Path(hidden), "auto")) == 3


def test_a_broken_file_is_skipped_by_name_and_the_rest_is_used(folder, film):
    (folder / "bad.mp4").write_bytes(b"not a film")
    (folder / "bad.png").write_bytes(b"not a picture")
    film(folder / "short.mp4", frames=3)
    caption(film(folder / "latin.mp4"), "Zürich", "latin-1")
    seen = []
    dataset = load(folder, trigger="BLUE", on_file=lambda *counts: seen.append(counts))
    assert len(dataset.clips) == 3
    reasons = {skipped.path.name: skipped.reason for skipped in dataset.skipped}
    assert set(reasons) == {"bad.mp4", "bad.png", "short.mp4", "latin.mp4"}
    assert "cannot be decoded" in reasons["bad.mp4"]
    assert "short.mp4 gives 3 frames at 16 fps" in reasons["short.mp4"]
    assert "latin.txt is not UTF-8" in reasons["latin.mp4"]
    report = dataset_report(dataset)
    assert all(f"Skipped {name}" in report for name in reasons)
    assert "3 of 7 files" in report
    assert seen == [(i, 7) for i in range(1, 8)]


def test_a_film_of_at_least_half_the_frames_is_used_at_its_own_4k_plus_1(film, tmp_path):
    film(tmp_path / "short.mp4", frames=8)
    dataset = load(tmp_path)
    assert [clip.frames for clip in dataset.clips] == [5]
    assert "Shorter than 9 frames" in dataset_report(dataset)
    assert "short.mp4 (5)" in dataset_report(dataset)


def test_a_folder_of_nothing_but_broken_files_is_an_error_with_the_reasons(tmp_path):
    for name in ("x.mp4", "y.mp4"):
        (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(UserError, match=r"None of the 2 files.*x\.mp4.*y\.mp4"):
        load(tmp_path)


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not there"):
        find_media(tmp_path / "nowhere", "auto")
    with pytest.raises(UserError, match=r"holds no media files.*\.mp4"):
        find_media(tmp_path, "auto")
    with pytest.raises(UserError, match=r"media is 'music'.*auto, video, image"):
        find_media(tmp_path, "music")


def test_the_digest_is_that_of_the_content_wherever_and_whenever_it_lies(folder, tmp_path):
    before = load(folder, trigger="BLUE").digest()
    elsewhere = tmp_path / "else" / "where"
    shutil.copytree(folder, elsewhere)
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))
    assert load(elsewhere, trigger="BLUE").digest() == before


def change_a_pixel(folder, film):
    film(folder / "a.mp4", seed=7)


def change_a_caption(folder, film):
    caption(folder / "a.mp4", "A green field.")


def remove_a_caption(folder, film):
    (folder / "a.txt").unlink()


def add_a_clip(folder, film):
    film(folder / "z.mp4", seed=3)


def remove_a_clip(folder, film):
    (folder / "c.png").unlink()


@pytest.mark.parametrize(
    "change", [change_a_pixel, change_a_caption, remove_a_caption, add_a_clip, remove_a_clip]
)
def test_the_digest_changes_with_clips_and_captions(folder, film, change):
    before = load(folder, trigger="BLUE").digest()
    change(folder, film)
    assert load(folder, trigger="BLUE").digest() != before


def test_the_digest_changes_with_every_setting(folder):
    variants = [
        load(folder, trigger="BLUE"),
        load(folder, trigger="RED"),
        load(folder, trigger="BLUE", fps=24),
        load(folder, trigger="BLUE", size=ClipSize(64, 32, 9)),
        load(folder, trigger="BLUE", size=ClipSize(48, 48, 9)),
        load(folder, trigger="BLUE", size=ClipSize(48, 32, 5)),
        load(folder, "video", trigger="BLUE"),
        load(folder, trigger="BLUE").with_captions(["x", "y", "z"], "BLUE"),
    ]
    assert len({dataset.digest() for dataset in variants}) == len(variants)


def test_the_stamp_notices_what_the_digest_would(folder, film):
    before = folder_stamp(folder, "auto")
    assert folder_stamp(folder, "auto") == before
    caption(folder / "a.mp4", "A longer red field.")
    changed = folder_stamp(folder, "auto")
    film(folder / "z.mp4", seed=3)
    assert len({before, changed, folder_stamp(folder, "auto")}) == 3


def test_a_caption_is_one_line_without_its_byte_order_mark(folder):
    caption(folder / "a.mp4", "\ufeff A red\n field,\t wide. \n")
    assert load(folder).clips[0].caption == "A red field, wide."


def test_a_trigger_is_put_in_and_a_placeholder_without_one_is_reported(folder):
    assert unfilled_captions(load(folder)) == ["b.mkv"]
    assert "waits for a trigger in the captions of: b.mkv" in dataset_report(load(folder))
    filled = load(folder, trigger="BLUE")
    assert unfilled_captions(filled) == []
    assert "Trigger BLUE stands in 1 of 3 captions" in dataset_report(filled)


def test_a_missing_caption_is_reported_by_name(folder):
    (folder / "a.txt").unlink()
    assert "No caption: a.mp4" in dataset_report(load(folder))


def test_the_report_counts_clips_and_pictures_and_seconds(folder):
    assert dataset_report(load(folder, trigger="BLUE")).splitlines()[0] == (
        "3 of 3 files in clips: 2 clips, 1 picture, at 48x32, 9 frames, 16 fps (0.56 s)"
    )


def test_filling_a_trigger_needs_a_word():
    assert fill_trigger("a {trigger} and {trigger}", " FOX ", "It") == "a FOX and FOX"
    assert fill_trigger("plain", "", "It") == "plain"
    with pytest.raises(
        UserError, match=r"^The caption contains \{trigger\}, but no trigger is set"
    ):
        fill_trigger("a {trigger}", "  ", "The caption")


def test_captions_can_be_replaced_for_all_clips_only(folder):
    dataset = load(folder)
    renamed = dataset.with_captions(["x", "y", "z"], "T")
    assert [clip.caption for clip in renamed.clips] == ["x", "y", "z"]
    assert [clip.digest for clip in renamed.clips] == [clip.digest for clip in dataset.clips]
    with pytest.raises(ValueError, match="shorter"):
        dataset.with_captions(["x"], "T")
