"""Caption files: old ones are never lost, undo brings all back to the byte, and a kill changes neither."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.captions.files import caption_files, undo_captions, write_captions
from tandem_wan.training.data.dataset import Clip, Dataset
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize

MANIFEST = "written.json"
NAMES = ["a.mp4", "new.mp4", "one/x.mp4", "two/x.mp4"]


def dataset(folder: Path, names=NAMES, **extra) -> Dataset:
    clips = tuple(
        Clip(path=folder / name, caption="", frames=9, digest="", **extra) for name in names
    )
    return Dataset(folder=folder, clips=clips, size=ClipSize(64, 64, 9), fps=16.0)


@pytest.fixture
def folder(tmp_path):
    """Four clips in three folders, two of one name; three have captions."""
    for name, text in {"a": "old a", "one/x": "old one", "two/x": "old two\r\n"}.items():
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    """All files but those in the dated folders."""
    found = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in found.items()
        if not any(part.startswith(".captions_before_") for part in name.parts)
    }


def new(word: str) -> list[str]:
    return [f"{word} {n} é" for n in range(len(NAMES))]


def of_clips(texts) -> dict[str, bytes]:
    files = [Path(name).with_suffix(".txt").as_posix() for name in NAMES]
    return {name: f"{text}\n".encode() for name, text in zip(files, texts, strict=True)}


def test_new_captions_stand_beside_their_clips_and_every_old_one_is_kept(folder):
    old = content(folder)
    written = write_captions(dataset(folder), new("b"))
    [kept] = written.kept
    assert content(folder) == of_clips(new("b"))
    assert (written.changed, written.created, written.same) == (3, 1, 0)
    assert {p: (kept / p).read_bytes() for p in old} == old
    assert kept.parent == folder and kept.name.startswith(".")


def test_captions_that_are_there_already_are_left_alone(folder):
    write_captions(dataset(folder), new("b"))
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    again = write_captions(dataset(folder), new("b"))
    assert (again.kept, again.same) == ((), 4)
    assert before == {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


def test_each_undo_takes_one_writing_back(folder):
    found, old = dataset(folder), content(folder)
    for word in ("b", "c", "d"):
        write_captions(found, new(word))
    for word in ("c", "b"):
        undo_captions(found)
        assert content(folder) == of_clips(new(word))
    last = undo_captions(found)
    assert content(folder) == old
    assert [path.name for path in last.removed] == ["new.txt"] and len(last.restored) == 3
    assert undo_captions(found).folders == ()
    assert content(folder) == old


def test_undo_after_undo_and_another_writing_takes_the_last_one(folder):
    found, old = dataset(folder), content(folder)
    for word in ("b", "c"):
        write_captions(found, new(word))
        undo_captions(found)
    assert content(folder) == old


def test_what_was_edited_since_is_never_lost(folder):
    found = dataset(folder)
    write_captions(found, new("b"))
    (folder / "a.txt").write_text("mine", encoding="utf-8")
    (folder / "new.txt").write_text("mine too", encoding="utf-8")
    done = undo_captions(found)
    assert (folder / "a.txt").read_text(encoding="utf-8") == "old a"
    assert [kept.read_text(encoding="utf-8") for kept in done.replaced] == ["mine"]
    assert done.edited == (folder / "new.txt",) and not done.removed
    assert (folder / "new.txt").read_text(encoding="utf-8") == "mine too"


def test_a_caption_that_is_gone_from_the_dated_folder_is_told_and_nothing_is_overwritten(folder):
    [kept] = write_captions(dataset(folder), new("b")).kept
    (kept / "a.txt").unlink()
    (kept / "one" / "x.txt").write_text("changed", encoding="utf-8")
    done = undo_captions(dataset(folder))
    assert set(done.lost) == {folder / "a.txt", folder / "one" / "x.txt"}
    assert (folder / "a.txt").read_bytes() == of_clips(new("b"))["a.txt"]


def test_joined_folders_keep_their_own_and_are_undone_together(tmp_path):
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        root.mkdir()
        (root / "a.txt").write_text(f"old {root.name}", encoding="utf-8")
    parts = [dataset(root, ["a.mp4"], root=root) for root in roots]
    joined = replace(parts[0], clips=parts[0].clips + parts[1].clips)
    old = content(tmp_path)
    written = write_captions(joined, ["x", "y"])
    assert [kept.parent for kept in written.kept] == roots
    write_captions(parts[1], ["z"])
    undo_captions(joined)
    assert (roots[0] / "a.txt").read_bytes() == b"x\n", "the last writing was for the second alone"
    assert (roots[1] / "a.txt").read_bytes() == b"y\n"
    undo_captions(joined)
    assert content(tmp_path) == old


def test_parts_of_a_film_share_one_file_and_must_agree(tmp_path):
    first = dataset(tmp_path, ["film.mp4"])
    parts = replace(first, clips=(*first.clips, replace(first.clips[0], start=81)))
    [file] = caption_files(parts, ["one", "one"])
    assert (file.path, file.text) == (tmp_path / "film.txt", "one")
    write_captions(parts, ["one", "one"])
    assert content(tmp_path) == {"film.txt": b"one\n"}
    with pytest.raises(UserError, match=r"film.mp4 and film.mp4@81 share film.txt"):
        write_captions(parts, ["two", "three"])
    assert content(tmp_path) == {"film.txt": b"one\n"}


def test_regularisation_clips_are_not_written(tmp_path):
    write_captions(dataset(tmp_path, ["a.mp4"], regularisation=True), ["x"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [{"../../x.txt": {"before": None, "after": []}}, {"/x.txt": {}}, {"a.mp4": {}}, {"a.txt": 3}],
)
def test_a_list_that_reaches_beyond_its_folder_or_is_damaged_is_refused(folder, files):
    [kept] = write_captions(dataset(folder), new("b")).kept
    listed = json.loads((kept / MANIFEST).read_text())
    (kept / MANIFEST).write_text(json.dumps({**listed, "files": files}))
    with pytest.raises(UserError, match="cannot be read"):
        undo_captions(dataset(folder))
    assert content(folder) == of_clips(new("b"))


@pytest.mark.parametrize("calls", range(9))
def test_a_full_disk_leaves_every_caption_whole_and_writing_again_goes_on(
    folder, monkeypatch, calls
):
    found, old, done, rename = dataset(folder), content(folder), [], os.replace

    def replace_until_full(source, target):
        if len(done) == calls:
            raise OSError(28, "No space left on device", str(source))
        done.append(target)
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_until_full)
        with pytest.raises(UserError, match="could not be written: No space left on device"):
            write_captions(found, new("b"))
    assert_whole(folder, old, of_clips(new("b")))
    write_captions(found, new("c"))
    assert content(folder) == of_clips(new("c"))
    undo_captions(found)
    assert content(folder) == old


def assert_whole(folder, old, new):
    """Each file is the old or the new one, and each old text lies somewhere."""
    now = content(folder)
    assert all(now[name] in (old.get(name), new[name]) for name in now), "nothing half written"
    every = [path.read_bytes() for path in folder.rglob("*.txt")]
    assert all(text in every for text in old.values())


def test_what_was_edited_between_a_cut_off_writing_and_the_next_is_kept(folder, monkeypatch):
    found, old, done, rename = dataset(folder), content(folder), [], os.replace

    def fail_at_the_last(source, target):
        done.append(target)
        if len([path for path in done if ".captions_before_" not in str(path)]) == 4:
            raise OSError(28, "full")
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail_at_the_last)
        with pytest.raises(UserError):
            write_captions(found, new("b"))
    (folder / "a.txt").write_text("mine", encoding="utf-8")
    write_captions(found, new("c"))
    assert any(path.read_bytes() == b"mine" for path in folder.rglob("*.txt"))
    undo_captions(found)
    assert content(folder) == old


CONTENTS = st.lists(st.one_of(st.none(), st.binary(max_size=20)), min_size=4, max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    CONTENTS,
    st.lists(st.lists(st.text("ab", min_size=1), min_size=4, max_size=4), min_size=1, max_size=3),
)
def test_writing_and_undoing_is_the_identity_on_the_folder(contents, writings):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in zip(NAMES, contents, strict=True):
            (folder / path).parent.mkdir(exist_ok=True)
            if text is not None:
                (folder / path).with_suffix(".txt").write_bytes(text)
        states = []
        for texts in writings:
            states.append(content(folder))
            if not write_captions(dataset(folder), texts).kept:
                states.pop()
        for state in reversed(states):
            undo_captions(dataset(folder))
            assert content(folder) == state


KILLS = 16
"""More changes of files than a writing or an undo makes."""
pytestmark_killed = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders whose writing or undo was killed after 0, 1, 2 ... changes."""
    import importlib.util

    root = tmp_path_factory.mktemp("killed")
    path = Path(__file__).with_name("caption_child.py")
    done = subprocess.run(
        [sys.executable, str(path), str(root), str(KILLS)],
        capture_output=True,
        text=True,
        check=True,
    )
    ends = [int(each) for each in done.stdout.split()]
    spec = importlib.util.spec_from_file_location("caption_child", path)
    child = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(child)
    return SimpleNamespace(root=root, writes=ends[::2], undos=ends[1::2], child=child)


