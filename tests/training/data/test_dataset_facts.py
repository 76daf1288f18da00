"""What was found in a file is remembered until the file changes, and wrong notes do no harm."""

import json
import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tandem_wan.training.data import facts as dataset_facts
from tandem_wan.training.data import file_notes
from tandem_wan.training.data.dataset import DatasetSettings
from tandem_wan.training.data.file_notes import FileNotes
from tandem_wan.training.data.reader import load_dataset


@pytest.fixture(scope="module")
def folder(film, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    film(folder / "a.mp4")
    film(folder / "b.mp4", seed=1)
    return folder


@pytest.fixture
def looked(monkeypatch):
    """Names of the files that were decoded."""
    names = []
    probe = dataset_facts.probe

    def counted(path, **settings):
        names.append(path.name)
        return probe(path, **settings)

    monkeypatch.setattr(dataset_facts, "probe", counted)
    return names


def read(folder, notes_path=None, **changes):
    given = {"width": 48, "height": 32, "frames": 9, **changes}
    notes = FileNotes(notes_path) if notes_path else None
    return load_dataset(DatasetSettings(folder=folder, **given), notes=notes)


def test_a_second_reading_decodes_nothing_and_gives_the_same(folder, tmp_path, looked):
    path = tmp_path / "cache" / "files.jsonl"
    first = read(folder, path)
    assert looked == ["a.mp4", "b.mp4"]
    assert read(folder, path) == first == read(folder)
    assert looked == ["a.mp4", "b.mp4"] * 2, "only the reading without notes"


def test_a_file_that_was_written_again_is_decoded_again(folder, tmp_path, looked, film):
    path = tmp_path / "files.jsonl"
    again = film(tmp_path / "clips" / "a.mp4")
    before = read(again.parent, path)
    film(again, seed=5)
    os.utime(again, (1, 1))
    after = read(again.parent, path)
    assert looked == ["a.mp4", "a.mp4"]
    assert after.digest() != before.digest()
    assert after == read(again.parent)


def test_each_rate_length_and_mode_is_looked_up_by_itself(folder, tmp_path, looked):
    path = tmp_path / "files.jsonl"
    wishes = [{}, {"fps": 8.0, "frames": 5}, {"frames": 5}, {"clip_mode": "middle", "frames": 5}]
    for changes in wishes * 2:
        assert read(folder, path, **changes) == read(folder, **changes)
    assert len(looked) == 2 * (4 + 8)


def test_a_broken_file_is_not_remembered_as_broken(tmp_path, film):
    film(tmp_path / "clips" / "a.mp4")
    bad = tmp_path / "clips" / "bad.mp4"
    bad.write_bytes(b"junk")
    path = tmp_path / "files.jsonl"
    assert [skipped.path.name for skipped in read(bad.parent, path).skipped] == ["bad.mp4"]
    assert [skipped.path.name for skipped in read(bad.parent, path).skipped] == ["bad.mp4"]


def test_what_was_found_is_kept_when_a_reading_is_stopped(folder, tmp_path, looked):
    notes = FileNotes(tmp_path / "files.jsonl")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_dataset(
            DatasetSettings(folder=folder, width=48, height=32, frames=9),
            notes=notes,
            on_file=stop,
        )
    read(folder, tmp_path / "files.jsonl")
    assert looked == ["a.mp4", "b.mp4"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(facts=[9, 48, 0, 16.0, False], digest="0" * 63, stamp="right")
@example(facts=[9, 48, 32, "16", False], digest="g" * 64, stamp="right")
@example(facts=[9, 48, 32, 16.0, "no"], digest=None, stamp="right")
@example(facts=[9.5, 48, 32, 16.0], digest=None, stamp="right")
@given(facts=JSON, digest=JSON, stamp=JSON | st.just("right"))
def test_wrong_notes_never_break_a_reading(folder, tmp_path, facts, digest, stamp):
    path = tmp_path / "files.jsonl"
    file = folder / "a.mp4"
    right = [file.stat().st_size, file.stat().st_mtime_ns]
    entry = {
        "path": str(file),
        "stamp": right if stamp == "right" else stamp,
        "found": {"frames 16.0 9": facts, "sha256": digest},
    }
    path.write_text('{"version": 1}\n' + json.dumps(entry) + "\n")
    assert read(folder, path) == read(folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"version": 2}\n', b"\0" * 99])
def test_a_file_of_notes_that_is_no_such_file_counts_as_empty(folder, tmp_path, content):
    path = tmp_path / "files.jsonl"
    path.write_bytes(content)
    assert read(folder, path) == read(folder)
    assert json.loads(path.read_text().splitlines()[0]) == {"version": 1}


def test_every_cut_off_of_the_file_of_notes_is_read(folder, tmp_path):
    path = tmp_path / "files.jsonl"
    read(folder, path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        notes = FileNotes(path)
        known = notes.get(folder / "a.mp4", "sha256")
        assert known in (None, dataset_facts.digest_of(folder / "a.mp4", None))


def test_the_file_is_bounded_and_the_oldest_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(file_notes, "MAX_FILES", 3)
    path = tmp_path / "files.jsonl"
    notes = FileNotes(path)
    for n in range(5):
        file = tmp_path / f"{n}.png"
        file.touch()
        for k in range(20):
            notes.remember(file, f"what {k}", lambda n=n: n)
    notes.save()
    again = FileNotes(path)
    assert len(path.read_text().splitlines()) == 4
    assert [again.get(tmp_path / f"{n}.png", "what 19") for n in range(5)] == [None, None, 2, 3, 4]
    assert again.get(tmp_path / "4.png", "what 0") is None
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_folder_where_nothing_can_be_written_does_not_stop_a_reading(folder, tmp_path):
    (tmp_path / "taken").write_text("a file")
    assert read(folder, tmp_path / "taken" / "files.jsonl") == read(folder)
