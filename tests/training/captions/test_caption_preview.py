"""What a person reads before and after captions are written."""

from dataclasses import replace
from pathlib import Path

import pytest
from tandem_wan.training.captions.files import undo_captions, write_captions
from tandem_wan.training.captions.preview import caption_preview, undone_text, written_text
from tandem_wan.training.captions.table import parse_table
from tandem_wan.training.captions.there import captions_there
from tandem_wan.training.data.dataset import Clip, Dataset
from tandem_wan.wan.shapes import ClipSize


@pytest.fixture
def dataset(tmp_path):
    """a.mp4 has its caption in a .txt, b.mp4 in a list, c.mp4 has none, r.png is regularisation."""
    (tmp_path / "a.txt").write_text("\ufeffA man  turns into\na {trigger}\n", encoding="utf-8")
    there = {"a.mp4": "A man turns into a MERMAID", "b.mp4": "A cat", "c.mp4": ""}
    clips = [Clip(path=tmp_path / n, caption=t, frames=9, digest="") for n, t in there.items()]
    clips.append(
        Clip(path=tmp_path / "r.png", caption="a man", frames=1, digest="", regularisation=True)
    )
    size = ClipSize(64, 64, 9)
    return Dataset(folder=tmp_path, clips=tuple(clips), size=size, fps=16.0, trigger="MERMAID")


NEW = ["A woman turns into a MERMAID", "A cat", "A dog", "a man"]


def test_every_caption_is_listed_and_compared_with_what_is_there(dataset):
    lines = caption_preview(dataset, NEW, table=parse_table("file,x\na,1\nzz,2")).splitlines()
    assert lines[:3] == ["a.mp4: A woman turns into a MERMAID", "b.mp4: A cat", "c.mp4: A dog"]
    assert lines[3] == "Against what is there: 1 new, 1 the same, 1 changed."
    assert lines[4:6] == ["new: c.mp4", "same: b.mp4"]
    assert lines[6] == "changed a.mp4: A [man -> woman] turns into a [{trigger} -> MERMAID]"
    assert "'zz' is for no clip" in lines[7]
    assert lines[8].startswith("1 caption is in no .txt file") and "go before the list" in lines[8]
    assert lines[9].startswith("1 regularisation clip keeps its caption:")
    assert not any(line.startswith(("r.png", "new: r", "same: r")) for line in lines)


def test_parts_of_a_film_are_one_line_and_equal_names_come_with_their_folders(tmp_path):
    paths = ["one/x.mp4", "two/x.mp4", "film.mp4", "film.mp4"]
    clips = tuple(
        Clip(path=tmp_path / path, caption="", frames=9, digest="", start=81 * n)
        for n, path in enumerate(paths)
    )
    found = Dataset(folder=tmp_path, clips=clips, size=ClipSize(64, 64, 9), fps=16.0)
    lines = caption_preview(found, ["a", "b", "c", "c"]).splitlines()
    assert lines[:3] == ["one/x.mp4: a", "two/x.mp4: b", "film.mp4: c"]
    assert lines[3].startswith("Against what is there: 3 new")


def test_writing_and_going_back_are_told_and_going_back_gives_the_old_captions(dataset):
    folder = dataset.folder
    assert "1 new, 1 changed" not in caption_preview(dataset, NEW)
    text = written_text(write_captions(dataset, NEW))
    assert "2 new, 1 changed, 0 were right already" in text and ".captions_before_" in text
    assert written_text(write_captions(dataset, NEW)).startswith("Nothing to write")
    (folder / "c.txt").write_text("mine", encoding="utf-8")
    (folder / "a.txt").write_text("mine", encoding="utf-8")
    done = undo_captions(replace(dataset, clips=dataset.clips[:1]))
    text = undone_text(done)
    assert "1 caption is back, 1 file removed" in text
    assert "so they stay: c.txt" in text and ".edited there: a.txt" in text
    assert captions_there(dataset, done.removed) == [
        "A man turns into a MERMAID",
        "",
        "mine",
        "a man",
    ]
    assert undone_text(undo_captions(dataset)) == "There is no writing to undo."


def test_a_kept_caption_that_is_gone_is_told(dataset):
    [kept] = write_captions(dataset, NEW).kept
    Path(kept / "a.txt").unlink()
    assert "gone or changed: a.txt" in undone_text(undo_captions(dataset))


def test_going_back_names_files_of_one_name_by_their_folders(tmp_path):
    clips = tuple(
        Clip(path=tmp_path / path, caption="", frames=9, digest="")
        for path in ("one/x.mp4", "two/x.mp4")
    )
    for clip in clips:
        clip.path.parent.mkdir()
    found = Dataset(folder=tmp_path, clips=clips, size=ClipSize(64, 64, 9), fps=16.0)
    write_captions(found, ["a", "b"])
    for clip in clips:
        clip.path.with_suffix(".txt").write_text("mine", encoding="utf-8")
    assert "so they stay: one/x.txt, two/x.txt" in undone_text(undo_captions(found))
