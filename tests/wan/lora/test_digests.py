"""SHA-256 of files: right, computed once, and never of a file that has changed since."""

import hashlib
import json
import os
import threading

import pytest
from tandem_wan.wan.lora import digests as module
from tandem_wan.wan.lora.digests import CHUNK, Digests, file_sha256


@pytest.fixture
def files(tmp_path):
    """Six files, one longer than what is read at once."""
    paths = [tmp_path / "loras" / f"{n}.safetensors" for n in range(6)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (CHUNK * 2 + 7 if number == 0 else number))
    return paths


@pytest.fixture
def digests(tmp_path):
    return Digests(tmp_path / "user" / "digests.json")


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were really read."""
    names = []
    monkeypatch.setattr(
        module, "file_sha256", lambda path: names.append(path.name) or file_sha256(path)
    )
    return names


def slow(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_hashed_once_until_it_changes_also_by_another_process(files, digests, read):
    assert [digests(path) for path in files] == [slow(path) for path in files]
    other = Digests(digests.cache_path)
    assert [other(path) for path in files] == [slow(path) for path in files]
    assert len(read) == len(files)
    files[3].write_bytes(b"new")
    assert digests(files[3]) == slow(files[3])
    assert read[len(files) :] == [files[3].name]


def test_another_content_of_the_same_size_is_another_file(files, digests):
    before = digests(files[5])
    files[5].write_bytes(b"xxxxx")
    os.utime(files[5], ns=(1, 1))
    assert digests(files[5]) == slow(files[5]) != before


def test_a_file_that_changes_while_it_is_read_is_not_remembered(files, digests, monkeypatch):
    def growing(path):
        found = file_sha256(path)
        path.write_bytes(path.read_bytes() + b"more")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(module, "file_sha256", growing)
        digests(files[1])
    assert not digests.cache_path.exists()
    assert digests(files[1]) == slow(files[1])


@pytest.mark.parametrize(
    "broken", ["", "[]", "3", '{"version": 1, "files": {"a": 1}}', '{"version": 9, "files": {}}']
)
def test_a_broken_cache_is_begun_anew(files, digests, broken):
    digests.cache_path.parent.mkdir()
    digests.cache_path.write_text(broken)
    assert digests(files[2]) == slow(files[2])
    assert list(json.loads(digests.cache_path.read_text())["files"]) == [str(files[2])]


def test_files_that_are_gone_leave_the_cache(files, digests):
    digests(files[0])
    files[0].unlink()
    digests(files[1])
    assert list(json.loads(digests.cache_path.read_text())["files"]) == [str(files[1])]


def test_hashes_from_many_threads_are_all_remembered(files, digests):
    threads = [threading.Thread(target=digests, args=(path,)) for path in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(digests.cache_path.read_text())["files"]) == len(files)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_cannot_be_written_is_said_and_files_are_hashed_all_the_same(
    files, tmp_path, kind, caplog
):
    """A file where the folder should be, or a folder where the file should be, refuses root as well."""
    in_the_way = tmp_path / "user"
    if kind == "folder":
        (in_the_way / "digests.json").mkdir(parents=True)
    else:
        in_the_way.write_text("")
    digests = Digests(in_the_way / "digests.json")
    assert [digests(path) for path in files] == [slow(path) for path in files]
    assert "digests.json cannot be written" in caplog.text