@pytestmark_killed
def test_kills_came_everywhere_and_at_last_not_at_all(killed):
    for ends in (killed.writes, killed.undos):
        survived = ends.index(0)
        assert survived > 4
        assert ends == [signal.SIGKILL] * survived + [0] * (KILLS - survived)


@pytestmark_killed
@pytest.mark.parametrize("n", range(KILLS))
def test_a_killed_writing_loses_nothing_goes_on_and_can_be_undone(killed, n):
    folder, child = killed.root / "write" / str(n), killed.child
    found, listed = child.dataset(folder), [Path(name).with_suffix(".txt") for name in child.CLIPS]
    first, second = (
        {p.as_posix(): f"{t}\n".encode() for p, t in zip(listed, child.texts(w), strict=True)}
        for w in ("first", "second")
    )
    captions = {k: v for k, v in content(folder).items() if k.endswith(".txt")}
    assert all(captions[name] in (child.OLD.get(name), first[name]) for name in captions)
    every = [path.read_bytes() for path in folder.rglob("*.txt")]
    assert all(text in every for text in child.OLD.values())
    # Every other one goes on with other captions than those that were cut off.
    again = "second" if n % 2 else "first"
    written = write_captions(found, child.texts(again))
    assert written.finished == (n > 0 and killed.writes[n] != 0)
    assert texts_only(folder) == (second if n % 2 else first)
    if written.finished:  # continued, not nested
        assert len(list(folder.rglob(".captions_before_*"))) == len(set(written.kept)) == 2
    undo_captions(found)
    if killed.writes[n] == 0 and n % 2:  # that was a writing of its own
        undo_captions(found)
    assert texts_only(folder) == child.OLD
    assert not list(folder.rglob("*.writing"))


@pytestmark_killed
@pytest.mark.parametrize("n", range(KILLS))
def test_a_killed_undo_is_finished_by_another(killed, n):
    folder, child = killed.root / "undo" / str(n), killed.child
    undo_captions(child.dataset(folder))
    assert texts_only(folder) == child.OLD
    assert not list(folder.rglob("*.writing"))


def texts_only(folder):
    return {name: text for name, text in content(folder).items() if not name.endswith(".mp4")}
