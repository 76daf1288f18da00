"""Folders as they are found: odd names, links, files of wrong kinds, and what is said of each."""

import json
import os
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tandem_wan.training.data import facts as dataset_facts
from tandem_wan.training.data.dataset import CutOff, Dataset, DatasetSettings
from tandem_wan.training.data.file_notes import FileNotes
from tandem_wan.training.data.join import joined
from tandem_wan.training.data.media import Medium, media_dataset
from tandem_wan.training.data.reader import folder_stamp, load_dataset
from tandem_wan.training.data.report import dataset_report
from tandem_wan.wan.errors import UserError


def settings(folder: Path, **changes) -> DatasetSettings:
    return DatasetSettings(folder=folder, **{"width": 48, "height": 32, "frames": 9, **changes})


def read(folder: Path, **changes) -> Dataset:
    return load_dataset(settings(folder, **changes))


def captions(dataset: Dataset) -> dict[str, str]:
    return {clip.path.name: clip.caption for clip in dataset.clips}


def picture(path: Path, width: int = 48, height: int = 32, colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (colour, 9, 9)).save(path)
    return path


def broken_download(path: Path) -> Path:
    chances = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=16, options={"g": "16"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(64):
            pixels = chances.integers(0, 255, (32, 48, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    return path


def test_what_is_skipped_has_its_kind(film, tmp_path):
    film(tmp_path / "good.mp4")
    film(tmp_path / "short.mp4", frames=3)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    picture(tmp_path / "narrow.png", 3000, 1)
    picture(tmp_path / "latin.png", colour=3)
    (tmp_path / "latin.txt").write_bytes(b"Caf\xe9")
    dataset = read(tmp_path)
    assert {path.name: kind for path, _, kind in dataset.skipped} == {
        "short.mp4": "too short",
        "empty.mp4": "unreadable",
        "gone.mp4": "unreadable",
        "narrow.png": "other",
        "latin.png": "other",
    }
    reasons = {path.name: reason for path, reason, _ in dataset.skipped}
    assert reasons["gone.mp4"] == "gone.mp4 is a link to a file that is not there. Copy the file."
    assert "narrow.png is 3000x1. One side can be up to 20 times the other" in reasons["narrow.png"]
    listed = [Medium(path) for path in sorted(tmp_path.glob("*.[mp][pn][4g]"))]
    kinds = {path.name: kind for path, _, kind in media_dataset(listed, settings(tmp_path)).skipped}
    assert kinds == {path.name: kind for path, _, kind in dataset.skipped}


@pytest.mark.parametrize(("size", "used"), [((640, 32), True), ((656, 32), False)])
def test_a_picture_of_up_to_twenty_to_one_is_used(tmp_path, size, used):
    picture(tmp_path / "a.png", *size)
    picture(tmp_path / "b.png", *size[::-1])
    picture(tmp_path / "c.png")
    assert len(read(tmp_path).clips) == (3 if used else 1)


def test_the_report_judges_each_clip_by_the_frames_of_its_own_dataset(film, tmp_path):
    film(tmp_path / "long" / "a.mp4", frames=40)
    film(tmp_path / "long" / "b.mp4", frames=30, seed=1)
    film(tmp_path / "brief" / "c.mp4", frames=9, seed=2)
    long, brief = read(tmp_path / "long", frames=33), read(tmp_path / "brief")
    for both in (joined(long, brief), joined(brief, long)):
        report = dataset_report(both)
        assert "Shorter than 33 frames, used at their own length: b.mp4 (29)" in report
        assert "c.mp4 (" not in report
        asked = {clip.path.name: both.clip_asked(clip) for clip in both.clips}
        assert asked == {"a.mp4": 33, "b.mp4": 33, "c.mp4": 9}


def test_a_name_that_is_no_text_can_be_reported(film, tmp_path):
    film(tmp_path / "a.mp4")
    odd = os.fsencode(tmp_path) + b"/bad\xff"
    film(tmp_path / "x.mp4", frames=7, seed=1).rename(os.fsdecode(odd + b".mp4"))
    Path(os.fsdecode(odd + b".txt")).write_text("A field.")
    dataset = read(tmp_path)
    assert [clip.caption for clip in dataset.clips] == ["", "A field."]
    assert "bad?.mp4 (5)" in dataset_report(dataset).encode().decode()


def test_half_a_character_in_a_caption_is_replaced(film, tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4", seed=1)
    rows = '{"file": "a.mp4", "caption": "bad \\ud800 x"}\n{"file": "b.mp4", "caption": "\\ud83d\\ude00"}'
    (tmp_path / "m.jsonl").write_text(rows)
    dataset = read(tmp_path)
    assert captions(dataset) == {"a.mp4": "bad \ufffd x", "b.mp4": "\U0001f600"}
    assert len(dataset.digest()) == 64


def test_a_file_that_is_replaced_while_it_is_read_is_not_remembered(film, tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", frames=40)
    probe = dataset_facts.probe

    def slow(path, **settings):
        found = probe(path, **settings)
        film(path, frames=20, seed=9)
        return found

    monkeypatch.setattr(dataset_facts, "probe", slow)
    notes = FileNotes(tmp_path / "notes.jsonl")
    wish = {"fps": 16, "max_frames": None, "notes": notes}
    assert dataset_facts.facts_of(path, **wish).frames == 40
    monkeypatch.setattr(dataset_facts, "probe", probe)
    assert dataset_facts.facts_of(path, **wish).frames == 20


def test_one_long_line_of_captions_is_read_in_no_time(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "captions.txt").write_text("x, " * 60_000)
    began = time.perf_counter()
    assert len(captions(read(tmp_path))["a.png"]) == 3 * 60_000 - 1
    assert time.perf_counter() - began < 1


def test_a_name_with_many_commas_is_found_in_a_line(tmp_path):
    picture(tmp_path / "a, b, c: d.png")
    (tmp_path / "captions.txt").write_text("a, b, c: d.png, A red, wide field")
    assert captions(read(tmp_path)) == {"a, b, c: d.png": "A red, wide field"}


@pytest.mark.parametrize("clip_mode", ["head", "middle"])
def test_a_broken_download_is_noted_and_what_there_is_of_it_is_used(film, tmp_path, clip_mode):
    broken_download(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4", frames=40)
    dataset = read(tmp_path, clip_mode=clip_mode)
    assert len(dataset.clips) == 2
    (cut,) = dataset.cut_off
    assert cut == CutOff(tmp_path / "a.mp4", pytest.approx(2.4, abs=0.3), pytest.approx(4))
    note = f"as after a broken download: a.mp4 ({cut.seconds:.1f} of 4.0 s)"
    assert note in dataset_report(dataset)
    listed = media_dataset([Medium(tmp_path / "a.mp4")], settings(tmp_path, clip_mode=clip_mode))
    assert listed.cut_off == dataset.cut_off and note in dataset_report(listed)
    assert joined(listed, dataset).cut_off == dataset.cut_off
    noted = FileNotes(tmp_path / "notes.jsonl")
    for _ in range(2):
        again = load_dataset(settings(tmp_path, clip_mode=clip_mode), notes=noted)
        assert again.cut_off == dataset.cut_off


def test_a_folder_twice_in_a_chain_is_said_and_counted_once(film, tmp_path):
    film(tmp_path / "one" / "a.mp4", frames=40)
    film(tmp_path / "one" / "b.mp4", frames=40, seed=1)
    (tmp_path / "one" / "c.mp4").touch()
    one = read(tmp_path / "one")
    both = joined(one, one)
    assert both.notes == (
        "In this chain twice, which is the same as twice the repeats: a.mp4, b.mp4",
    )
    assert both.counts() == (2, 4.0, 0.0)
    assert len(both.clips) == 4 and len(both.skipped) == 1
    assert dataset_report(both).startswith("2 of 3 files in one: 4 clips")
    ways = joined(one, read(tmp_path / "one", fps=8.0))
    assert ways.notes == ("In this chain twice, read in two ways: a.mp4, b.mp4",)
    assert ways.counts().clips == 4


def test_copies_in_folders_of_one_name_are_told_apart(film, tmp_path):
    for parent in ("x", "y"):
        film(tmp_path / parent / "one" / "a.mp4")
    both = joined(read(tmp_path / "x" / "one"), read(tmp_path / "y" / "one"))
    where = f"{tmp_path / 'x' / 'one'} and {tmp_path / 'y' / 'one'}"
    assert both.notes == (f"The same file is in {where}: a.mp4",)
    assert both.counts().clips == 2


def test_blanks_are_no_part_of_a_trigger(film, tmp_path):
    path = film(tmp_path / "a.mp4")
    path.with_suffix(".txt").write_text("A {trigger} field.")
    for trigger, caption in ((" FOX ", "A FOX field."), ("  ", "A {trigger} field.")):
        dataset = read(tmp_path, trigger=trigger)
        assert (dataset.trigger, dataset.clips[0].caption) == (trigger.strip(), caption)
        listed = media_dataset([Medium(path)], settings(tmp_path, trigger=trigger))
        assert (listed.trigger, listed.clips) == (dataset.trigger, dataset.clips)
    assert "stands in 1 of 1 captions" in dataset_report(read(tmp_path, trigger="FOX "))


def test_linked_folders_are_read_once_each(tmp_path):
    picture(tmp_path / "set" / "deep" / "a.png")
    picture(tmp_path / "else" / "b.png", colour=3)
    (tmp_path / "set" / "a_link").symlink_to(tmp_path / "set" / "deep")
    (tmp_path / "set" / "deep" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "else")
    (tmp_path / "set" / "more2").symlink_to(tmp_path / "else")
    (tmp_path / "else" / "b.txt").write_text("B.")
    dataset = read(tmp_path / "set")
    names = [clip.path.relative_to(tmp_path / "set").as_posix() for clip in dataset.clips]
    assert names == ["deep/a.png", "more/b.png"]
    assert captions(dataset) == {"a.png": "", "b.png": "B."}
    before = folder_stamp(tmp_path / "set", "auto")
    picture(tmp_path / "else" / "c.png", colour=4)
    assert folder_stamp(tmp_path / "set", "auto") != before


def test_captions_are_found_whatever_the_capitals_and_the_encoding_of_accents(tmp_path):
    decomposed = unicodedata.normalize("NFD", "café")
    composed = unicodedata.normalize("NFC", "café")
    picture(tmp_path / f"{decomposed}.png", colour=1)
    picture(tmp_path / "Clip1.png", colour=2).rename(tmp_path / "Clip1.PNG")
    picture(tmp_path / "B.png", colour=3)
    (tmp_path / "b.TXT").write_text("Beside.")
    (tmp_path / "captions.txt").write_text(f"{composed}.png: A cup.\nclip1: One.\n", "utf-8")
    dataset = read(tmp_path)
    assert sorted(captions(dataset).values()) == ["A cup.", "Beside.", "One."]
    listed = media_dataset([Medium(tmp_path / "B.png")], settings(tmp_path))
    assert listed.clips[0].caption == "Beside."
    before = folder_stamp(tmp_path, "auto")
    (tmp_path / "b.TXT").write_text("Beside it.")
    assert folder_stamp(tmp_path, "auto") != before


def test_of_names_that_differ_in_capitals_only_the_exact_one_counts(tmp_path):
    for colour, name in enumerate(("a.png", "A.png")):
        picture(tmp_path / name, colour=colour)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell capitals apart")
    (tmp_path / "a.txt").write_text("Small.")
    assert captions(read(tmp_path)) == {"a.png": "Small.", "A.png": ""}
    (tmp_path / "rows.jsonl").write_text(json.dumps({"file": "A.PNG", "text": "Unclear."}))
    dataset = read(tmp_path)
    assert captions(dataset)["a.png"] == "Small."
    assert "names files that are not there: A.PNG" in dataset_report(dataset)


def test_rows_that_are_no_objects_are_counted_and_long_names_cut(tmp_path):
    picture(tmp_path / "a.png")
    rows = ['{"file": "a.png", "text": "A."}', "[1, 2]", '"x"', "null"]
    rows.append(json.dumps({"file": "n" * 5000 + "\nn", "text": "Long."}))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    report = dataset_report(read(tmp_path))
    assert "3 of 5 rows in rows.jsonl have no file" in report
    assert max(map(len, report.splitlines())) < 250
    assert "not there: nnnn" in report


def test_what_is_no_caption_file_does_not_end_up_in_a_caption(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", colour=1)
    (tmp_path / "a.txt").write_bytes(b"x" * ((1 << 20) + 1))
    (tmp_path / "b.txt").write_text("B.")
    dataset = read(tmp_path)
    assert captions(dataset) == {"b.png": "B."}
    assert "a.txt has 1 MiB" in dataset.skipped[0].reason
    (tmp_path / "a.txt").write_bytes(b"x" * (1 << 20))
    assert len(read(tmp_path).clips) == 2

    def refuse(path, *args, **settings):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "captions.txt").write_text("a.png: A.")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UserError, match=r"None of the 2 .*a\.txt cannot be read \(Permission"):
        read(tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"^captions\.txt cannot be read \(Permission denied"):
        read(tmp_path)


def test_settings_are_kept_as_they_are_used(film, tmp_path):
    film(tmp_path / "a.mp4")
    given = settings(tmp_path, trigger=" FOX")
    assert load_dataset(given).parts == (replace(given, trigger="FOX"),)
