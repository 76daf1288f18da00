"""What the dataset has after a writing was taken back is what a new reading of its folder has."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tandem_wan.training.captions.files import undo_captions, write_captions
from tandem_wan.training.captions.there import captions_there
from tandem_wan.training.data.dataset import DatasetSettings
from tandem_wan.training.data.reader import load_dataset

NAMES = ("beside", "listed", "in/listed", "rows", "none", "empty")


@pytest.fixture
def settings(tmp_path):
    folder = tmp_path / "set"
    (folder / "in").mkdir(parents=True)
    for shade, name in enumerate(NAMES):
        Image.new("RGB", (64, 64), (shade * 30, 0, 0)).save(folder / f"{name}.png")
    (folder / "beside.txt").write_text("A\nred {trigger}", encoding="utf-8")
    (folder / "empty.txt").write_text("", encoding="utf-8")
    (folder / "captions.txt").write_text(
        "listed.png: A {trigger}, listed\nin/listed.png: Far\nbeside.png: not used\nempty.png: no\n",
        encoding="utf-8",
    )
    row = {"file": "rows.png", "caption": "A row"}
    (folder / "rows.of.jsonl").write_text(json.dumps(row), encoding="utf-8")
    return DatasetSettings(folder=folder, trigger="MERMAID", width=64, height=64, frames=1)


def captions(dataset):
    return [clip.caption for clip in dataset.clips]


def test_captions_of_lists_count_again_when_their_txt_is_taken_back(settings):
    before = load_dataset(settings)
    assert sum(map(bool, captions(before))) == 4
    write_captions(before, ["A written one"] * len(before.clips))
    written = load_dataset(settings)
    assert set(captions(written)) == {"A written one"}
    undone = undo_captions(written)
    assert captions_there(written, undone.removed) == captions(load_dataset(settings))
    assert captions(load_dataset(settings)) == captions(before)


def test_lines_without_names_count_files_that_are_not_used(settings):
    folder: Path = settings.folder
    for path in folder.glob("*.txt"):
        path.unlink()
    (folder / "in" / "broken.png").write_bytes(b"no picture")
    (folder / "in" / "captions.txt").write_text("one\ntwo\n", encoding="utf-8")
    dataset = load_dataset(settings)
    assert [each.path.name for each in dataset.skipped] == ["broken.png"]
    assert captions_there(dataset, ()) == captions(dataset) and "two" in captions(dataset)


def test_a_list_that_is_broken_since_loses_no_caption_and_raises_nothing(settings):
    dataset = load_dataset(settings)
    (settings.folder / "rows.of.jsonl").write_text("{", encoding="utf-8")
    assert captions_there(dataset, ()) == captions(dataset)
    shutil.rmtree(settings.folder / "in")
    assert captions_there(dataset, ()) == captions(dataset)


def test_captions_of_another_node_stay(settings):
    dataset = load_dataset(settings)
    none = [clip.path.stem for clip in dataset.clips].index("none")
    given = replace(dataset.clips[none], caption="From a node")
    clips = (*dataset.clips[:none], given, *dataset.clips[none + 1 :])
    assert captions_there(replace(dataset, clips=clips), ())[none] == "From a node"
    gone = [given.path.with_suffix(".txt")]
    assert captions_there(replace(dataset, clips=clips), gone)[none] == ""
