"""Who uses an entry keeps it, whatever else happens at the same time; a full or busy disk loses nothing."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from tandem_wan.training.cache import files as cache_files
from tandem_wan.training.cache import limit as cache_limit
from tandem_wan.training.cache.files import PART, entry_key, entry_path
from tandem_wan.training.cache.latent_cache import LatentCache
from tandem_wan.training.cache.limit import IN_USE, make_room, used_keys
from tandem_wan.wan.errors import UserError

KEY = entry_key("test", {"a": 1})


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def numbered(count: int) -> list[str]:
    return [entry_key("test", {"number": n}) for n in range(count)]


def aged(cache: LatentCache, keys: list[str]) -> None:
    """The first of them was used longest ago."""
    for age, key in enumerate(reversed(keys)):
        os.utime(entry_path(cache.folder, key), (0, time.time() - 3600 * (age + 1)))


def present(cache: LatentCache, keys: list[str]) -> list[bool]:
    return [entry_path(cache.folder, key).is_file() for key in keys]


@pytest.fixture
def cache(tmp_path) -> LatentCache:
    return LatentCache(tmp_path / "cache")


def test_what_a_run_leases_while_room_is_made_is_not_taken_from_it(tmp_path, monkeypatch):
    """Who makes room has seen which entries are in use; before it deletes them, a run begins that wants one."""
    cache, [key] = LatentCache(tmp_path), numbered(1)
    cache.write(key, noise(2, 3), "test")
    looked, began, found = threading.Event(), threading.Event(), []
    living = cache_limit._living

    def slow(place):
        keys = living(place)
        if threading.current_thread() is cleaner:
            looked.set()
            began.wait(0.3)
        return keys

    monkeypatch.setattr(cache_limit, "_living", slow)
    cleaner = threading.Thread(target=make_room, args=(tmp_path, 0, 0))
    cleaner.start()
    assert looked.wait(10)
    with cache.use([key]):
        began.set()
        found.append(cache.verified(key))
        cleaner.join(10)
        assert present(cache, [key]) == [found[0] is not None], "what the run counts on stays"


def test_leases_are_never_seen_half_written(tmp_path, monkeypatch):
    cache, keys = LatentCache(tmp_path), numbered(3)
    replace, seen = os.replace, []

    def look(source, target):
        seen.append((list((tmp_path / IN_USE).glob("*.keys")), Path(source).read_text("utf-8")))
        replace(source, target)

    monkeypatch.setattr(cache_limit.os, "replace", look)
    with cache.use(keys):
        assert [(listed, set(text.split())) for listed, text in seen] == [([], set(keys))]
        assert used_keys(tmp_path) == set(keys)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("when", ["os.replace", "Path.write_text"])
def test_a_kill_while_a_run_registers_leaves_nothing_behind(tmp_path, when):
    code = f"""
import importlib.util, os, pathlib, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("of_tests", {str(Path(__file__).parents[2] / "conftest.py")!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
from tandem_wan.training.cache.limit import in_use
{when} = lambda *args, **more: os.kill(os.getpid(), signal.SIGKILL)
with in_use(Path(sys.argv[1]), ["a"]):
    pass
"""
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL
    assert list((tmp_path / IN_USE).iterdir()), "it was killed before"
    assert used_keys(tmp_path) == set()
    assert list((tmp_path / IN_USE).iterdir()) == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_an_entry_that_cannot_be_opened_just_now_is_not_deleted(cache, monkeypatch, caplog, number):
    cache.write(KEY, noise(2, 3), "test")

    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert cache.verified(KEY) is None
    assert os.strerror(number) in caplog.text
    assert torch.equal(cache.verified(KEY), noise(2, 3))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 2, 2)])
def test_an_entry_that_is_not_finite_is_broken(cache, value, shape):
    tensor = noise(*shape)
    tensor[-1, -1] = value
    cache.write(KEY, tensor, "test")
    assert cache.verified(KEY) is None
    assert present(cache, [KEY]) == [False]


def test_a_full_disk_does_not_stop_a_run_that_finds_everything(tmp_path, monkeypatch, caplog):
    cache, keys = LatentCache(tmp_path), numbered(3)
    with cache.use(keys):
        for key in keys:
            cache.write(key, noise(2, 3), "test")
    tag = (tmp_path / "CACHEDIR.TAG").stat().st_mtime_ns
    write, full = Path.write_text, [True]

    def refuse(path, *args, **more):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *args, **more)

    make_place = Path.unlink

    def unlink(path, **more):
        full[0] = full[0] and path.suffix != ".safetensors"
        make_place(path, **more)

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "unlink", unlink)
    aged(cache, keys)
    with cache.use(keys[:1]):
        assert used_keys(tmp_path) == set(keys[:1])
        assert present(cache, keys)[0], "what the run is about to look for is no room"
    assert not all(present(cache, keys)) and "full" in caplog.text
    assert (tmp_path / "CACHEDIR.TAG").stat().st_mtime_ns == tag
    full[0] = True
    with pytest.raises(UserError, match=r"disk of .* is full"), cache.use(numbered(3)):
        pass
    assert list((tmp_path / IN_USE).iterdir()) == []


def test_without_its_tag_the_cache_works_all_the_same(cache):
    (cache.folder / "CACHEDIR.TAG").mkdir(parents=True)
    with cache.use([KEY]):
        cache.write(KEY, noise(2, 3), "test")
    assert cache.verified(KEY) is not None


@pytest.mark.parametrize("there", [True, False])
def test_an_entry_that_another_process_has_open_is_as_good_as_ours(cache, monkeypatch, there):
    """Windows lets nobody rename over a file that is being read."""
    if there:
        cache.write(KEY, noise(2, 3), "by another process")

    def refuse(source, target):
        raise PermissionError(errno.EACCES, "The process cannot access the file", str(target))

    monkeypatch.setattr(cache_files.os, "replace", refuse)
    if there:
        cache.write(KEY, noise(2, 3), "test")
        assert torch.equal(cache.verified(KEY), noise(2, 3))
    else:
        with pytest.raises(UserError, match="cannot be written"):
            cache.write(KEY, noise(2, 3), "test")
    assert list(cache.folder.rglob(f"*{PART}")) == []
